"""What networks are worth on a data set: its test sets, embedded and ranked by every protocol."""

import inspect
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kd_jax import embedding, recipes, results
from kd_jax.data import Dataset
from kd_jax.retrieval import items, protocols, refinement
from kd_jax.retrieval.protocols import PROTOCOLS
from kd_jax.retrieval.scores import Ranking
from kd_jax.trees import Tree


class Scored(NamedTuple):
    """The numbers of one result, and the rankings that they are of: one, its parts, or draws."""

    summary: dict[str, Any]
    rankings: list[Ranking]


def score(*given: Any, **options: Any) -> dict[str, Any]:
    """The summary of the first result of `scored`; its `also` has those of the others."""
    first, *others = (one.summary for one in scored(*given, **options))
    return first | {'also': others}


def scored(
    embedded: Callable,
    variables: Tree,
    dataset: Dataset,
    mesh: Mesh,
    *,
    protocol: str,
    metric: str,
    same_camera: str,
    shots: int,
    shots_of: str,
    frames: int,
    batch: int,
    reranked: Any = None,
    expanded: Any = None,
    block: int = 256,
    seed: int = 0,
) -> list[Scored]:
    """Rank by every `protocol` (names joined by commas), on every test set, by `metric`.

    `embedded` is an `embedding.embedder`. Summaries have mAP, mAP_trapezoid, mINP, rank-k; their
    `protocol` is its name, `quoted` the average precision that its tables show. A tracklet is
    embedded from `frames` images. With `shots` above 1, for networks that read several shots
    (UMTS' Scheme C), every image is joined by others of its true 'identity' from its own split, an
    upper bound; or, `shots_of='image'`, by itself. `batch` counts images, `block` queries.
    `reranked` and `expanded` are those of `refinement.ranked`; without them the first summary has
    `mAP_cosine` beside another metric's.
    """
    started, found = time.perf_counter(), []
    rule = {'metric': metric, 'same_camera': same_camera}
    refined = {'reranked': reranked, 'expanded': expanded}
    options = rule | refined | {'frames': frames, 'block': block}
    options['devices'] = tuple(mesh.devices.flat)
    for test_set, (query, gallery) in dataset.tests().items():
        test = items.together(query.records, gallery.records, dataset.tracklets)
        rows = embedding.shots_of(test, shots, shots_of, seed)
        read, repeated = embedding.reader(query, gallery), embedding.repeated(rows, shots_of)
        features = embedding.features(partial(embedded, variables), read, rows, batch, mesh)
        facts = rule | {'shots': shots, 'shots_of': shots_of, 'repeated': repeated, 'also': []}
        facts['refined'] = refinement.described(**refined)
        for name in protocols.names(protocol):
            by_cosine = not found and metric != 'cosine' and not facts['refined']
            for result, rankings in protocols.run(name, test, features, **options).items():
                label = ' '.join(filter(None, (name, test_set, result)))
                found.append(Scored(_found(label, name, rankings) | facts, rankings))
            if by_cosine:
                found[0].summary['mAP_cosine'] = _by_cosine(name, test, features, options)
    logging.info('evaluated in %.1f s', time.perf_counter() - started)
    return found


def _by_cosine(name: str, test: items.Test, features: Callable, options: dict) -> float:
    """The quoted average precision of a protocol's first result by the cosine."""
    found = protocols.run(name, test, features, **options | {'metric': 'cosine'})
    return results.summary(next(iter(found.values())))[PROTOCOLS[name].quoted]


def _found(label: str, protocol: str, rankings: list) -> dict[str, Any]:
    """What is reported of the rankings of one result."""
    rule = PROTOCOLS[protocol]
    spread = results.deviations(rankings) if rule.drawn else {}
    numbers = results.summary(rankings, rule.drawn)
    return numbers | spread | {'protocol': label, 'quoted': rule.quoted}


def check(
    config: ConfigDict,
    dataset: Dataset,
    *,
    protocol: str,
    metric: str,
    same_camera: str,
    shots: int,
    shots_of: str,
    frames: int,
    reranked: Any = None,
    expanded: Any = None,
    **rest: Any,
) -> None:
    """Raise, before training, what `scored` would raise after it.

    TypeError for a misspelt key; ValueError for an unknown word, for another number of shots than
    a stacked network reads, for shots that would show an image on both sides, and where no query
    has a valid match.
    """
    options = {'metric': metric, 'same_camera': same_camera, 'frames': frames}
    options |= {'reranked': reranked, 'expanded': expanded}
    given = {'protocol': protocol, 'shots': shots, 'shots_of': shots_of, **options, **rest}
    inspect.signature(scored).bind(*[None] * 4, **given)
    if recipes.reads(config) == 'stacked' and shots != config.sampling.shots:
        raise ValueError(
            f'evaluate.shots={shots}, but the network reads sampling.shots={config.sampling.shots}'
        )
    for query, gallery in dataset.tests().values():
        test = items.together(query.records, gallery.records, dataset.tracklets)
        embedding.check_shots(test, shots, shots_of)
        for name in protocols.names(protocol):
            protocols.check(name, test, images=shots > 1, **options)
