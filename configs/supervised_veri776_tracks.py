"""The baseline on VeRi-776 as VKD ranks it: images and tracklets, at 224×224.

    python -m kd_jax.main --config=configs/supervised_veri776_tracks.py --config.data.root=DIR

Image to video, video to video, image to image and video to image, 8 images a tracklet, mAP by the
trapezoid rule (Porrello et al., ECCV 2020). Gallery tracklets are the lines of test_track.txt, and
all training images of a vehicle in a camera are one tracklet.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('veri776_tracks', variant)
