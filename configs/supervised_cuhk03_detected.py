"""The baseline of UMTS on CUHK03, new protocol, detected boxes (Jin et al., AAAI 2020, table 3).

    python -m kd_jax.main --config=configs/supervised_cuhk03_detected.py --config.data.root=DIR

Numbers and settings as in configs/umts_cuhk03_detected.py, without a teacher.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('cuhk03_detected', variant)
