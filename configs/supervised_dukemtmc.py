"""The baseline on DukeMTMC-reID (Zheng et al., ICCV 2017), ResNet-50 at 256×128.

    python -m kd_jax.main --config=configs/supervised_dukemtmc.py --config.data.root=DIR

Its owners withdrew the data set in 2019; this reads a copy that you have.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('dukemtmc', variant)
