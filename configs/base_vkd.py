"""What the vkd configs share: VKD's recipe, as its code runs it (Porrello et al., ECCV 2020)."""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs import base


class Plan(NamedTuple):
    """How a teacher samples and for how long.

    `identities` × 4 sets of `shots` images; `boundaries` are epochs at which the learning rate
    falls to a tenth; `views` are the teacher's and the student's.
    """

    identities: int
    shots: int
    boundaries: tuple[int, ...]
    views: tuple[str, str] = ('chunk', 'multiview')


PLANS = {
    'mars': Plan(8, 8, (100, 200)),
    'duke_video_vkd': Plan(8, 8, (100, 200)),
    'veri776_tracks': Plan(18, 1, (200, 250)),
    'atrw_vkd': Plan(18, 1, (100, 200), ('any', 'any')),  # its images are of no tracklets
    'folder': Plan(8, 8, (100, 200)),
}


def teacher(dataset: str) -> ConfigDict:
    """The teacher: soft-margin triplet and cross-entropy on sets, or on single images."""
    plan, config = PLANS[dataset], recipe(base.supervised(dataset))
    config.sampling.update(identities=plan.identities, sets=4, shots=plan.shots)
    config.sampling.views = plan.views[0]
    config.method.reads = 'mean'
    config.optimizer.boundaries = plan.boundaries
    config.train.epochs = 300.0
    return config


def student(dataset: str) -> ConfigDict:
    """The student, with its teacher's run in it: 12 identities × 4 sets of 8 views, of which 2."""
    config, plan = recipe(base.supervised(dataset)), PLANS[dataset]
    config.sampling.update(identities=12, sets=4, shots=8, views=plan.views[1])
    config.optimizer.boundaries = (300, 450)
    config.train.epochs = 500.0
    return distilled(config, teacher(dataset))


def recipe(config: ConfigDict) -> ConfigDict:
    """Pre-BN features of a network without its last block's ReLUs, Adam 1e-4, no warm-up."""
    height, width = config.data.height, config.data.width
    config.augment.update(crop='pad', pad=10, crop_probability=1.0, erase_fill=(0.0,))
    config.augment.erase_aspect = (0.3, 3.3) if height > width else (0.7, 1.4)
    config.network.update(neck='bnneck', last_block_relu='code')
    config.method.update(label_smoothing=0.0, margin=None, identity_weight=1.0)
    config.optimizer.update(learning_rate=1e-4, weight_decay=1e-5, warmup='linear')
    config.optimizer.update(warmup_epochs=0.0, factor=0.1)
    config.train.update(evaluate_every=50.0, epoch_of='identities')
    config.evaluate.metric = 'cosine'
    return config


def distilled(config: ConfigDict, taught_by: ConfigDict) -> ConfigDict:
    """The config as a student of VKD, with a teacher on its data, seed and network."""
    config.method = {'name': 'vkd', **base.objective(config), 'student_views': 2}
    config.method.set_logits = 'mean'
    config.method.update(teacher_batch_norm='batch', start='teacher')
    config.method.update(logits='kl', temperature=10.0, logits_weight=0.1, distance_weight=1e-4)
    config.generations = 1
    config.teachers.teacher = taught_by
    taught_by.seed, taught_by.data = config.get_ref('seed'), config.data
    base.same_network(taught_by, config)
    base.same_evaluation(taught_by, config)
    return config


def small(dataset: str) -> ConfigDict:
    """VKD at the size of `base.small`, its teacher trained on single images.

    α and β are larger than the paper's, for a narrow embedding and a short schedule; how large they
    may be depends on the teacher (experiments/results/vkd.md).
    """
    config, by = (base.small(base.supervised(dataset)) for _ in range(2))
    for one in (config, by):
        one.method.update(label_smoothing=0.0, identity_weight=1.0)
        one.train.update(epochs=10.0, steps_per_epoch=100)
    config.sampling.update(identities=8, sets=4, shots=8, views='multiview')
    small_weights(distilled(config, by))
    config.evaluate.update(protocol='market,i2v,v2v', frames=4)
    return config


def small_weights(config: ConfigDict) -> None:
    """What `small` sets of VKD's own options."""
    config.method.update(logits_weight=1.0, distance_weight=3e-3, teacher_batch_norm='running')


def smoke(config: ConfigDict) -> ConfigDict:
    """`base.smoke` for student and teacher."""
    base.smoke_pair(config)
    config.sampling.update(sets=2, shots=4)
    return config


def on(dataset: str, variant: str) -> ConfigDict:
    """VKD on a data set, in its variant."""
    base.check(variant)
    config = student(dataset)
    return smoke(config) if variant == 'smoke' else config
