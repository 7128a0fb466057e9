"""VKD on DukeMTMC-VideoReID (Porrello et al., ECCV 2020).

    python -m kd_jax.main --config=configs/vkd_duke_video.py --config.data.root=DIR

As configs/vkd_mars.py; all frames of a person in a camera that follow one another are one tracklet,
as in VKD's code. Of the paper's numbers only the abstract's is known to us: image-to-video mAP 8.6
above the best before.
"""

from configs import base_vkd


def get_config(variant: str = ''):
    return base_vkd.on('duke_video_vkd', variant)
