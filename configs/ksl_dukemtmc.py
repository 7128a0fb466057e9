"""KSL on DukeMTMC-reID (Fan et al., ACM MM 2021), as reconstructed from its abstract.

    python -m kd_jax.main --config=configs/ksl_dukemtmc.py --config.data.root=DIR

Three branches of ResNet-50 from layer4 on, from random weights as the paper has it, 350 epochs.
Of its results none is known to us; the comparison to make is --config.method.branches=1, and three
branches without constraints: --config.method.probability_weight=0
--config.method.distance_weight=0 --config.method.hard_weight=0.
"""

from configs import base_ksl


def get_config(variant: str = ''):
    return base_ksl.on('dukemtmc', variant)
