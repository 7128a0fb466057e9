"""VKD on MARS (Porrello et al., ECCV 2020, table 1).

    python -m kd_jax.main --config=configs/vkd_mars.py --config.data.root=DIR

The paper, rank-1 / mAP of ResNet-50: teacher 82.22 / 73.38 image to video, 87.88 / 81.13 video to
video; student 83.89 / 77.27 and 88.74 / 82.22, from ImageNet weights: add
--config.network.pretrained=resnet50.safetensors (README). 300 epochs of the teacher on 8 frames of
a tracklet, 500 of the student on 2 of the teacher's 8 views, as the authors' code runs them;
another backbone is --config.network.name=resnet34. They leave the last stride of DenseNet-121 as
it is (add --config.network.last_stride=2), and a ResNet-18 teacher's learning rate falls at epochs
50, 100, …, 250 (--config.teachers.teacher.optimizer.boundaries).
"""

from configs import base_vkd


def get_config(variant: str = ''):
    return base_vkd.on('mars', variant)
