"""The baseline of UMTS on VehicleID (Jin et al., AAAI 2020, table 2).

    python -m kd_jax.main --config=configs/supervised_vehicleid.py --config.data.root=DIR

Numbers and settings as in configs/umts_vehicleid.py, without a teacher.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('vehicleid', variant)
