"""Factorized Distillation on the built-in data set, as reconstructed.

    python -m kd_jax.main --config=configs/factorized_carousel.py

Six partial teachers, then a student of whole images, all one-block ResNets of width 16; `:holistic`
adds a teacher of the whole image, --config.stacked=True trains all teachers at once.
"""

from configs import base, base_factorized


def get_config(variant: str = ''):
    base.check(variant, 'holistic')
    config = base_factorized.small('carousel', base_factorized.parts_of(variant))
    config.data.update(height=48, width=24, feed='device')
    return base_factorized.smoke(config) if variant == 'smoke' else config
