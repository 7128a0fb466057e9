"""UMTS on CUHK03, detected boxes, new 767/700 protocol (Jin et al., AAAI 2020, table 3).

    python -m kd_jax.main --config=configs/umts_cuhk03_detected.py --config.data.root=DIR

The paper: baseline 70.0 / 66.0, UMTS 77.2 / 73.4 (rank-1 / mAP) with ResNet-50, 72.3 / 67.8 and
78.6 / 74.1 with OSNet (--config.network.name=osnet_x1_0), from ImageNet weights
(--config.network.pretrained=FILE). Else as configs/umts_cuhk03.py; the labeled split has other
test identities, never mix the two.
"""

from configs import base


def get_config(variant: str = ''):
    return base.umts_on('cuhk03_detected', variant)
