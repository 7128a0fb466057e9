"""What may be done to distances before they are ranked: query expansion, then re-ranking."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from kd_jax.retrieval import expansion, pairs, ranking, rerank
from kd_jax.retrieval.pairs import JunkRule
from kd_jax.retrieval.scores import Ranking

NONE = 'none'


def is_asked(reranked: Any = None, expanded: Any = None) -> bool:
    """Whether either is asked for, by options as those of `ranked`."""
    return _reranks(reranked) or _expands(expanded)


def _reranks(reranked: Any) -> bool:
    return reranked is not None and reranked['variant'] != NONE


def _expands(expanded: Any) -> bool:
    return expanded is not None and expanded['count'] != 0


def ranked(
    query: Float[np.ndarray, 'q d'],
    gallery: Float[np.ndarray, 'g d'],
    query_ids: Int[np.ndarray, 'q'],
    gallery_ids: Int[np.ndarray, '_'],
    query_cameras: Int[np.ndarray, 'q'],
    gallery_cameras: Int[np.ndarray, '_'],
    *,
    metric: str,
    junk: JunkRule | None = None,
    groups: Int[np.ndarray, '_'] | None = None,
    devices: Sequence[jax.Device] | None = None,
    reranked: Any = None,
    expanded: Any = None,
    **options: Any,
) -> Ranking:
    """`ranking.rank` of vectors by `expansion.expanded` and distances by `rerank.distances`.

    `expanded` and `reranked` are their options, off by a `count` of 0 and by the variant 'none'.
    Gallery items of identity -1 take no part in either. Raises ValueError for `groups` with them.
    """
    labels = query_ids, gallery_ids, query_cameras, gallery_cameras
    ranks = {'metric': metric, 'devices': devices, **options}
    if not is_asked(reranked, expanded):
        return ranking.rank(query, gallery, *labels, junk=junk, groups=groups, **ranks)
    if groups is not None:
        raise ValueError('items of several features can be neither expanded nor re-ranked')
    kept, count = np.flatnonzero(gallery_ids != pairs.JUNK), len(gallery)
    gallery, junk = gallery[kept], _of_kept(junk, kept)
    labels = query_ids, gallery_ids[kept], query_cameras, gallery_cameras[kept]
    if _expands(expanded):
        query, gallery = expansion.expanded(query, gallery, devices=devices, **expanded)
    if _reranks(reranked):
        near = {'metric': metric, 'devices': devices}
        distances = rerank.distances(query, gallery, **near, **reranked)
        shape = len(query), len(gallery)
        found = ranking.rank_rows(distances, shape, *labels, junk=junk, **options)
    else:
        found = ranking.rank(query, gallery, *labels, junk=junk, **ranks)
    return found._replace(gallery_size=count)


def _of_kept(junk: JunkRule | None, kept: Int[np.ndarray, 'k']) -> JunkRule | None:
    """A junk rule by the numbers of the items that are kept."""
    return junk and (lambda rows, columns: junk(rows, kept[columns]))


def check(images: int, reranked: Any = None, expanded: Any = None) -> None:
    """Raise the ValueError of options that can not be, for so many queries and gallery items."""
    asked = {}
    if _reranks(reranked):
        rerank.check(**reranked)
        kind = rerank.VARIANTS[reranked['variant']]
        asked['evaluate.reranked.k1'] = reranked['k1'] + kind.itself
        asked['evaluate.reranked.k2'] = reranked['k2']
    if _expands(expanded):
        expansion.check(**expanded)
        asked['evaluate.expanded.count'] = expanded['count']
    for key, count in asked.items():
        if count > images:
            raise ValueError(f'{key} asks for {count} neighbours of {images} images')


def described(reranked: Any, expanded: Any) -> str:
    """What was done, in words; '' for nothing."""
    words = []
    if _expands(expanded):
        words.append('expanded by {count} neighbours, alpha {alpha:g}'.format(**expanded))
        if expanded['rounds'] > 1:
            words[-1] += f', {expanded["rounds"]} times'
    if _reranks(reranked):
        words.append('re-ranked by {variant}, k1={k1}, k2={k2}, λ={weight:g}'.format(**reranked))
    return ', '.join(words)
