"""The teachers of a config: runs, configs that are trained first, and earlier generations."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
from ml_collections import ConfigDict

from kd_jax import locking, recipes, runs

START = 'start'  # the name of a teacher that gives its weights and teaches nothing
NEXT_GENERATION = 0.1  # of its learning rate is that of the next one
SMALLEST_RATE = 1e-5


class Teacher(NamedTuple):
    """A teacher named by a config: its own config, and the run where it is or will be.

    `given` says that the run was named by its path, else it is trained first.
    """

    config: ConfigDict
    run: Path
    given: bool

    def network(self, classes: int) -> nn.Module:
        """Its network; `classes` are those of the data it is trained on if it is trained first."""
        classes = runs.classes_of(self.run) if self.given else classes
        return recipes.network(self.config, classes)


def teachers(config: ConfigDict, workdir: Path) -> dict[str, Teacher]:
    """The teachers of a config: runs named by a path, or configs that train in `workdir`.

    From the second generation on the only teacher is the one before. Raises RunError for a path
    that is no run and ValueError for a teacher that does not fit.
    """
    found = {}
    earlier = {'teacher': _before(config)} if generation(config) > 1 else config.teachers
    if 'student' in earlier:
        raise ValueError('config.teachers.student: call it something else, a run has a student')
    for name, spec in earlier.items():
        if isinstance(spec, str):
            found[name] = Teacher(runs.config_of(Path(spec)), Path(spec), True)
        else:
            found[name] = Teacher(spec, workdir / 'teachers' / name, False)
        _check(name, config, found[name])
    return found


def generation(config: ConfigDict) -> int:
    """Which generation of students a config trains; the first is taught by `config.teachers`."""
    number = config.generations if 'generations' in config else 1
    if number < 1 or (number > 1 and 'teacher' not in config.teachers):
        raise ValueError(
            f'config.generations={number}: from 1 on, and more than 1 need config.teachers.teacher'
        )
    return number


def optimizer(config: ConfigDict) -> dict[str, Any]:
    """The options of a config's optimizer, the learning rate that of its generation.

    A tenth for each generation before, down to 1e-5 (VKD's code).
    """
    rate = config.optimizer.learning_rate
    least = min(rate, SMALLEST_RATE)
    of_generation = max(rate * NEXT_GENERATION ** (generation(config) - 1), least)
    return {**config.optimizer, 'learning_rate': of_generation}


def check_finished(name: str, teacher: Teacher) -> None:
    """RunError where the run that was given as a teacher has not ended."""
    if runs.result_of(teacher.run) is None:
        who = locking.holder(teacher.run)
        state = (
            f'still trained by {who}, wait for its end'
            if who
            else 'not finished, train it to its end'
        )
        raise runs.RunError(f'teacher {name}: {teacher.run} is {state}')


def check_size(label: str, theirs: ConfigDict, ours: ConfigDict) -> None:
    """ValueError where a network was made for images of another size."""
    for key in ('height', 'width', 'channels'):
        _check_equal(label, 'data', key, theirs, ours)


def _before(config: ConfigDict) -> ConfigDict:
    """The config of the generation before."""
    earlier = config.copy_and_resolve_references()
    earlier.generations -= 1
    return earlier


def _check(name: str, config: ConfigDict, teacher: Teacher) -> None:
    """A teacher has the student's images, and reads them as the student's method wants it to."""
    label = _label(name, teacher)
    check_size(label, teacher.config, config)
    theirs, ours = runs.content(teacher.config), runs.content(config)
    classless = name == START or _logits_weight(config) == 0
    if theirs != ours and not (teacher.given and classless):
        theirs, ours = _unlike(theirs, ours), _unlike(ours, theirs)
        raise ValueError(f'{label} was trained on {theirs}, but this config has {ours}')
    made = recipes.reads(teacher.config)
    if made == 'stacked':
        _check_equal(label, 'sampling', 'shots', teacher.config, config)
    wanted = config.method.teacher_reads if 'teacher_reads' in config.method else 'singles'
    if (made == 'stacked') != (wanted == 'stacked'):
        raise ValueError(
            f'{label} was made with method.reads={made!r}, but method {config.method.name} of this '
            f'config has its teacher read {wanted!r}'
        )


def check_data(name: str, config: ConfigDict, teacher: Teacher, fingerprint: str) -> None:
    """ValueError where logits would be distilled of a teacher that was trained on other data."""
    if name == START or not _logits_weight(config) or not teacher.given:
        return
    theirs = runs.fingerprint_of(teacher.run)
    if theirs != fingerprint:
        raise ValueError(
            f'{_label(name, teacher)} was trained on other data, of which the identities need not '
            f'be these: an image was added, removed or renamed, or resized otherwise (fingerprint '
            f'{theirs}, here {fingerprint}). method.logits_weight=0 distils its distances only'
        )


def _unlike(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The entries that another does not have."""
    return {key: value for key, value in one.items() if (key, value) not in other.items()}


def _label(name: str, teacher: Teacher) -> str:
    return f'teacher {name} ({teacher.run})'


def _logits_weight(config: ConfigDict) -> float | None:
    """How much the logits of teachers count, whose classes must then be the student's (VKD)."""
    return config.method.logits_weight if 'logits_weight' in config.method else None


def _check_equal(label: str, part: str, key: str, theirs: ConfigDict, ours: ConfigDict) -> None:
    if theirs[part][key] != ours[part][key]:
        raise ValueError(
            f'{label} was made for {part}.{key}={theirs[part][key]}, but this config has '
            f'{part}.{key}={ours[part][key]}'
        )
