"""UMTS on VehicleID (Jin et al., AAAI 2020, table 2).

    python -m kd_jax.main --config=configs/umts_vehicleid.py --config.data.root=DIR

The paper, rank-1 / mAP of 800, 1,600 and 2,400 identities: baseline 74.4 / 80.4, 72.4 / 77.1,
69.8 / 75.2; UMTS 80.9 / 87.0, 78.8 / 84.2, 76.1 / 82.8, from ImageNet weights: add
--config.network.pretrained=resnet50.safetensors (README). All three sets are scored, means of 10
draws of the gallery.
256×256 pixels; else as configs/umts_cuhk03.py.
"""

from configs import base


def get_config(variant: str = ''):
    return base.umts_on('vehicleid', variant)
