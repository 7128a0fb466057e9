"""The baseline on MARS (Zheng et al., ECCV 2016), ResNet-50 on single frames at 256×128.

    python -m kd_jax.main --config=configs/supervised_mars.py --config.data.root=DIR

Image to video and video to video, 8 frames a tracklet, queries in the gallery, mAP by the trapezoid
rule, cosine similarity, as VKD (Porrello et al., ECCV 2020) reports them.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('mars', variant)
