"""The baseline on the built-in data set.

python -m kd_jax.main --config=configs/supervised_carousel.py
"""

from configs import base


def get_config(variant: str = ''):
    base.check(variant)
    config = base.small(base.supervised('carousel'))
    config.data.update(height=48, width=24, feed='device')
    return base.smoke(config) if variant == 'smoke' else config
