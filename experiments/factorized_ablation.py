"""What Factorized Distillation is made of (arXiv 1811.08073), for any factorized config and seeds.

    python -m experiments.factorized_ablation --config=configs/factorized_carousel.py \
      --workdir=runs/factorized_ablation

Rows: the baseline; each partial teacher; students of their maps alone, of their features alone, of
both, of both without labels (pure mimic). Then the reference, the concatenation of the teachers'
features, each divided by its length; the parameters of student and teachers and the time they take
to embed; and the time of a step of all teachers at once (`stacked=True`) against one after another.
Rows are resumable; --rows and --seeds choose.
"""

from functools import partial
from pathlib import Path

from absl import app
from ml_collections import ConfigDict

from experiments import factorized_ensemble, rows
from kd_jax import data, runs

BASELINE, BOTH = 'Baseline', 'map and feature'
CHANGES = {
    'map only': {'method.feature_weight': 0.0},
    'feature only': {'method.map_weight': 0.0},
    BOTH: {},
    'pure mimic': {'method.identity_weight': 0.0, 'method.triplet_weight': 0.0},
}


def table(config: ConfigDict, workdir: Path) -> dict[str, rows.Row]:
    """The rows by their names, teachers before their students."""
    found = {BASELINE: rows.supervised_of}
    found |= {name: partial(teacher, name=name) for name in config.teachers}
    taught = partial(student, workdir=workdir)
    return found | {name: partial(taught, changed=changed) for name, changed in CHANGES.items()}


def teacher(config: ConfigDict, name: str) -> ConfigDict:
    """A partial teacher, a run of its own."""
    return config.teachers[name]


def student(config: ConfigDict, changed: dict, workdir: Path) -> ConfigDict:
    """The student of the teachers' rows, with changes by their dotted keys."""
    config.update_from_flattened_dict(changed)
    names, seed = tuple(config.teachers), config.seed
    config.teachers = {name: str(rows.run_of(name, seed, workdir)) for name in names}
    config.stacked = False
    return config


def trained(names: tuple[str, ...], seed: int, workdir: Path) -> bool:
    """Whether the runs of all these rows are finished, now or before."""
    return all(runs.result_of(rows.run_of(name, seed, workdir)) for name in names)


def main(_):
    workdir, config = Path(rows.WORKDIR.value), rows.CONFIG.value
    if config.method.name != 'factorized':
        raise app.UsageError(f'--config: its method is {config.method.name}, not factorized')
    if any(isinstance(one, str) for one in config.teachers.values()):
        raise app.UsageError('--config.teachers: here the teachers are rows, trained from configs')
    dataset = data.load(**config.data)
    found = rows.run(table(config, workdir), workdir, dataset)
    names = tuple(config.teachers)
    taught = [seed for seed in rows.numbers(rows.SEEDS, 0) if trained(names, seed, workdir)]
    if taught:
        found['teachers, concatenated'] = factorized_ensemble.ranked(
            taught, names, workdir, dataset
        )
    print(rows.text(found, (BASELINE,), '', {}))
    if taught and found.get(BOTH):
        print('\n' + factorized_ensemble.costs(found, names, BOTH, workdir, config))
        print('\n' + factorized_ensemble.at_once(config, dataset))


if __name__ == '__main__':
    rows.start(main)
