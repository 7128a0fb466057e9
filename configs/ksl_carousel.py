"""KSL on the built-in data set, as reconstructed from its abstract.

    python -m kd_jax.main --config=configs/ksl_carousel.py

Three branches of a one-block ResNet of width 16.
"""

from configs import base, base_ksl


def get_config(variant: str = ''):
    base.check(variant)
    config = base_ksl.small('carousel')
    config.data.update(height=48, width=24, feed='device')
    return base.smoke(config) if variant == 'smoke' else config
