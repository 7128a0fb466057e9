"""UMTS on CUHK03, labeled boxes, new 767/700 protocol (Jin et al., AAAI 2020, tables 1 and 3).

    python -m kd_jax.main --config=configs/umts_cuhk03.py --config.data.root=DIR

The paper: baseline 73.5 / 69.3, UMTS 80.7 / 75.5 (rank-1 / mAP), from ImageNet weights. Schedule,
margin and erasing are those of the first author's sibling code, where the paper is silent
(methods.md §1.2): 300 epochs of 115 steps, T-net first, then the student.
"""

from configs import base

STEPS_PER_EPOCH = 115  # 7,368 train images / 64 examples a step, for T-net and student alike


def get_config(variant: str = ''):
    base.check(variant)
    student = base.supervised('cuhk03', root='', detected=False)
    student.train.steps_per_epoch = STEPS_PER_EPOCH
    config = base.umts(student)
    return base.smoke_umts(config) if variant == 'smoke' else config
