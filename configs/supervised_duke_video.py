"""The baseline on DukeMTMC-VideoReID (Wu et al., CVPR 2018), single frames at 256×128.

    python -m kd_jax.main --config=configs/supervised_duke_video.py --config.data.root=DIR

Image to video and video to video, 8 frames a tracklet. --config.data.merge=true makes one tracklet
of all frames of a person in a camera that follow one another, as VKD's code does. The owners
withdrew this data set in 2019; this reads a copy that you have.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('duke_video', variant)
