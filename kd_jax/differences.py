"""In what two runs differ: the keys of their configs, and the leaves of their networks."""

import textwrap
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_jax import leaf_table, runs
from kd_jax.checkpoints import Restored
from kd_jax.data import report
from kd_jax.leaf_table import Leaves

HEADS = ('of one name and shape', 'leaves', 'equal', '|a-b|/|a|', 'of statistics')
ABSENT, SUBTREE = '(absent)', '{...}'
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


class Matched(NamedTuple):
    """The leaves of two trees by path: pairs of one shape, pairs of two shapes, and the rest."""

    alike: Pairs
    reshaped: Pairs
    first: Leaves
    second: Leaves


def matched(one: Leaves, other: Leaves) -> Matched:
    """The leaves of two trees, by what they have in common."""
    pairs = {path: (one[path], other[path]) for path in one if path in other}
    alike = {path: (a, b) for path, (a, b) in pairs.items() if a.shape == b.shape}
    rest = [{path: tree[path] for path in tree if path not in pairs} for tree in (one, other)]
    return Matched(alike, {path: pairs[path] for path in pairs if path not in alike}, *rest)


def text(both: Matched) -> str:
    """A table of how far the leaves of one name and shape are apart, then all others by name."""
    groups = leaf_table.grouped(both.alike, leaf_table.module_of).items()
    rows = [_row(*group) for group in (*groups, ('total', both.alike))]
    parts = [report.table(HEADS, rows)]
    if both.reshaped:
        paths = sorted(both.reshaped, key=leaf_table.order)
        pairs = [(leaf_table.name(path), both.reshaped[path]) for path in paths]
        shapes = [[name, *map(leaf_table.shape, pair)] for name, pair in pairs]
        parts.append(report.table(('of other shapes', 'a', 'b'), shapes))
    equal = {path: pair for path, pair in both.alike.items() if np.array_equal(*pair)}
    everything = [path for paths in both for path in paths]
    for label, own in (('equal', equal), ('only in a', both.first), ('only in b', both.second)):
        if own:
            names = _names(own, [path for path in everything if path not in own])
            parts.append(textwrap.fill(f'{label}: {names}', report.WIDTH, subsequent_indent='  '))
    return '\n\n'.join(parts)


def _row(label: str, pairs: Pairs) -> list[str]:
    """A row of `text`: how many leaves, how many equal, and |a-b|/|a| of each kind."""
    paths = [[path for path in pairs if path.startswith(kind)] for kind in leaf_table.KINDS]
    kinds = [[pairs[path] for path in own] for own in paths]
    apart = [f'{distance(kind):.3g}' if kind else '' for kind in kinds]
    equal = sum(np.array_equal(a, b) for a, b in pairs.values())
    return [label, f'{len(pairs):,}', f'{equal:,}', *apart]


def distance(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """|a-b| / |a| over all leaves; of a = 0 it is infinite, unless b is 0 too."""
    apart = leaf_table.norm(a.astype(np.float64) - b.astype(np.float64) for a, b in pairs)
    length = leaf_table.norm(a for a, _ in pairs)
    return apart / length if length else (np.inf if apart else 0.0)


def _names(leaves: Iterable[str], others: Iterable[str]) -> str:
    """The names of leaves, of modules whose leaves are none of the `others` as MODULE/*."""
    names = [leaf_table.name(path) for path in sorted(leaves, key=leaf_table.order)]
    shorter = folded(names, map(leaf_table.name, others), '/')
    return ', '.join(one if one in names else f'{one}/*' for one in shorter)


def folded(names: Iterable[str], others: Iterable[str], mark: str) -> list[str]:
    """The names, those below a node that holds none of the `others` as that node, once.

    `mark` stands between a node and what is below it.
    """
    nodes = lambda name: [*accumulate(name.split(mark), f'{{}}{mark}{{}}'.format)]  # noqa: E731
    shared = {node for other in others for node in nodes(other)[:-1]}
    first = (next((n for n in nodes(name) if n not in shared), name) for name in names)
    return list(dict.fromkeys(first))


def settings(*pair: tuple[Path, Restored]) -> str:
    """The keys of two runs' configs that differ, and whether their data do."""
    found = []
    for run, restored in pair:
        facts = {'classes': runs.classes_of(run), 'fingerprint': runs.fingerprint_of(run)}
        found.append(runs.flat({'config': restored.config.to_dict(), **facts}))
    unlike = differing(*found)
    width = max((len(key) for key, *_ in unlike), default=0) + report.GAP
    lines = [f'{key:{width}}{a} -> {b}' for key, a, b in unlike]
    return '\n'.join(['settings that differ' if lines else 'no settings differ', *lines])


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(key, value, other value) of the dotted keys of `runs.flat` that differ.

    A subtree that one of them lacks comes once.
    """
    found = {key for key in one.keys() & other.keys() if one[key] != other[key]}
    for own, others in ((one, other), (other, one)):
        found.update(folded(own.keys() - others.keys(), others, '.'))
    return [(key, _value(one, key), _value(other, key)) for key in sorted(found)]


def _value(settings: dict[str, Any], key: str) -> str:
    if key in settings:
        return repr(settings[key])
    return SUBTREE if any(name.startswith(f'{key}.') for name in settings) else ABSENT
