"""UMTS on your own images in Market-1501 naming.

    python -m kd_jax.main --config=configs/umts_folder.py --config.data.root=DIR

The paper's sizes and schedule, from random weights or those of `network.pretrained`; the T-net
trains as many steps as the student.
`:tiny` is for grey 32-pixel images and two CPU cores.
"""

from configs import base


def get_config(variant: str = ''):
    base.check(variant, 'tiny')
    student = base.supervised('folder')
    if variant == 'tiny':
        base.small(student)
        student.data.update(height=32, width=32, channels=1, feed='device')
        return base.small_umts(student)
    config = base.umts(student)
    return base.smoke_umts(config) if variant == 'smoke' else config
