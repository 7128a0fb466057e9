"""VKD on your own images in Market-1501 naming.

    python -m kd_jax.main --config=configs/vkd_folder.py --config.data.root=DIR

The paper's recipe and schedule; a tracklet is an identity in one camera and, where names have one,
sequence. `:tiny` is for grey 32-pixel images and two CPU cores.
"""

from configs import base, base_vkd


def get_config(variant: str = ''):
    base.check(variant, 'tiny')
    if variant == 'tiny':
        config = base_vkd.small('folder')
        config.data.update(height=32, width=32, channels=1, feed='device')
        return config
    return base_vkd.on('folder', variant)
