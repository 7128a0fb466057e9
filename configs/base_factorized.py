"""What the factorized configs share: Factorized Distillation as reconstructed (arXiv 1811.08073).

The variant `:holistic` adds a seventh teacher, of the whole image (A-FD-2).
"""

from ml_collections import ConfigDict

from configs import base

# The paper's figure 1: of four stripes the 1st and 2nd, the 2nd and 3rd, the 3rd and 4th; of seven
# the 1st to 3rd, the 3rd to 5th and the 5th to 7th.
PARTS = ((0.0, 0.5), (0.25, 0.75), (0.5, 1.0), (0.0, 3 / 7), (2 / 7, 5 / 7), (4 / 7, 1.0))
WHOLE = ()  # the image as it is
OWN = ('inflate', 'last_stride', 'neck', 'neck_width')  # options of a partial teacher's own


def factorized(config: ConfigDict, by: ConfigDict, parts: tuple) -> ConfigDict:
    """The config of a baseline as a student of as many teachers as there are parts.

    `by` is the teachers' recipe; their data and seed are the student's, and so is the network but
    for `OWN`. Clean images for the teachers (A-FD-7), weights 1 (A-FD-5). `stacked`: train all
    teachers at once.
    """
    options = {'identity_weight': 1.0, 'map_weight': 1.0, 'feature_weight': 1.0}
    config.method = {'name': 'factorized', **base.objective(config), **options}
    config.augment.erase_teacher = False
    config.stacked = False
    for number, part in enumerate(parts):
        teacher = by.copy_and_resolve_references()
        teacher.method.margin = base.number(by.method.margin)
        teacher.network.part = part
        teacher.seed, teacher.data = config.get_ref('seed'), config.data
        base.same_network(teacher, config, OWN)
        base.same_evaluation(teacher, config)
        teacher.train.epochs = 1 * config.train.get_ref('epochs')
        name = f'part{number}' if part else 'holistic'
        config.teachers[name] = teacher
    return config


def student(dataset: str, parts: tuple) -> ConfigDict:
    """Teachers of 7×7 maps and 256 features, a student of 16×8 and 1,024 (A-FD-1, A-FD-8)."""
    config, by = (base.bag_of_tricks(base.supervised(dataset)) for _ in range(2))
    config.network.update(neck='fc_bn', neck_width=1024)
    by.network.update(neck='fc_bn', neck_width=256, last_stride=2, part_size=(224, 224))
    return factorized(config, by, parts)


def small(dataset: str, parts: tuple = PARTS) -> ConfigDict:
    """Teachers and student at the size of `base.small`, parts stretched to 32×32 pixels."""
    config, by = (base.small(base.supervised(dataset)) for _ in range(2))
    by.network.part_size = (32, 32)
    return factorized(config, by, parts)


def smoke(config: ConfigDict) -> ConfigDict:
    """`base.smoke` for the student and for its first two teachers."""
    base.smoke(config)
    for name in list(config.teachers)[2:]:
        del config.teachers[name]
    for teacher in config.teachers.values():
        base.smoke(teacher)
        teacher.data, teacher.network.part_size = config.data, (16, 16)
        base.same_network(teacher, config, OWN)
    return config


def parts_of(variant: str) -> tuple:
    """The parts that the teachers of a variant see."""
    return (*PARTS, WHOLE) if variant == 'holistic' else PARTS


def on(dataset: str, variant: str) -> ConfigDict:
    """Factorized Distillation on a data set, in its variant."""
    base.check(variant, 'holistic')
    config = student(dataset, parts_of(variant))
    return smoke(config) if variant == 'smoke' else config
