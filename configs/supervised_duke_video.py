"""The baseline on DukeMTMC-VideoReID (Wu et al., CVPR 2018), single frames at 256×128.

    python -m kd_jax.main --config=configs/supervised_duke_video.py --config.data.root=DIR

Image to video and video to video, 8 frames a tracklet. As in VKD's code, all frames of a person in
a camera that follow one another are one tracklet; --config.data.merge=false keeps the given ones.
The owners withdrew this data set in 2019; this reads a copy that you have.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('duke_video', variant)
