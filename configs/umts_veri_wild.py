"""UMTS on VERI-Wild (Jin et al., AAAI 2020, table 2).

    python -m kd_jax.main --config=configs/umts_veri_wild.py --config.data.root=DIR

The paper, rank-1 / mAP of the small, medium and large set: baseline 77.6 / 65.2, 72.7 / 60.3,
63.8 / 45.0; UMTS 84.5 / 72.7, 79.3 / 66.1, 72.8 / 54.2, from ImageNet weights: add
--config.network.pretrained=resnet50.safetensors (README). All three sets are scored. Matches by the
query's own camera are left out; --config.evaluate.same_camera=keep is for numbers before 2020 that
kept them.
256×256 pixels. 300 epochs are 1.3 million steps; how long the paper trained it does not say
(--config.train.epochs). Else as configs/umts_cuhk03.py.
"""

from configs import base


def get_config(variant: str = ''):
    return base.umts_on('veri_wild', variant)
