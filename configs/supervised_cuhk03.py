"""The baseline of UMTS on CUHK03, new protocol, labeled boxes (Jin et al., AAAI 2020, table 3).

    python -m kd_jax.main --config=configs/supervised_cuhk03.py --config.data.root=DIR

Numbers and settings as in configs/umts_cuhk03.py, without a teacher.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('cuhk03', variant)
