"""What a training step of each method costs, in turns with the baseline's on one machine."""

from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import turns
from experiments.turns import Contender
from kd_jax import assembly, checkpoints, lineage, loop, parallel, recipes, trees
from kd_jax.data import Dataset, pipeline
from kd_jax.networks import cost
from kd_jax.trees import Tree

ROUNDS, SECONDS = 5, 2.0


class Cost(NamedTuple):
    """A row's: its step and a step of one of its teachers in steps of the baseline, by rounds.

    A ratio is (median, least, most); `teachers` are those that are trained for it.
    """

    step: tuple[float, float, float]
    teachers: int
    teacher_step: tuple[float, float, float] | None

    @property
    def whole(self) -> float:
        """All steps, the teachers' too, in trainings of the baseline of as many steps."""
        return self.step[0] + (self.teachers * self.teacher_step[0] if self.teachers else 0.0)


def measured(made: dict[str, ConfigDict], baseline: str, dataset: Dataset) -> dict[str, Cost]:
    """The cost of every row; its teachers are untrained, and alike in what they cost."""
    contenders = []
    for name, config in made.items():
        contenders.append(contender(name, config, dataset))
        for teacher in list(lineage.teachers(config, Path()).values())[:1]:
            contenders.append(contender(f'teacher of {name}', teacher.config, dataset))
    times = turns.take(contenders, ROUNDS, SECONDS)

    def relative(name: str):
        return turns.ratio(times, baseline, name) if name in times else None

    return {
        name: Cost(relative(name), len(config.teachers), relative(f'teacher of {name}'))
        for name, config in made.items()
    }


def contender(name: str, config: ConfigDict, dataset: Dataset) -> Contender:
    """The step of a config, its teachers' networks untrained."""
    teachers = lineage.teachers(config, Path())
    parts = assembly.assemble(config, dataset, teachers)
    variables = {
        name: jax.jit(one.network(dataset.classes).init)(
            jax.random.key(0, impl='rbg'), recipes.blank_input(one.config)
        )
        for name, one in teachers.items()
    }
    return of_parts(name, parts, config, dataset, variables)


def of_parts(
    name: str, parts: assembly.Parts, config: ConfigDict, dataset: Dataset, teachers: dict
) -> Contender:
    """The step of assembled parts on one batch that stays where it is."""
    mesh = parallel.mesh()
    step = loop.make_train_step(
        parts.method, parts.augment, parts.tx, mesh, seed=config.seed, steps=parts.course.steps
    )
    taught = parallel.replicate(teachers, mesh)
    batch = next(iter(pipeline.batches(dataset.train, parts.plan, config.data.feed, 0, 1, mesh)))
    fresh = loop.create_state(parts.method, parts.tx, recipes.blank_batch(config), config.seed)
    states = [parallel.replicate(fresh, mesh)]

    def call():
        state, metrics = step(states.pop(), taught, batch)
        states.append(jax.block_until_ready((state, metrics))[0])

    return Contender(name, call)


def text(costs: dict[str, Cost]) -> str:
    """A Markdown table."""
    head = 'cost, in steps of the baseline', 'a step', 'teachers', 'a teacher’s step', 'in all'
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    for name, one in costs.items():
        teacher = _ratio(one.teacher_step) if one.teachers else ''
        cells = name, _ratio(one.step), str(one.teachers), teacher, f'{one.whole:.1f}'
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _ratio(found: tuple[float, float, float]) -> str:
    return f'{found[0]:.2f} ({found[1]:.2f}–{found[2]:.2f})'


def inference(run: Path) -> tuple[int, int]:
    """Parameters and multiply-adds with which a run's student embeds an image."""
    network, variables, config, *_ = checkpoints.restore_network(run)
    network = network.clone(conv='xla', axis_name=None)
    image = recipes.blank_input(config)[:1]

    def embedded(variables, image):
        return getattr(network.apply(variables, image), config.method.feature)

    return parameters(variables), cost.multiply_adds(embedded, variables, image)


def parameters(variables: Tree) -> int:
    """Those of a network without its classifier, which is not needed to embed."""
    params = variables['params']
    return trees.size(params) - trees.size(params['neck']['classifier'])
