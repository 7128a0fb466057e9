"""VKD on VeRi-776 (Porrello et al., ECCV 2020), 224×224.

    python -m kd_jax.main --config=configs/vkd_veri776.py --config.data.root=DIR

As configs/vkd_mars.py, but the teacher is trained on single images; it teaches with 8 views. Of the
paper's numbers only the abstract's is known to us: image-to-video mAP 5 above the best before.
"""

from configs import base_vkd


def get_config(variant: str = ''):
    return base_vkd.on('veri776_tracks', variant)
