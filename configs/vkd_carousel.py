"""VKD on the built-in data set.

    python -m kd_jax.main --config=configs/vkd_carousel.py

A teacher of single images that averages 8 views, and a student of 2, both a one-block ResNet of
width 16; ranked image to image, image to tracklet and tracklet to tracklet. 3,000 steps of each:
after 1,000 the teacher is 14 mAP below what it becomes. Its student would overtake it without
being distilled too, so it is held to it loosely (experiments/results/vkd.md).
"""

from configs import base, base_vkd


def get_config(variant: str = ''):
    base.check(variant)
    config = base_vkd.small('carousel')
    config.data.update(height=48, width=24, feed='device')
    config.method.update(logits_weight=0.1, distance_weight=3e-4)
    for one in (config, config.teachers.teacher):
        one.train.epochs = 30.0
    return base_vkd.smoke(config) if variant == 'smoke' else config
