"""The baseline on your own images in Market-1501 naming.

    python -m kd_jax.main --config=configs/supervised_folder.py --config.data.root=DIR

ResNet-50 at 256×128. `:tiny` is a one-block ResNet of width 16 on grey 32-pixel
images, 1,500 steps in about a minute of two CPU cores.
"""

from configs import base


def get_config(variant: str = ''):
    base.check(variant, 'tiny')
    config = base.supervised('folder')
    if variant == 'tiny':
        base.small(config)
        config.data.update(height=32, width=32, channels=1, feed='device')
    return base.smoke(config) if variant == 'smoke' else config
