"""KSL on your own images in Market-1501 naming, as reconstructed from its abstract.

    python -m kd_jax.main --config=configs/ksl_folder.py --config.data.root=DIR

Three branches of ResNet-50 from layer4 on, from random weights, 350 epochs. `:tiny` is for grey
32-pixel images and two CPU cores.
"""

from configs import base, base_ksl


def get_config(variant: str = ''):
    base.check(variant, 'tiny')
    if variant == 'tiny':
        config = base_ksl.small('folder')
        config.data.update(height=32, width=32, channels=1, feed='device')
        return config
    return base_ksl.on('folder', variant)
