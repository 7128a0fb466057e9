"""The baseline on Market-1501 (Zheng et al., ICCV 2015), ResNet-50 at 256×128.

    python -m kd_jax.main --config=configs/supervised_market1501.py --config.data.root=DIR

DIR holds Market-1501-v15.09.15/, or what is in it. --config.data.distractors_500k=true adds the
500,000 distractors to the gallery.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('market1501', variant)
