"""Look into a run: python -m kd_jax.inspect --run=DIR [--against=DIR] [--checkpoint=last|best].

Prints the student's tree of variables, what of it its teachers have, what another run has otherwise
(--against), and what training keeps beside the student, which is dropped at export.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jaxtyping import Shaped

from kd_jax import checkpoints, command, lineage, runs, trees
from kd_jax.checkpoints import Restored
from kd_jax.data import report
from kd_jax.runs import RunError

KINDS = ('params', 'batch_stats')
TREE = ('name', 'shape', 'parameters', 'statistics', 'norm', 'dtype')
APART = ('of one name and shape', 'leaves', 'equal', '|a-b|/|a|', 'of statistics')
ABSENT = '(absent)'
OF_STEPS = ('optimizer', 'step')  # parts of a checkpoint that are no variables
Leaves = dict[str, Shaped[np.ndarray, '...']]  # by their path, e.g. params/layer1_0/conv1/kernel
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


class Matched(NamedTuple):
    """The leaves of two trees by path: pairs of one shape, pairs of two shapes, and the rest."""

    alike: Pairs
    reshaped: Pairs
    first: Leaves
    second: Leaves


def text(run: Path, against: Path | None = None, which: str = 'last') -> str:
    """All that is told of a run's checkpoint; RunError where there is none."""
    restored = checkpoints.restore_network(run, which)
    made = f'{restored.config.method.name}, {restored.config.network.name}, step {restored.step}'
    finished = '' if runs.result_of(run) else ', not finished'
    parts = [f'{run}: {made}{finished}', tree(leaves_of(restored)), *_teachers(run, restored)]
    if against:
        other = checkpoints.restore_network(against, which)
        parts.append(f'a: {run}, step {restored.step}\nb: {against}, step {other.step}')
        parts.append(settings((run, restored), (against, other)))
        parts.append(compared(matched(leaves_of(restored), leaves_of(other))))
    return '\n\n'.join([*parts, dropped(stored(run, restored.step))])


def leaves_of(restored: Restored) -> Leaves:
    """The student's leaves on the host."""
    return {path: np.asarray(leaf) for path, leaf in trees.named(restored.variables).items()}


def tree(leaves: Leaves) -> str:
    """A table of all leaves below their modules, then of stages, and the total.

    A module's norm is that of its parameters.
    """
    rows = []
    for module, own in _grouped(leaves, _module).items():
        rows.append(_row(module, own))
        rows += [_row(f'  {_name(path)}', {path: leaf}, _shape(leaf)) for path, leaf in own.items()]
    stages = _grouped(leaves, _stage).items()
    rows += [[''], *(_row(stage, own) for stage, own in stages), _row('total', leaves)]
    return report.table(TREE, rows)


def _row(label: str, leaves: Leaves, shape: str = '') -> list[str]:
    """A row of `tree`: of one leaf, or of those of a module, which has no shape."""
    kinds = [[leaf for path, leaf in leaves.items() if path.startswith(kind)] for kind in KINDS]
    counts = [sum(leaf.size for leaf in kind) for kind in kinds]
    dtypes = ' '.join(sorted({str(leaf.dtype) for leaf in leaves.values()}))
    numbers = [f'{count:,}' if count else '' for count in counts]
    return [label, shape, *numbers, f'{_norm(kinds[0] or kinds[1]):.4g}', dtypes]


def _norm(leaves: Iterable[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(leaf.astype(np.float64)).sum() for leaf in leaves)))


def _shape(leaf: np.ndarray) -> str:
    return 'x'.join(map(str, leaf.shape)) or 'scalar'


