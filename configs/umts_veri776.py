"""UMTS on VeRi-776, image to image (Jin et al., AAAI 2020, tables 1 and 2).

    python -m kd_jax.main --config=configs/umts_veri776.py --config.data.root=DIR

The paper: baseline 91.8 / 66.7, UMTS 95.8 / 75.9 (rank-1 / mAP), from ImageNet weights: add
--config.network.pretrained=resnet50.safetensors (README).
256×256 pixels; else as configs/umts_cuhk03.py.
"""

from configs import base


def get_config(variant: str = ''):
    return base.umts_on('veri776', variant)
