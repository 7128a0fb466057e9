"""An index of a gallery too large to be searched exactly, by usearch (HNSW); the extra `index`.

It is built in memory, once, and mapped into memory when it is searched. What it is of stands in a
file beside it, FILE.json.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from kd_jax import runs
from kd_jax.embeddings import Embeddings
from kd_jax.retrieval import streaming
from kd_jax.retrieval.streaming import Nearest
from kd_jax.runs import RunError

METRICS = {'cosine': 'cos', 'euclidean': 'l2sq'}
NUMBERS = {'float32': 'f32', 'float16': 'f16'}
CONNECTIVITY, BUILT_WITH, SEARCHED_WITH = 16, 128, 128  # links and candidates of HNSW
OF_GALLERY = 'weights', 'images', 'image', 'shots', 'dtype', 'width', 'count'
INSTALL = "pip install 'usearch==2.26.6', which is the extra `index` of kd_jax"
SECONDS = 10  # between two lines of progress


def opened(file: Path, gallery: Embeddings, metric: str) -> Any:
    """The index of a gallery by a metric, built where there is none yet.

    RunError where usearch is not installed, and where the file is of something else.
    """
    usearch = _usearch()
    told, wanted = _beside(file), {'metric': metric}
    wanted |= {key: gallery.facts[key] for key in OF_GALLERY}
    if not told.exists():
        if file.exists():
            raise RunError(f'{file} is in the way: it is no index of kd_jax, as {told} is missing')
        file.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(told, wanted)  # first, so that no index is ever without it
    _check_same(file, json.loads(told.read_text()), wanted)
    if not file.exists():
        _build(usearch, file, gallery, metric)
    return _mapped(usearch, file, gallery.size)


def nearest(index: Any, query: Float[np.ndarray, 'q d'], count: int, metric: str) -> Nearest:
    """As `streaming.nearest`, by an index: some of the nearest may be missed; -1 is for none."""
    count = min(count, len(index))
    index.expansion_search = max(SEARCHED_WITH, 2 * count)
    found = index.search(query, count)
    keys = found.keys.reshape(len(query), -1).astype(np.int64)
    own = found.distances.reshape(len(query), -1).astype(np.float32)
    missing = np.arange(keys.shape[1]) >= np.reshape(getattr(found, 'counts', count), (-1, 1))
    told = own if metric == 'cosine' else np.sqrt(np.maximum(own, 0))
    return Nearest(np.where(missing, -1, keys), np.where(missing, np.float32(np.inf), told))


def recall(found: Int[np.ndarray, 'q k'], exact: Int[np.ndarray, 'q k']) -> float:
    """The share of the nearest that were found."""
    hits = [len(np.intersect1d(one, other)) for one, other in zip(found, exact)]
    return float(np.sum(hits) / exact.size)


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError:
        raise RunError(f'--index needs usearch: {INSTALL}') from None
    return usearch.index


def _beside(file: Path) -> Path:
    return file.with_name(f'{file.name}.json')


def _check_same(file: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """RunError naming what differs."""
    other = [key for key in wanted if found.get(key) != wanted[key]]
    if other:
        lines = [f'  {key}: {found.get(key)!r} of the index, {wanted[key]!r} now' for key in other]
        raise RunError(
            f'{file} is the index of another gallery. Nothing was changed; remove it and '
            f'{_beside(file).name}, or give another --index:\n' + '\n'.join(lines)
        )


def _mapped(usearch: Any, file: Path, size: int) -> Any:
    """An index mapped into memory; RunError where it is damaged."""
    try:
        found = usearch.Index.restore(str(file), view=True)
    except (ValueError, RuntimeError) as error:
        raise RunError(f'{file} is damaged ({error}): remove it, and it is built again') from error
    if found is None or len(found) != size:
        raise RunError(f'{file} is damaged: remove it, and it is built again')
    return found


def _build(usearch: Any, file: Path, gallery: Embeddings, metric: str) -> None:
    """Write a whole index or nothing."""
    width, part = gallery.facts['width'], file.with_name(f'.{file.name}.part')
    index = usearch.Index(
        ndim=width,
        metric=METRICS[metric],
        dtype=NUMBERS[gallery.facts['dtype']],
        connectivity=CONNECTIVITY,
        expansion_add=BUILT_WITH,
    )
    rows = min(streaming.rows_of_block(gallery.size, width), 2**12)
    for block in gallery.blocks(rows):
        index.add(np.arange(len(index), len(index) + len(block)), block)
        text = '%s: %d of %d images are in the index'
        logging.log_every_n_seconds(logging.INFO, text, SECONDS, file, len(index), gallery.size)
    index.save(str(part))
    os.replace(part, file)
