"""The baseline on MSMT17 (Wei et al., CVPR 2018), ResNet-50 at 256×128.

    python -m kd_jax.main --config=configs/supervised_msmt17.py --config.data.root=DIR

Trains on 32,621 images, list_train and list_val; --config.data.validation=false on 30,248.
--config.data.version=v2 reads the release with masked faces.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('msmt17', variant)
