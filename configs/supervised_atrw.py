"""The baseline on the Amur tigers of ATRW (Li et al., ACM MM 2020), plain re-ID, at 224×224.

    python -m kd_jax.main --config=configs/supervised_atrw.py --config.data.root=DIR

Single- and cross-camera queries and their mean. As VKD's paper does, every image is also shown
flipped as a new identity (214 of them); --config.data.flips=false leaves that out.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('atrw', variant)
