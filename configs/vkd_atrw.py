"""VKD on the Amur tigers of ATRW (Porrello et al., ECCV 2020), 224×224.

    python -m kd_jax.main --config=configs/vkd_atrw.py --config.data.root=DIR

Every image is shown mirrored too, as of a new identity. There is neither camera nor tracklet: views
are any images of an identity. The authors' code has no such data set, and the paper's numbers are
not known to us.
"""

from configs import base_vkd


def get_config(variant: str = ''):
    return base_vkd.on('atrw_vkd', variant)
