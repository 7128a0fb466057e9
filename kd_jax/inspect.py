"""Look into a run: python -m kd_jax.inspect --run=DIR [--against=DIR] [--checkpoint=last|best].

Prints the student's tree of variables, what of it its teachers have, what another run has otherwise
(--against), and what training keeps beside the student, which is dropped at export.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from kd_jax import beside, checkpoints, command, differences, leaf_table, lineage, runs
from kd_jax.checkpoints import Restored
from kd_jax.data import report
from kd_jax.runs import RunError

OF_STEPS = ('optimizer', 'step')  # parts of a checkpoint that are no variables


def text(run: Path, against: Path | None = None, which: str = 'last') -> str:
    """All that is told of a run's checkpoint; RunError where there is none."""
    restored = checkpoints.restore_network(run, which)
    made = f'{restored.config.method.name}, {restored.config.network.name}, step {restored.step}'
    finished = '' if runs.result_of(run) else ', not finished'
    tree = leaf_table.text(leaf_table.leaves_of(restored))
    parts = [f'{run}: {made}{finished}', tree]
    parts += [_teacher(name, run, restored) for name in _teachers(restored.config)]
    if against:
        other = checkpoints.restore_network(against, which)
        parts.append(f'a: {run}, step {restored.step}\nb: {against}, step {other.step}')
        parts.append(differences.settings((run, restored), (against, other)))
        parts.append(_apart(restored, other))
    return '\n\n'.join([*parts, dropped(beside.sizes(run, restored.step))])


def _apart(one: Restored, other: Restored) -> str:
    leaves = map(leaf_table.leaves_of, (one, other))
    return differences.text(differences.matched(*leaves))


def _teachers(config: ConfigDict) -> list[str]:
    """The names of a config's teachers; of a later generation, the one before."""
    return ['teacher'] if lineage.generation(config) > 1 else list(config.teachers)


def _teacher(name: str, run: Path, restored: Restored) -> str:
    """What of a student's tree one of its teachers has, or that this one is gone."""
    alone = restored.config.copy_and_resolve_references()
    alone.teachers = ConfigDict({name: alone.teachers[name]})  # another may be no run any longer
    try:
        teacher = lineage.teachers(alone, run)[name]
        theirs = checkpoints.restore_network(teacher.run)
    except (RunError, ValueError) as error:  # or is one of other images by now
        return f'a teacher cannot be read: {error}'
    head = f'a: the student\nb: teachers.{name}, {teacher.run}, step {theirs.step}'
    return f'{head}\n\n{_apart(restored, theirs)}'


def dropped(parts: dict[str, tuple[int, int]]) -> str:
    """A table of what is kept and dropped at export, of the parts of a checkpoint."""
    rest = sorted(parts.keys() - {'student'}, key=lambda name: (name in OF_STEPS, name))
    rows = [['kept: the student', *parts['student']], *([name, *parts[name]] for name in rest)]
    rows.append(['dropped in all', *(sum(parts[name][k] for name in rest) for k in (0, 1))])
    cells = [[name, *(f'{number:,}' for number in numbers)] for name, *numbers in rows]
    return report.table(('at export', 'values', 'bytes'), cells)


def main() -> None:
    """The command line: --run=DIR [--against=DIR] [--checkpoint=last|best]."""
    flags.DEFINE_string('run', None, 'The run to look into.', required=True)
    flags.DEFINE_string('against', None, 'Another run, to be told what differs.')
    flags.DEFINE_enum('checkpoint', 'last', checkpoints.WHICH, 'Which of their checkpoints.')

    def told(_):
        run, other = Path(flags.FLAGS.run), flags.FLAGS.against
        if other and Path(other).resolve() == run.resolve():
            raise RunError(f'--against={other} is the run itself: give another')
        print(text(run, Path(other) if other else None, flags.FLAGS.checkpoint))

    command.start(told)


if __name__ == '__main__':
    main()
