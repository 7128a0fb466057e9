"""The baseline of UMTS on VERI-Wild (Jin et al., AAAI 2020, table 2).

    python -m kd_jax.main --config=configs/supervised_veri_wild.py --config.data.root=DIR

Numbers and settings as in configs/umts_veri_wild.py, without a teacher.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('veri_wild', variant)
