"""Cross-distillation of VKD (Porrello et al., ECCV 2020): a student of another teacher's network.

    python -m experiments.vkd_cross --config=configs/vkd_carousel.py --workdir=runs/vkd_cross \
      --pairs=resnet10/32:resnet10/16

A pair is TEACHER:STUDENT, each NAME or NAME/WIDTH; the paper's are resnet101:resnet34,
resnet101:resnet50bam, resnet50:resnet34, resnet101:mobilenet_v2, resnet101:resnet50. Beside it
stand both teachers, the student of its own network's teacher, and the student that is not
distilled. All students start from their own network's teacher. Rows are resumable, shared with
vkd_table1 in one --workdir; --rows and --seeds choose.
"""

from functools import partial
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict

from experiments import rows, vkd_rows, vkd_table1
from experiments.vkd_table1 import ALONE, STUDENT, TEACHER

PAIRS = flags.DEFINE_list('pairs', [], 'Pairs TEACHER:STUDENT of networks.')


def crossed(config: ConfigDict, taught_by: str, network: str, workdir: Path) -> ConfigDict:
    """A student that starts from its own network's teacher and is taught by another."""
    config = vkd_rows.student(config, network, taught_by, workdir)
    config.teachers.start = str(rows.run_of(f'{network} {TEACHER}', config.seed, workdir))
    return config


def pairs() -> list[tuple[str, str]]:
    """The pairs of --pairs; UsageError for what is none."""
    found = [tuple(pair.split(':')) for pair in PAIRS.value]
    if not found or any(len(pair) != 2 for pair in found):
        raise app.UsageError(f'--pairs={",".join(PAIRS.value)}: pairs TEACHER:STUDENT, with commas')
    return found


def table(teacher: str, student: str, workdir: Path) -> dict[str, rows.Row]:
    """The rows of a pair."""
    row = f'{teacher} {TEACHER}'
    found = {row: partial(vkd_rows.teacher, network=teacher)}
    found |= vkd_table1.table([student], workdir)
    cross = partial(crossed, taught_by=row, network=student, workdir=workdir)
    return found | {f'{student} from {teacher}': cross}


def main(_):
    workdir = Path(rows.WORKDIR.value)
    for teacher, student in pairs():
        found = rows.run(table(teacher, student, workdir), workdir)
        against = f'{teacher} {TEACHER}', f'{student} {ALONE}', f'{student} {STUDENT}'
        print(rows.text(found, against, '', {}), end='\n\n')


if __name__ == '__main__':
    rows.start(main)
