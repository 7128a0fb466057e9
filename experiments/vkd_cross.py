"""Cross-distillation of VKD (Porrello et al., ECCV 2020): a student of another teacher's network.

    python -m experiments.vkd_cross --config=configs/vkd_carousel.py --workdir=runs/vkd_cross \
      --pairs=resnet10/32:resnet10/16

A pair is TEACHER:STUDENT, each NAME/WIDTH, or NAME in the config's width; the paper's are
resnet101:resnet34, resnet101:resnet50bam, resnet50:resnet34, resnet101:mobilenet_v2,
resnet101:resnet50. Beside it stand both teachers, the student of its own network's teacher, and
the student that is not distilled. All students start from their own network's teacher. Rows are
resumable, shared with vkd_table1 in one --workdir; --rows and --seeds choose.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict

from experiments import rows, vkd_rows
from experiments.vkd_rows import ALONE, STUDENT, TEACHER, Network

PAIRS = flags.DEFINE_list('pairs', [], 'Pairs TEACHER:STUDENT of networks.')


def crossed(config: ConfigDict, taught_by: str, network: Network, workdir: Path) -> ConfigDict:
    """A student that starts from its own network's teacher and is taught by another."""
    config = vkd_rows.student(config, network, taught_by, workdir)
    config.teachers.start = str(rows.run_of(f'{network} {TEACHER}', config.seed, workdir))
    return config


def pairs() -> list[tuple[Network, Network]]:
    """The pairs of --pairs; UsageError for what is none."""
    found = [pair.split(':') for pair in PAIRS.value]
    if not found or any(len(pair) != 2 for pair in found):
        raise app.UsageError(f'--pairs={",".join(PAIRS.value)}: pairs TEACHER:STUDENT, with commas')
    config = vkd_rows.config()
    return [tuple(vkd_rows.named(one, PAIRS.name, config) for one in pair) for pair in found]


def table(teacher: Network, student: Network, workdir: Path) -> dict[str, rows.Row]:
    """The rows of a pair."""
    row = f'{teacher} {TEACHER}'
    found = {row: partial(vkd_rows.teacher, network=teacher)}
    found |= vkd_rows.of_networks([student], workdir)
    cross = partial(crossed, taught_by=row, network=student, workdir=workdir)
    return found | {f'{student} from {teacher}': cross}


def text(found: rows.Table, teacher: Network, student: Network, names: Iterable[str]) -> str:
    """The tables of a pair, whose rows have these names."""
    against = f'{teacher} {TEACHER}', f'{student} {ALONE}', f'{student} {STUDENT}'
    own = {name: found[name] for name in names if name in found}
    return rows.text(own, against, '', {}) if own else ''


def main(_):
    workdir = Path(rows.WORKDIR.value)
    tables = {pair: table(*pair, workdir) for pair in pairs()}
    found = rows.run({name: row for of in tables.values() for name, row in of.items()}, workdir)
    for pair, names in tables.items():
        print(text(found, *pair, names), end='\n\n')


if __name__ == '__main__':
    rows.start(main)
