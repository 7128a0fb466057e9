"""Embed the query and the gallery and rank them: python -m kd_jax.evaluate --run=DIR."""

import argparse
import inspect
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging
from jax.sharding import Mesh
from jaxtyping import Float, Int
from ml_collections import ConfigDict, config_flags

from kd_jax import checkpoints, command, data, parallel, recipes, runs, trees
from kd_jax.data import Dataset, Split, augment, pipeline, sampling
from kd_jax.methods import Method
from kd_jax.retrieval import ranking
from kd_jax.trees import Tree

RANKS = (1, 5, 10)
PROGRESS_SECONDS = 10


def embedder(method: Method, mesh: Mesh) -> Callable:
    """embedded(variables, uint8 images[s, n, h, w, c]) -> float[s, d], compiled over the mesh."""
    return parallel.spread(lambda v, images: method.embed(v, augment.normalise(images)), mesh)


def score(
    embedded: Callable,
    variables: Tree,
    dataset: Dataset,
    mesh: Mesh,
    *,
    metric: str,
    same_camera: str,
    shots: int,
    batch: int,
    block: int = 1024,
    seed: int = 0,
) -> dict[str, float]:
    """Rank the gallery by `metric` for every query: mAP, mAP_trapezoid, mINP, rank-k.

    `embedded` is an `embedder`.
    With `shots` above 1 every query and gallery image is joined by others of its true identity
    from its own split: an upper bound, for networks that read several shots (UMTS' Scheme C).
    `batch` counts images, `block` queries.
    """
    started = time.perf_counter()
    features = []
    for split in (dataset.query, dataset.gallery):
        rows = sampling.shots_of(split.records.pids, shots, seed)
        features.append(embed_rows(embedded, variables, split, rows, batch // shots, mesh))
    rank = partial(ranking.rank, *features, *labels(dataset), same_camera=same_camera, block=block)
    found = summary(rank(metric=metric)) | {'shots': shots}
    if metric != 'cosine':
        found['mAP_cosine'] = rank(metric='cosine').mAP
    logging.info('evaluated in %.1f s', time.perf_counter() - started)
    return found


def check(
    config: ConfigDict, dataset: Dataset, *, metric: str, same_camera: str, shots: int, **rest: Any
) -> None:
    """Raise, before training, what `score` would raise after it.

    TypeError for a misspelt key; ValueError for an unknown word, for another number of shots than
    a stacked network reads, and where no query has a valid match.
    """
    given = {'metric': metric, 'same_camera': same_camera, 'shots': shots, **rest}
    inspect.signature(score).bind(*[None] * 4, **given)
    if recipes.reads(config) == 'stacked' and shots != config.sampling.shots:
        raise ValueError(
            f'evaluate.shots={shots}, but the network reads sampling.shots={config.sampling.shots}'
        )
    ranking.check(labels(dataset), metric=metric, same_camera=same_camera)


def labels(dataset: Dataset) -> list[np.ndarray]:
    """Identities of query and gallery, then cameras of query and gallery."""
    splits = (dataset.query.records, dataset.gallery.records)
    return [getattr(split, name) for name in ('pids', 'cameras') for split in splits]


def embed_rows(
    embedded: Callable,
    variables: Tree,
    split: Split,
    rows: Int[np.ndarray, 'q shots'],
    batch: int,
    mesh: Mesh,
) -> Float[np.ndarray, 'q d']:
    """The embeddings of sets of rows, a batch at a time, the last one padded."""
    batch = max(1, batch // mesh.size) * mesh.size
    vectors, told = [], time.perf_counter()
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        padded = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
        images = parallel.shard(pipeline.images_of(split.pixels.read, padded), mesh)
        vectors.append(np.asarray(embedded(variables, images))[: len(part)])
        if time.perf_counter() - told > PROGRESS_SECONDS:
            told = time.perf_counter()
            logging.info('embedded %d of %d', first + len(part), len(rows))
    return np.concatenate(vectors)


def summary(found: ranking.Ranking) -> dict[str, float]:
    """The numbers of a ranking that tables show."""
    ranks = {f'rank-{k}': found.rank(k) for k in RANKS}
    counts = {'valid_queries': int(found.valid.sum()), 'queries': len(found.valid)}
    means = {'mAP': found.mAP, 'mAP_trapezoid': found.mAP_trapezoid, 'mINP': found.mINP}
    return means | ranks | counts


def table(results: dict[str, dict]) -> str:
    """A table with a row for every network, percent; several shots are marked as upper bounds."""
    columns = ('mAP', 'mINP', *(f'rank-{k}' for k in RANKS))
    head = f'{"":28}' + ''.join(f'{c:>9}' for c in columns) + f'{"valid queries":>16}'
    lines = [head]
    for name, found in results.items():
        label = name if found['shots'] == 1 else f'{name} ({found["shots"]} shots*)'
        values = ''.join(f'{100 * found[c]:9.1f}' for c in columns)
        valid = f'{found["valid_queries"]}/{found["queries"]}'
        lines.append(f'{label:28}{values}{valid:>16}')
    if any(found['shots'] > 1 for found in results.values()):
        lines.append('* shots drawn by true identity, at test time too: an upper bound')
    return '\n'.join(lines)


def run(path: Path, config: ConfigDict, which: str = 'last') -> dict[str, float]:
    """Score a run's checkpoint again, with the `data` and `evaluate` parts of `config`.

    RunError where another part of the config differs from the run's, or the size of the images.
    """
    runs.check_same(path, config, but=('data', 'evaluate', 'train', 'teachers'))
    restored = checkpoints.restore_network(path, which)
    method = recipes.method(restored.config, restored.network, placeholders(restored))
    recipes.check_size(str(path), restored.config, config)
    dataset = data.load(**config.data)
    check(restored.config, dataset, **config.evaluate)
    logging.info('step %d of %s on\n%s', restored.step, path, data.describe(dataset))
    mesh = parallel.mesh()
    variables = parallel.replicate(trees.join(student=restored.variables), mesh)
    return score(embedder(method, mesh), variables, dataset, mesh, **config.evaluate)


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
        print(table({path.name: run(path, changed.value, flags.FLAGS.checkpoint)}))

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
