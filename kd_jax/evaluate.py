"""Embed the query and the gallery and rank them: python -m kd_jax.evaluate --run=DIR."""

import argparse
import inspect
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from kd_jax import (
    checkpoints,
    command,
    data,
    embedding,
    lineage,
    parallel,
    recipes,
    results,
    runs,
    trees,
)
from kd_jax.data import Dataset
from kd_jax.methods import Method
from kd_jax.retrieval import items, protocols, refinement
from kd_jax.retrieval.protocols import PROTOCOLS
from kd_jax.trees import Tree


def score(
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
    reranked: Any,
    expanded: Any,
    block: int = 1024,
    seed: int = 0,
) -> dict[str, Any]:
    """Rank by every `protocol` (names joined by commas), on every test set, by `metric`.

    `embedded` is an `embedding.embedder`. The numbers are of the first ranking: mAP, mAP_trapezoid,
    mINP, rank-k; `protocol` is its name, `quoted` the average precision that its tables show, and
    `also` has the others. A tracklet is embedded from `frames` images. With `shots` above 1, for
    networks that read several shots (UMTS' Scheme C), every image is joined by others of its
    true 'identity' from its own split, an upper bound; or, `shots_of='image'`, by itself. `batch`
    counts images, `block` queries. `reranked` and `expanded` are those of `refinement.ranked`.
    """
    started, found = time.perf_counter(), []
    options = {'metric': metric, 'same_camera': same_camera, 'frames': frames, 'block': block}
    options['devices'], refined = tuple(mesh.devices.flat), {'reranked': reranked}
    refined['expanded'] = expanded
    for name, (query, gallery) in dataset.tests().items():
        test = items.together(query.records, gallery.records, dataset.tracklets)
        rows = embedding.shots_of(test, shots, shots_of, seed)
        read, repeated = embedding.reader(query, gallery), embedding.repeated(rows, shots_of)
        features = embedding.features(partial(embedded, variables), read, rows, batch, mesh)
        for rule in protocols.names(protocol):
            by_cosine = not found and metric != 'cosine'
            rankings_of = protocols.run(rule, test, features, **options, **refined)
            for result, rankings in rankings_of.items():
                label = ' '.join(filter(None, (rule, name, result)))
                facts = {'metric': metric, 'same_camera': same_camera, 'shots': shots}
                facts |= {'shots_of': shots_of, 'repeated': repeated, 'also': []}
                facts['refined'] = refinement.described(**refined)
                found.append(_found(label, rule, rankings) | facts)
            if by_cosine:
                again = protocols.run(rule, test, features, **options | {'metric': 'cosine'})
                found[0]['mAP_cosine'] = results.summary(next(iter(again.values())))[
                    found[0]['quoted']
                ]
    logging.info('evaluated in %.1f s', time.perf_counter() - started)
    return found[0] | {'also': found[1:]}


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
    reranked: Any,
    expanded: Any,
    **rest: Any,
) -> None:
    """Raise, before training, what `score` would raise after it.

    TypeError for a misspelt key; ValueError for an unknown word, for another number of shots than
    a stacked network reads, for shots that would show an image on both sides, and where no query
    has a valid match.
    """
    options = {'metric': metric, 'same_camera': same_camera, 'frames': frames}
    options |= {'reranked': reranked, 'expanded': expanded}
    given = {'protocol': protocol, 'shots': shots, 'shots_of': shots_of, **options, **rest}
    inspect.signature(score).bind(*[None] * 4, **given)
    if recipes.reads(config) == 'stacked' and shots != config.sampling.shots:
        raise ValueError(
            f'evaluate.shots={shots}, but the network reads sampling.shots={config.sampling.shots}'
        )
    for query, gallery in dataset.tests().values():
        test = items.together(query.records, gallery.records, dataset.tracklets)
        embedding.check_shots(test, shots, shots_of)
        for name in protocols.names(protocol):
            protocols.check(name, test, images=shots > 1, **options)


def run(path: Path, config: ConfigDict, which: str = 'last') -> dict[str, float]:
    """Score a run's checkpoint again, with the `data` and `evaluate` parts of `config`.

    RunError where another part of the config differs from the run's, or the size of the images.
    """
    runs.check_same(path, config, but=('data', 'evaluate', 'train', 'teachers'))
    restored = checkpoints.restore_network(path, which)
    lineage.check_size(str(path), restored.config, config)
    dataset = data.load(**config.data)
    check(restored.config, dataset, **config.evaluate)
    logging.info('step %d of %s on\n%s', restored.step, path, data.describe(dataset))
    mesh = parallel.mesh()
    return score(*opened(restored, mesh), dataset, mesh, **config.evaluate)


def opened(restored: checkpoints.Restored, mesh: Mesh) -> tuple[Callable, Tree]:
    """A restored network as it embeds for `score`: an `embedding.embedder` and its variables."""
    method = method_of(restored)
    variables = parallel.replicate(trees.join(student=restored.variables), mesh)
    return embedding.embedder(method, mesh), variables


def method_of(restored: checkpoints.Restored) -> Method:
    """The method of a restored network, to embed with."""
    return recipes.method(restored.config, restored.network, placeholders(restored))


def placeholders(restored: checkpoints.Restored) -> dict:
    """In the place of each teacher the student's network: embedding asks none of them."""
    return dict.fromkeys(restored.config.teachers, restored.network)


def main() -> None:
    """The command line: --run=DIR [--checkpoint=last|best] [--config.evaluate.KEY=VALUE]."""
    flags.DEFINE_string('run', None, 'The run to score again.', required=True)
    flags.DEFINE_enum('checkpoint', 'last', checkpoints.WHICH, 'Which of its checkpoints.')
    changed = config_flags.DEFINE_config_dict('config', _config_of_flag())

    def scored(_):
        path = Path(flags.FLAGS.run)
        print(results.table({path.name: run(path, changed.value, flags.FLAGS.checkpoint)}))

    command.start(scored)


def _config_of_flag() -> ConfigDict:
    """The config of the run that the command line names, which the other flags may change."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--run', '-run', type=Path)
    run = parser.parse_known_args()[0].run
    try:
        return ConfigDict() if run is None else runs.config_of(run)
    except runs.RunError as error:
        sys.exit(f'kd_jax: {error}')


if __name__ == '__main__':
    main()
