"""What is reported of rankings: their numbers, and the table of them."""

import numpy as np

from kd_jax.retrieval.protocols import PROTOCOLS, TRAPEZOID
from kd_jax.retrieval.scores import Ranking

RANKS = (1, 5, 10)
COLUMNS = ('mAP', 'mINP', *(f'rank-{k}' for k in RANKS))


def summary(rankings: list[Ranking], drawn: bool = False) -> dict[str, float]:
    """The numbers of a ranking that tables show, the means of several, and how many queries.

    The queries are those of each draw where they are `drawn`, and of all parts where not.
    """
    numbers = [_numbers(ranking) for ranking in rankings]
    means = {name: float(np.mean([one[name] for one in numbers])) for name in numbers[0]}
    counts = np.array([[_matched(ranking), len(ranking.valid)] for ranking in rankings])
    valid, queries = counts[0] if drawn else counts.sum(axis=0)
    return means | {'valid_queries': int(valid), 'queries': int(queries)}


def deviations(rankings: list[Ranking]) -> dict[str, float]:
    """The sample standard deviations of the same numbers over several draws."""
    numbers = [_numbers(ranking) for ranking in rankings]
    return {f'{k}_std': float(np.std([one[k] for one in numbers], ddof=1)) for k in numbers[0]}


def table(results: dict[str, dict]) -> str:
    """A table with a row for every network and ranking, percent, and what has to be known of it."""
    rows = [(name, one) for name, found in results.items() for one in (found, *found['also'])]
    width = max(len('protocol'), *(len(found['protocol']) for _, found in rows)) + 2
    head = f'{"":28}{"protocol":{width}}' + ''.join(f'{c:>9}' for c in COLUMNS)
    lines = [head + f'{"valid queries":>16}']
    for name, found in rows:
        label = name + _shots(found)
        valid = f'{found["valid_queries"]}/{found["queries"]}'
        values = _cells([found[column] for column in (found['quoted'], *COLUMNS[1:])])
        lines.append(f'{label:28}{found["protocol"]:{width}}{values}{valid:>16}')
        if 'mAP_std' in found:
            spread = [found[f'{column}_std'] for column in (found['quoted'], *COLUMNS[1:])]
            lines.append(f'{"":28}{"  ± over draws":{width}}' + _cells(spread))
    return '\n'.join(lines + _notes([found for _, found in rows]))


def _keeps(found: dict) -> bool:
    """Whether matches by the query's own camera count where the protocol could leave them out."""
    return found['same_camera'] == 'keep' and PROTOCOLS[found['protocol'].split()[0]].cameras


def _shots(found: dict) -> str:
    """What a network of several shots was shown in place of one image."""
    if found['shots'] == 1:
        return ''
    several = 'shots*' if found['shots_of'] == 'identity' else 'times itself'
    return f' ({found["shots"]} {several})'


def _matched(ranking: Ranking) -> int:
    """How many queries have a match; where those without count too, they are ranked last."""
    return int((ranking.valid & (ranking.first_rank <= ranking.gallery_size)).sum())


def _numbers(ranking: Ranking) -> dict[str, float]:
    ranks = {f'rank-{k}': ranking.rank(k) for k in RANKS}
    means = {'mAP': ranking.mAP, 'mAP_trapezoid': ranking.mAP_trapezoid, 'mINP': ranking.mINP}
    return means | ranks


def _cells(values: list[float]) -> str:
    return ''.join(f'{100 * value:9.1f}' for value in values)


def _notes(found: list[dict]) -> list[str]:
    """What a reader of the table has to know of some of its rows."""
    notes = []
    stacked = [one for one in found if one['shots'] > 1 and one['shots_of'] == 'identity']
    if stacked:
        notes.append('* shots drawn by true identity, at test time too: an upper bound')
    if stacked and max(one['repeated'] for one in stacked):
        share = 100 * max(one['repeated'] for one in stacked)
        notes.append(
            f'  of identities with few images some shots come twice: {share:.1f} % of sets'
        )
    refined = sorted({(one['protocol'], one['refined']) for one in found if one.get('refined')})
    notes += [f'{protocol}: {how}' for protocol, how in refined]
    kept = sorted({one['protocol'] for one in found if _keeps(one)})
    if kept:
        notes.append(f'{", ".join(kept)}: matches by the query’s own camera are not left out')
    other = sorted({one['protocol'] for one in found if one['quoted'] == TRAPEZOID})
    if other:
        notes.append(f'mAP of {", ".join(other)}: the trapezoid rule, never more than the other')
    return notes
