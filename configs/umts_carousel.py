"""UMTS on the built-in data set: the demo.

    python -m kd_jax.main --config=configs/umts_carousel.py

A T-net of K=4 shots and a student of single images, both a one-block ResNet of width 16.
"""

from configs import base


def get_config(variant: str = ''):
    base.check(variant)
    student = base.small(base.supervised('carousel'))
    student.data.update(height=48, width=24, feed='device')
    config = base.small_umts(student)
    return base.smoke_umts(config) if variant == 'smoke' else config
