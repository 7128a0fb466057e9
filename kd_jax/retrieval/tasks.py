"""What a protocol ranks, and the ways to rank it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from kd_jax.retrieval import draws, pairs, ranking, refinement
from kd_jax.retrieval.items import Items
from kd_jax.retrieval.pairs import JunkRule
from kd_jax.retrieval.scores import Ranking

DRAWS = 10
NEAR = 3  # frames of one clip that are as near as this are one sight to ATRW


class Task(NamedTuple):
    """What asks, what is asked for, and which of their pairs count for nothing."""

    query: Items
    gallery: Items
    junk: JunkRule


Features = Callable[[Items], Float[np.ndarray, 'i d']]
Found = dict[str, list[Ranking]]  # by the name of a part, which is the mean of its rankings


def labels(task: Task) -> list[np.ndarray]:
    """Identities of query and gallery, then cameras of query and gallery."""
    sides = task.query, shown(task.gallery)
    return [getattr(side, column) for column in ('pids', 'cameras') for side in sides]


def shown(gallery: Items) -> Items:
    """What a gallery shows: the first of each group, where items are grouped."""
    if gallery.groups is None:
        return gallery
    first = np.unique(gallery.groups, return_index=True)[1]
    return Items(*(column[first] for column in gallery[:6]))


def itself(query: Items, gallery: Items) -> JunkRule:
    """An item is no match of one that shows an image of its own."""

    def junk(rows, columns):
        pairs = query.images[rows][:, :, None] == gallery.images[columns][:, None, :]
        return pairs.any(axis=(1, 2))

    return junk


def near_frames(query: Items, gallery: Items) -> JunkRule:
    """No match are frames of one clip that are near: ATRW's rule, itself among them."""

    def junk(rows, columns):
        apart = np.abs(query.frames[rows] - gallery.frames[columns])
        return (query.tracklets[rows] == gallery.tracklets[columns]) & (apart <= NEAR)

    return junk


def check(task: Task, same_camera: str) -> None:
    """Raise, before there are features, the ValueError of a task without any valid match."""
    pairs.find(_counts(task), labels(task), same_camera, task.junk)


def unmatched(task: Task, same_camera: str) -> tuple[int, int]:
    """How many queries the gallery has no item of, and how many only junk."""
    return pairs.unmatched(
        pairs.of_one_identity(_counts(task), labels(task), same_camera, task.junk)
    )


def _counts(task: Task) -> tuple[int, int]:
    return len(task.query.pids), len(shown(task.gallery).pids)


def once(task: Task, features: Features, **options: Any) -> Found:
    """One ranking of the whole gallery; `options` are those of `refinement.ranked`."""
    sides = features(task.query), features(task.gallery), *labels(task)
    rule = {'junk': task.junk, 'groups': task.gallery.groups}
    return {'': [refinement.ranked(*sides, **rule, **options)]}


def drawn_gallery(task: Task, features: Features, **options: Any) -> Found:
    """A ranking for every draw: a random image of each identity is the gallery, all others ask."""
    columns = features(task.query), task.query.pids, task.query.cameras
    rankings = []
    for draw in range(DRAWS):
        gallery = draws.one_of_each(task.query.pids, draw)
        query = np.setdiff1d(np.arange(len(task.query.pids)), gallery)
        sides = [column[rows] for column in columns for rows in (query, gallery)]
        rankings.append(refinement.ranked(*sides, **options))
    return {'': rankings}


def drawn_for_queries(task: Task, features: Features, **options: Any) -> Found:
    """A ranking for every draw, of the first match only; precisions are of the whole gallery."""
    vectors = features(task.query)
    (whole,) = once(task, lambda _: vectors, **options)['']
    keys_of = ranking.keys_of(vectors, vectors, options['metric'])
    rule = {'same_camera': options['same_camera'], 'block': options['block']}
    ranks = draws.single_shot(keys_of, labels(task), pool=True, draws=DRAWS, **rule)
    identities = len(np.unique(task.gallery.pids))
    return {'': [whole._replace(first_rank=rank, gallery_size=identities) for rank in ranks]}


def single_and_cross(task: Task, features: Features, **options: Any) -> Found:
    """Queries whose identity one camera saw, those that several saw, and the mean of both.

    A query without a match counts as nought.
    """
    (whole,) = once(task, features, **options)['']
    several = _of_several_cameras(task.query)
    parts = {'single camera': ~several, 'cross camera': several}
    found = {part: [_part(whole, rows)] for part, rows in parts.items() if rows.any()}
    return {'mean': [one for part in found.values() for one in part], **found}


def _of_several_cameras(items: Items) -> Bool[np.ndarray, 'i']:
    """Whether an item's identity is seen by several cameras."""
    pids, places = np.unique(items.pids, return_inverse=True)
    seen = np.unique(np.stack([places, items.cameras]), axis=1)[0]
    return (np.bincount(seen, minlength=len(pids)) > 1)[places]


def _part(whole: Ranking, rows: Bool[np.ndarray, 'q']) -> Ranking:
    """The ranking of some queries; one without a match has precision 0 and is found last."""
    *columns, valid = (column[rows] for column in whole[:5])
    rank, *scores = columns
    scores = (np.where(valid, score, 0.0) for score in scores)
    rank = np.where(valid, rank, whole.gallery_size + 1)
    return Ranking(rank, *scores, np.ones_like(valid), whole.gallery_size)
