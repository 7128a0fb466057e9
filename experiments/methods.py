"""All methods on one student: the same data, batch of student images, recipe and number of steps.

    python -m experiments.methods --config=configs/supervised_carousel.py --workdir=runs/methods

The config is the baseline; every method is put onto it, and its teachers are trained by the same
recipe for as many steps. VKD's student starts from its teacher, as it does in the paper; "not
distilled" is that student without it, "without constraints" are the branches of KSL alone. After
the table of mAP and rank-1: what a training step costs, relative to the baseline's and timed in
turns with it, on how many teachers' steps a row stands, and what one image costs to embed, which is
asserted to be the same in all rows. Drawn: methods.png, and terms.png, what the loss terms did.
Rows are resumable; --rows and --seeds choose.
"""

from functools import partial
from pathlib import Path

from absl import app
from ml_collections import ConfigDict

from configs import base, base_factorized, base_ksl, base_vkd
from experiments import methods_cost, methods_drawn, rows, vkd_rows
from kd_jax import data, recipes, runs

BASELINE, UMTS, VKD, KSL, FACTORIZED = 'Baseline', 'UMTS', 'VKD', 'KSL', 'Factorized'
ALONE, UNCONSTRAINED = 'VKD not distilled', 'KSL without constraints'
NO_CONSTRAINTS = {f'method.{key}_weight': 0.0 for key in ('probability', 'distance', 'hard')}


def is_small(config: ConfigDict) -> bool:
    """Whether a config is of the size of `base.small`."""
    return config.network.stem == 'small'


def umts(config: ConfigDict) -> ConfigDict:
    """UMTS with a T-net of the baseline's recipe."""
    return base.small_umts(config) if is_small(config) else base.umts(config)


def vkd(config: ConfigDict) -> ConfigDict:
    """VKD with a teacher of single images, the baseline's recipe without label smoothing."""
    shown = images(config)
    for one in (config, teacher := config.copy_and_resolve_references()):
        one.method.update(label_smoothing=0.0, identity_weight=1.0)
    base_vkd.distilled(config, teacher)
    config.sampling.update(identities=shown // 8, sets=4, shots=8, views='multiview')
    if is_small(config):
        base_vkd.small_weights(config)
    return config


def factorized(config: ConfigDict) -> ConfigDict:
    """Factorized Distillation with six partial teachers of the baseline's recipe."""
    by = config.copy_and_resolve_references()
    by.network.part_size = (32, 32) if is_small(config) else (224, 224)
    return base_factorized.factorized(config, by, base_factorized.PARTS)


def not_distilled(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The student of VKD's row, from the same teacher's weights, without its losses."""
    teacher = rows.run_of(VKD, config.seed, workdir) / 'teachers' / 'teacher'
    config = vkd(config)
    config.update_from_flattened_dict(vkd_rows.NOTHING)
    config.teachers = {'teacher': str(teacher)}
    return config


def unconstrained(config: ConfigDict) -> ConfigDict:
    """KSL's branches with zero pair weights."""
    config = base_ksl.ksl(config)
    config.update_from_flattened_dict(NO_CONSTRAINTS)
    return config


def table(workdir: Path) -> dict[str, rows.Row]:
    """The rows by their names."""
    made = {
        BASELINE: lambda config: config,
        UMTS: umts,
        VKD: vkd,
        ALONE: partial(not_distilled, workdir=workdir),
        UNCONSTRAINED: unconstrained,
        KSL: base_ksl.ksl,
        FACTORIZED: factorized,
    }
    return {name: partial(onto, put) for name, put in made.items()}


def onto(put: rows.Row, config: ConfigDict) -> ConfigDict:
    """The config with a method put onto it, for which it gets new keys."""
    with config.unlocked():
        return put(config)


def images(config: ConfigDict) -> int:
    """How many images a student sees in a step."""
    sets = config.sampling.identities * config.sampling.sets
    of_vkd = config.method.name == 'vkd'
    return sets * (config.method.student_views if of_vkd else config.sampling.shots)


def check(config: ConfigDict, made: dict[str, ConfigDict]) -> None:
    """UsageError where a config is no baseline, or rows would show other numbers of images."""
    if config.method.name != 'supervised' or recipes.reads(config) != 'singles':
        raise app.UsageError('--config: give the baseline, a supervised config of single images')
    shown = {name: images(one) for name, one in made.items()}
    if len(set(shown.values())) > 1:
        raise app.UsageError(
            f'--config.sampling: the rows would show {shown} images a step; make identities × '
            'shots a multiple of 8'
        )


def main(_):
    workdir, config = Path(rows.WORKDIR.value), rows.CONFIG.value
    chosen = rows.chosen(table(workdir))
    dataset = data.load(**config.data)
    # Else an epoch of VKD's, whose batch has more images, would have fewer steps.
    config.train.steps_per_epoch = recipes.course(config, dataset).steps_per_epoch
    check(config, {name: row(config.copy_and_resolve_references()) for name, row in chosen.items()})
    found = rows.run(chosen, workdir, dataset)
    print(rows.text(found, (BASELINE, ALONE, UNCONSTRAINED), '', {}))
    print('\n' + teachers(found, workdir))
    print('\n' + costs(chosen, config, dataset))
    print('\n' + same_inference(found, workdir))
    methods_drawn.draw(found, workdir)


def teachers(found: rows.Table, workdir: Path) -> str:
    """A table of the networks that taught, as their own runs scored them."""
    of_rows: rows.Table = {}
    for name, seeds in found.items():
        for seed in seeds:
            path = rows.run_of(name, seed, workdir)
            for teacher, summary in runs.result_of(path).items():
                if (path / 'teachers' / teacher).exists():  # not one of another row
                    label = f'{name}: {teacher}{shots(summary)}'
                    of_rows.setdefault(label, {})[seed] = summary
    return rows.text(of_rows, (), '', {}) if of_rows else 'no teachers'


def shots(summary: dict) -> str:
    """What a network that reads several shots was shown in place of one image."""
    if summary['shots'] == 1:
        return ''
    by_identity = summary['shots_of'] == 'identity'
    how = 'shots by identity, an upper bound' if by_identity else 'times the image'
    return f' ({summary["shots"]} {how})'


def costs(chosen: dict[str, rows.Row], config: ConfigDict, dataset: data.Dataset) -> str:
    """The table of what training costs; the baseline is timed even where it is no chosen row."""
    timed = {BASELINE: lambda one: one, **chosen}
    config = config.copy_and_resolve_references()
    config.seed = rows.numbers(rows.SEEDS, 0)[0]
    made = {name: row(config.copy_and_resolve_references()) for name, row in timed.items()}
    return methods_cost.text(methods_cost.measured(made, BASELINE, dataset))


def same_inference(found: rows.Table, workdir: Path) -> str:
    """What it takes to embed an image, after asserting that it is the same in all rows."""
    paths = [rows.run_of(name, seed, workdir) for name in found for seed in found[name]]
    known = {methods_cost.inference(path) for path in paths}
    assert len(known) == 1, f'students differ in parameters or multiply-adds: {known}'
    parameters, work = known.pop()
    return (
        f'Every student embeds an image with {parameters:,} parameters and {work:,} multiply-adds.'
    )


if __name__ == '__main__':
    rows.start(main)
