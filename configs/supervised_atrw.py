"""The baseline on the Amur tigers of ATRW (Li et al., ACM MM 2020), plain re-ID, at 224×224.

    python -m kd_jax.main --config=configs/supervised_atrw.py --config.data.root=DIR

Single- and cross-camera queries and their mean. An identity is one flank of a tiger, so no image
is mirrored; --config.data.flips=true shows each mirrored as a new identity, as VKD's paper does.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('atrw', variant)
