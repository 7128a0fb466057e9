"""Factorized Distillation on your own images in Market-1501 naming, as reconstructed.

    python -m kd_jax.main --config=configs/factorized_folder.py --config.data.root=DIR

Six partial ResNet-50s of 224×224 pixels, then the student of whole images; `:holistic` adds a
teacher of the whole image, --config.stacked=True trains all teachers at once. `:tiny` is for grey
32-pixel images and two CPU cores.
"""

from configs import base, base_factorized


def get_config(variant: str = ''):
    base.check(variant, 'tiny', 'holistic')
    if variant == 'tiny':
        config = base_factorized.small('folder')
        config.data.update(height=32, width=32, channels=1, feed='device')
        return config
    return base_factorized.on('folder', variant)
