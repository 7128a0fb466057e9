"""The protocols of the papers: how a test set becomes rankings, and what a table quotes of them.

market          every query image against every gallery image
veri_image      the same on VeRi-776, whose queries are in the gallery too
veri_wild       the same on VERI-Wild
veri_track      images against tracklets, as near as their nearest image (VeRi-776's HIT@k)
vehicleid       a random image of each identity is the gallery, all others ask; 10 draws
cuhk03_classic  a random gallery image of each identity for each query; 10 draws
i2v v2v v2i i2i an image or a tracklet asks for tracklets or their images (VKD)
mars            i2v and v2v, the query tracklets joining the gallery (MARS, VKD)
atrw            every image asks for all but near frames of its clip; single and cross camera

A tracklet is the mean over the first frames of its chunks. Matches by the query's own camera are
left out where `same_camera` says so, and nothing matches itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kd_jax.retrieval import items, ranking, refinement, tasks
from kd_jax.retrieval.items import Items, Test
from kd_jax.retrieval.pairs import JUNK, JunkRule
from kd_jax.retrieval.tasks import Features, Found, Task

SUM, TRAPEZOID = 'mAP', 'mAP_trapezoid'  # the two definitions of average precision


class Protocol(NamedTuple):
    """How rankings are made, and which average precision, `quoted`, their tables show.

    `kinds` are what asks and what is asked for (`items`), by the name of the result; `rank` makes
    the rankings, `junk` the rule on pairs. `pool`: query and gallery are one. `cameras`: matches
    by the query's own camera may be left out. `joined`: the query tracklets join the gallery.
    `drawn`: its rankings are random draws.
    """

    kinds: dict[str, tuple[str, str]]
    rank: Callable[..., Found] = tasks.once
    junk: Callable[[Items, Items], JunkRule] = tasks.itself
    quoted: str = SUM
    pool: bool = False
    cameras: bool = True
    joined: bool = False
    drawn: bool = False

    @property
    def refines(self) -> bool:
        """Whether its distances may be re-ranked: those of every query to one gallery."""
        return self.rank is tasks.once and ('image', 'nearest') not in self.kinds.values()


IMAGES = {'': ('image', 'image')}
PROTOCOLS = {
    'market': Protocol(IMAGES),
    'veri_image': Protocol(IMAGES),
    'veri_wild': Protocol(IMAGES),
    'veri_track': Protocol({'': ('image', 'nearest')}, quoted=TRAPEZOID),
    'vehicleid': Protocol(IMAGES, tasks.drawn_gallery, pool=True, cameras=False, drawn=True),
    'cuhk03_classic': Protocol(IMAGES, tasks.drawn_for_queries, pool=True, drawn=True),
    'i2v': Protocol({'': ('first', 'tracklet')}, quoted=TRAPEZOID),
    'v2v': Protocol({'': ('tracklet', 'tracklet')}, quoted=TRAPEZOID),
    'v2i': Protocol({'': ('tracklet', 'shown')}, quoted=TRAPEZOID),
    'i2i': Protocol({'': ('first', 'shown')}, quoted=TRAPEZOID),
    'mars': Protocol(
        {'i2v': ('first', 'tracklet'), 'v2v': ('tracklet', 'tracklet')},
        quoted=TRAPEZOID,
        joined=True,
    ),
    'atrw': Protocol(IMAGES, tasks.single_and_cross, tasks.near_frames, pool=True, cameras=False),
}


def names(protocol: str) -> list[str]:
    """The protocols in a word, joined by commas; ValueError naming those there are."""
    found = [name.strip() for name in protocol.split(',')]
    for name in found:
        if name not in PROTOCOLS:
            raise ValueError(f'protocol={name!r}: choose of {", ".join(PROTOCOLS)}')
    return found


def check(
    name: str,
    test: Test,
    *,
    metric: str,
    same_camera: str,
    frames: int,
    images: bool = False,
    **refined: Any,
) -> None:
    """Raise, before there are features, the ValueError that `run` would raise.

    With `images`, also for a protocol that ranks other things than single images.
    """
    ranking.check_metric(metric)
    if refinement.is_asked(**refined) and not PROTOCOLS[name].refines:
        fitting = ', '.join(other for other, rule in PROTOCOLS.items() if rule.refines)
        raise ValueError(
            f'protocol {name} ranks parts of a pool or of tracklets: neither evaluate.reranked nor '
            f'evaluate.expanded fits it; they do {fitting}'
        )
    if images and PROTOCOLS[name].kinds != IMAGES:
        raise ValueError(f'protocol {name} ranks tracklets: evaluate.shots must be 1')
    for task in tasks_of(name, test, frames, same_camera).values():
        tasks.check(task, same_camera)
        taking_part = int(np.count_nonzero(task.gallery.pids != JUNK))
        refinement.check(len(task.query.pids) + taking_part, **refined)


def run(name: str, test: Test, features: Features, *, frames: int, **options: Any) -> Found:
    """The rankings of one protocol on a test set, by the name of the result.

    `features` embeds items, a tracklet from `frames` images; `options` are those of
    `refinement.ranked`. Raises ValueError where the data does not fit.
    """
    found: Found = {}
    for result, task in tasks_of(name, test, frames, options['same_camera']).items():
        parts = PROTOCOLS[name].rank(task, features, **options)
        found |= {f'{result} {part}'.strip(): rankings for part, rankings in parts.items()}
    return found


def tasks_of(name: str, test: Test, frames: int, same_camera: str) -> dict[str, Task]:
    """What a protocol ranks, by the name of the result; ValueError where it does not fit."""
    protocol = PROTOCOLS[name]
    if protocol.pool != test.pool:
        fitting = [other for other, rule in PROTOCOLS.items() if rule.pool == test.pool]
        drawn = 'from one pool' if protocol.pool else 'apart'
        raise ValueError(
            f'protocol {name} takes queries and gallery {drawn}, which is not how this data set '
            f'has them: set evaluate.protocol to one of {", ".join(fitting)}'
        )
    if not protocol.cameras and same_camera != 'keep':
        raise ValueError(f'protocol {name} has no rule on cameras: set evaluate.same_camera=keep')
    if frames < 1:
        raise ValueError(f'evaluate.frames={frames}: a tracklet is embedded from 1 or more')
    return {result: _task(name, test, *kinds, frames) for result, kinds in protocol.kinds.items()}


def _task(name: str, test: Test, asking: str, asked: str, frames: int) -> Task:
    """One ranking to be made."""
    query = items.query_items(test, asking, frames)
    gallery = items.gallery_items(test, asked, frames)
    for side, found in ('query', query), ('gallery', gallery):
        if not len(found.pids):
            raise ValueError(
                f'protocol {name} ranks tracklets, but no {side} image has a known one in the '
                'gallery: --config.evaluate.protocol=market ranks images, and a folder whose names '
                'have sequences has longer tracklets with --config.data.sequences=False'
            )
    if PROTOCOLS[name].joined:
        if not test.tracklets:
            raise ValueError(f'protocol {name} is for data sets that consist of tracklets')
        gallery = items.joined(items.query_items(test, 'tracklet', frames), gallery)
    return Task(query, gallery, PROTOCOLS[name].junk(query, tasks.shown(gallery)))
