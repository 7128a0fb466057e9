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
from experiments.vkd_rows import ALONE, NOTHING, STUDENT, TEACHER

CHANGES = {  # what a row changes of the config
    ALONE: NOTHING,
    STUDENT: {},
    'without L_KD': {'method.logits_weight': 0.0},
    'without L_DP': {'method.distance_weight': 0.0},
    'without L_CE': {'method.identity_weight': 0.0},
    'without L_TR': {'method.triplet_weight': 0.0},
    'logits by squares': {'method.logits': 'mse'},
    'teacher by batch statistics': {'method.teacher_batch_norm': 'batch'},
    'logits of the mean': {'method.set_logits': 'of_mean'},
    'from scratch': {'method.start': 'scratch'},
    'from scratch not distilled': {'method.start': 'scratch', **NOTHING},
    'views of time': {'sampling.views': 'temporal'},
    'without cameras': {'sampling.views': 'any'},
    'second generation': {'generations': 2},
}


def table(config: ConfigDict, workdir: Path) -> dict[str, rows.Row]:
    """The rows by their names, the teacher first."""
    network = vkd_rows.network_of(config)
    taught = partial(vkd_rows.student, network=network, taught_by=TEACHER, workdir=workdir)
    found = {TEACHER: partial(vkd_rows.teacher, network=network)}
    found |= {name: partial(taught, changes=changes) for name, changes in CHANGES.items()}
    of_all = {'method.student_views': config.sampling.shots}
    found['student of all views'] = partial(taught, changes=of_all)
    found['second generation at full rate'] = partial(taught, taught_by=STUDENT)
    return found


def main(_):
    workdir = Path(rows.WORKDIR.value)
    found = rows.run(table(vkd_rows.config(), workdir), workdir)
    print(rows.text(found, (TEACHER, ALONE, STUDENT), '', {}))


if __name__ == '__main__':
    rows.start(main)
