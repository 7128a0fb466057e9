"""What the ksl configs share: KSL as reconstructed from its abstract (Fan et al., ACM MM 2021)."""

from ml_collections import ConfigDict

from configs import base


def ksl(config: ConfigDict) -> ConfigDict:
    """The config of a baseline with three branches from stage 4 on and all three constraints.

    A-KSL-1, -2, -4 to -7; the constraints rise with the learning rate (A-KSL-8).
    """
    config.method = {'name': 'ksl', **base.objective(config), 'branches': 3, 'split_at': 'layer4'}
    config.method.update(probabilities='cosine', temperature=1.0, distances='matrix')
    config.method.update(mining='peer', probability_weight=1.0, distance_weight=1.0)
    config.method.hard_weight = 1.0
    warm = config.optimizer.get_ref('warmup_epochs')
    config.method.ramp = warm / config.train.get_ref('epochs')
    return config


def student(dataset: str) -> ConfigDict:
    """KSL on a data set, from random weights: 350 epochs, as OSNet is trained (A-KSL-9)."""
    config = ksl(base.bag_of_tricks(base.supervised(dataset)))
    config.optimizer.boundaries = (150, 225, 300)
    config.train.epochs = 350.0
    return config


def small(dataset: str) -> ConfigDict:
    """KSL at the size of `base.small`."""
    return ksl(base.small(base.supervised(dataset)))


def on(dataset: str, variant: str) -> ConfigDict:
    """KSL on a data set, in its variant."""
    base.check(variant)
    config = student(dataset)
    return base.smoke(config) if variant == 'smoke' else config
