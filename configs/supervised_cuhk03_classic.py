"""The baseline on one of CUHK03's 20 classic splits: 1,367 identities to train on, 100 to test on.

    python -m kd_jax.main --config=configs/supervised_cuhk03_classic.py --config.data.root=DIR

Split 0; --config.data.classic_split=19 is the last. The protocol's number is the mean over all 20,
each trained anew: python -m experiments.cuhk03_classic. Rank-k by one random gallery image of each
identity, 10 draws.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('cuhk03_classic', variant)