def _grouped(leaves: dict[str, Any], of: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """The leaves by what a function says of their path, layer10 behind layer9."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(leaves, key=_order):
        found.setdefault(of(path), {})[path] = leaves[path]
    return found


def _order(path: str) -> list[str | int]:
    return [int(one) if one.isdigit() else one for one in re.split(r'(\d+)', _name(path))]


def _name(path: str) -> str:
    """A path without its kind: what is learned and what is counted differ in name too."""
    return path.split('/', 1)[1]


def _module(path: str) -> str:
    return path.split('/')[1]


def _stage(path: str) -> str:
    """All backbones call their blocks STAGE_BLOCK."""
    return _module(path).split('_')[0]


def _teachers(run: Path, restored: Restored) -> list[str]:
    """What of a student's tree each of its teachers has, or which of them is gone."""
    found = []
    try:
        teachers = lineage.teachers(restored.config, run)
    except RunError as error:
        return [f'a teacher cannot be read: {error}']
    for name, teacher in teachers.items():
        try:
            theirs = checkpoints.restore_network(teacher.run)
        except RunError as error:
            found.append(f'a teacher cannot be read: {error}')
            continue
        both = matched(leaves_of(restored), leaves_of(theirs))
        head = f'a: the student\nb: teachers.{name}, {teacher.run}, step {theirs.step}'
        found.append(f'{head}\n\n{compared(both)}')
    return found


def matched(one: Leaves, other: Leaves) -> Matched:
    """The leaves of two trees, by what they have in common."""
    pairs = {path: (one[path], other[path]) for path in one if path in other}
    alike = {path: (a, b) for path, (a, b) in pairs.items() if a.shape == b.shape}
    rest = [{path: tree[path] for path in tree if path not in pairs} for tree in (one, other)]
    return Matched(alike, {path: pairs[path] for path in pairs if path not in alike}, *rest)


def compared(both: Matched) -> str:
    """A table of how far the leaves of one name and shape are apart, then all others by name."""
    groups = _grouped(both.alike, _module).items()
    rows = [_distances(*group) for group in (*groups, ('total', both.alike))]
    parts = [report.table(APART, rows)]
    if both.reshaped:
        paths = sorted(both.reshaped, key=_order)
        shapes = [[_name(path), *map(_shape, both.reshaped[path])] for path in paths]
        parts.append(report.table(('of other shapes', 'a', 'b'), shapes))
    equal = {path: pair for path, pair in both.alike.items() if np.array_equal(*pair)}
    everything = [path for paths in both for path in paths]
    for label, own in (('equal', equal), ('only in a', both.first), ('only in b', both.second)):
        if own:
            names = _folded(own, [path for path in everything if path not in own])
            parts.append(textwrap.fill(f'{label}: {names}', report.WIDTH, subsequent_indent='  '))
    return '\n\n'.join(parts)


def _distances(label: str, pairs: Pairs) -> list[str]:
    """A row of `compared`: how many leaves, how many equal, and |a-b|/|a| of each kind."""
    kinds = [[pair for path, pair in pairs.items() if path.startswith(kind)] for kind in KINDS]
    apart = [f'{distance(kind):.3g}' if kind else '' for kind in kinds]
    equal = sum(np.array_equal(a, b) for a, b in pairs.values())
    return [label, f'{len(pairs):,}', f'{equal:,}', *apart]


def distance(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """|a-b| / |a| over all leaves; of a = 0 it is infinite, unless b is 0 too."""
    apart = _norm(a.astype(np.float64) - b.astype(np.float64) for a, b in pairs)
    length = _norm(a for a, _ in pairs)
    return apart / length if length else (np.inf if apart else 0.0)


def _folded(leaves: dict[str, Any], others: Iterable[str]) -> str:
    """The names of leaves, of modules whose leaves are none of the `others` as MODULE/*."""
    prefixes = lambda name: [*accumulate(name.split('/'), '{}/{}'.format)]  # noqa: E731
    split = {prefix for path in others for prefix in prefixes(_name(path))}
    names = [_name(path) for path in sorted(leaves, key=_order)]
    short = (next(one for one in prefixes(name) if one not in split) for name in names)
    found = (one if one == name else f'{one}/*' for one, name in zip(short, names))
    return ', '.join(dict.fromkeys(found))


def settings(*pair: tuple[Path, Restored]) -> str:
    """The keys of two runs' configs that differ, and whether their data do."""
    found = []
    for run, restored in pair:
        facts = {'classes': runs.classes_of(run), 'fingerprint': runs.fingerprint_of(run)}
        found.append({'config': restored.config.to_dict(), **facts})
    unlike = list(differing(*found))
    width = max((len(key) for key, *_ in unlike), default=0) + report.GAP
    lines = [f'{key:{width}}{_value(a)} -> {_value(b)}' for key, a, b in unlike]
    return '\n'.join(['settings that differ' if lines else 'no settings differ', *lines])


def differing(one: Any, other: Any, key: str = '') -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value, other value) of all that differs; a subtree that one lacks comes once."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one | other):
            below = one.get(name, ABSENT), other.get(name, ABSENT)
            yield from differing(*below, f'{key}.{name}' if key else name)
    elif one != other:
        yield key, one, other


def _value(value: Any) -> str:
    return '{...}' if isinstance(value, dict) else value if value is ABSENT else repr(value)


def stored(run: Path, step: int) -> dict[str, tuple[int, int]]:
    """How many values and bytes each part of a checkpoint has, by its metadata alone."""
    with checkpoints.manager(run, create=False) as saved:
        items = saved.item_metadata(step)
    found: dict[str, tuple[int, int]] = {}
    for item in checkpoints.ITEMS:
        for keys, leaf in jax.tree_util.tree_leaves_with_path(items[item].tree):
            path = jax.tree_util.keystr(keys, simple=True, separator='/').split('/')
            part = item if item == 'student' else path[2 if path[0] == 'variables' else 0]
            values, size = found.get(part, (0, 0))
            count = int(np.prod(leaf.shape, dtype=np.int64))
            found[part] = values + count, size + count * np.dtype(leaf.dtype).itemsize
    return found


def dropped(parts: dict[str, tuple[int, int]]) -> str:
    """A table of what is kept and dropped at export, of the parts of a checkpoint."""
    beside = sorted(parts.keys() - {'student'}, key=lambda name: (name in OF_STEPS, name))
    rows = [['kept: the student', *parts['student']], *([name, *parts[name]] for name in beside)]
    rows.append(['dropped in all', *(sum(parts[name][k] for name in beside) for k in (0, 1))])
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
