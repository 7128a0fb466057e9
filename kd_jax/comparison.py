"""How sure a result is, and which of two runs is better: tables from the queries of rankings."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from kd_jax.results import RANKS
from kd_jax.retrieval import confidence
from kd_jax.runs import RunError
from kd_jax.scoring import Scored

COLUMNS = ('mAP', *(f'rank-{k}' for k in RANKS))


def intervals(found: dict[str, list[Scored]]) -> str:
    """A table of 95 % intervals for every run and result of one ranking; '' without any."""
    rows = [
        (name, protocol, confidence.interval(values))
        for name, scored in found.items()
        for protocol, values in _values(scored)
    ]
    if not rows:
        return ''
    lines = [_head('95 % intervals', rows)]
    for name, protocol, (low, high) in rows:
        cells = [f'{100 * a:.1f} – {100 * b:.1f}' for a, b in zip(low, high)]
        lines.append(_line(name, protocol, cells, rows))
    return '\n'.join(lines)


def differences(found: dict[str, list[Scored]]) -> str:
    """A table of the first run less the second: the mean, its 95 % interval, and p.

    RunError where they were asked other queries.
    """
    (first, ones), (second, others) = found.items()
    rows = []
    for (protocol, one), (also, other) in zip(_values(ones), _values(others), strict=True):
        if protocol != also or len(one) != len(other):
            raise RunError(f'{first} and {second} were not asked the same queries')
        rows.append(('', protocol, confidence.paired(one, other)))
    if not rows:
        return 'no protocol of one ranking: draws, and means of parts, can not be paired'
    lines = [f'{first} − {second}', _head('', rows)]
    for _, protocol, apart in rows:
        lines.append(_line('', protocol, [f'{100 * mean:+.1f}' for mean in apart.mean], rows))
        cells = [f'{100 * a:+.1f} – {100 * b:+.1f}' for a, b in zip(apart.low, apart.high)]
        lines.append(_line('  95 % interval', '', cells, rows))
        lines.append(_line('  p, paired', '', [f'{p:.4f}' for p in apart.p], rows))
    return '\n'.join(lines)


def _values(scored: list[Scored]) -> Iterator[tuple[str, Float[np.ndarray, 'q k']]]:
    """What each query is worth, by protocol; not of draws and of means of parts."""
    for one in scored:
        if len(one.rankings) == 1:
            (ranking,), summary = one.rankings, one.summary
            yield summary['protocol'], confidence.of_queries(ranking, summary['quoted'], RANKS)


def _head(label: str, rows: list[tuple]) -> str:
    return _line(label, 'protocol', list(COLUMNS), rows)


def _line(label: str, protocol: str, cells: list[str], rows: list[tuple]) -> str:
    """A line whose columns stand below those of the table of results."""
    width = max(len('protocol'), *(len(row[1]) for row in rows)) + 2
    return f'{label:28}{protocol:{width}}' + ''.join(f'{cell:>16}' for cell in cells)
