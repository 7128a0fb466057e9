"""UMTS on CUHK03, labeled boxes, new 767/700 protocol (Jin et al., AAAI 2020, tables 1 and 3).

    python -m kd_jax.main --config=configs/umts_cuhk03.py --config.data.root=DIR

The paper: baseline 73.5 / 69.3, UMTS 80.7 / 75.5 (rank-1 / mAP), from ImageNet weights: add
--config.network.pretrained=resnet50.safetensors (README); without it the start is random and the
end below that. Where the paper is silent, schedule, margin and erasing are those of the first
author's sibling code: 300 epochs of 115 steps, T-net first, then the student.
"""

from configs import base


def get_config(variant: str = ''):
    return base.umts_on('cuhk03', variant)
