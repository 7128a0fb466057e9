"""What VKD is made of (Porrello et al., ECCV 2020, ablations), for any vkd config and seeds.

    python -m experiments.vkd_ablation --config=configs/vkd_carousel.py --workdir=runs/vkd_ablation

Each row changes one thing of VKD: a loss term left out; views of time (frames of one tracklet)
instead of viewpoints; views of an identity drawn without asking for its tracklets, so without
cameras; the student's start; a second generation, at a tenth of the learning rate as in VKD's code
or at the same. Without distillation the student sees the same views as with it. Rows are
resumable; --rows and --seeds choose. What the paper found stands in tables that were not at hand.
"""

from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from experiments import rows, vkd_rows
from experiments.vkd_rows import NOTHING

TEACHER, VKD, ALONE = 'teacher', 'VKD', 'not distilled'
METHOD = {  # what a row changes of config.method
    ALONE: NOTHING,
    VKD: {},
    'without L_KD': {'logits_weight': 0.0},
    'without L_DP': {'distance_weight': 0.0},
    'without L_CE': {'identity_weight': 0.0},
    'without L_TR': {'triplet_weight': 0.0},
    'logits by squares': {'logits': 'mse'},
    'teacher by batch statistics': {'teacher_batch_norm': 'batch'},
    'logits of the mean': {'set_logits': 'of_mean'},
    'from scratch': {'start': 'scratch'},
    'from scratch not distilled': {'start': 'scratch', **NOTHING},
}
VIEWS = {  # what a row changes of config.sampling
    'views of time': 'temporal',
    'without cameras': 'any',
}


def with_views(config: ConfigDict, views: str, workdir: Path) -> ConfigDict:
    """VKD on sets that are drawn in another way."""
    config.sampling.views = views
    return rows.taught_by(TEACHER, config, workdir)


def second_generation(config: ConfigDict, workdir: Path) -> ConfigDict:
    """VKD taught by the student of VKD, at a tenth of the learning rate."""
    config.generations = 2
    return rows.taught_by(TEACHER, config, workdir)


def table(config: ConfigDict, workdir: Path) -> dict[str, rows.Row]:
    """The rows by their names, the teacher first."""
    network = vkd_rows.network_of(config)
    taught = partial(vkd_rows.student, network=network, taught_by=TEACHER, workdir=workdir)
    found = {TEACHER: partial(vkd_rows.teacher, network=network)}
    found |= {name: partial(taught, **method) for name, method in METHOD.items()}
    found['student of all views'] = partial(taught, student_views=config.sampling.shots)
    found |= {
        name: partial(with_views, views=views, workdir=workdir) for name, views in VIEWS.items()
    }
    found['second generation'] = partial(second_generation, workdir=workdir)
    found['second generation at full rate'] = partial(taught, taught_by=VKD)
    return found


def main(_):
    workdir = Path(rows.WORKDIR.value)
    found = rows.run(table(rows.CONFIG.value, workdir), workdir)
    print(rows.text(found, (TEACHER, ALONE, VKD), '', {}))


if __name__ == '__main__':
    rows.start(main)
