"""The baseline of UMTS on VeRi-776, image to image (Jin et al., AAAI 2020, tables 1 and 2).

    python -m kd_jax.main --config=configs/supervised_veri776.py --config.data.root=DIR

Numbers and settings as in configs/umts_veri776.py, without a teacher.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('veri776', variant)
