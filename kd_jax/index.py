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
from jaxtyping import Bool, Float, Int

from kd_jax import runs
from kd_jax.embeddings import Embeddings
from kd_jax.retrieval import streaming
from kd_jax.retrieval.metrics import METRICS as EXACT
from kd_jax.retrieval.streaming import Nearest
from kd_jax.runs import RunError

METRICS = {'cosine': 'cos', 'euclidean': 'l2sq'}
NUMBERS = {'float32': 'f32', 'float16': 'f16'}
CONNECTIVITY, BUILT_WITH, SEARCHED_WITH = 16, 128, 128  # links and candidates of HNSW
OF_GALLERY = 'weights', 'images', 'image', 'shots', 'dtype', 'width', 'count'
INSTALL = "pip install 'usearch==2.26.6', which is the extra `index` of kd_jax"
SECONDS = 10  # between two lines of progress
TIE = 4e-6  # of squared lengths; float32 products of the exact search err by 2.5e-6, of width 2048


def opened(file: Path, gallery: Embeddings, metric: str) -> Any:
    """The index of a gallery by a metric, built where there is none yet.

    RunError where usearch is not installed, and where the file is of something else.
    """
    usearch = _usearch()
    told, wanted = _told(_beside(file)), {'metric': metric}
    wanted |= {key: gallery.facts[key] for key in OF_GALLERY}
    if not file.exists():  # what is told without it is of one that was never written
        file.parent.mkdir(parents=True, exist_ok=True)
        _build(usearch, file, gallery, wanted)
    elif told is None:
        missing = f'it is no index of kd_jax, as {_beside(file)} is missing'
        raise RunError(f'{file} is in the way: {missing}')
    else:
        _check_same(file, told, wanted)
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


def recall(
    gallery: Embeddings,
    query: Float[np.ndarray, 'q d'],
    found: Int[np.ndarray, 'q k'],
    exact: Int[np.ndarray, 'q k'],
    metric: str,
) -> float:
    """The share of the nearest that were found, or in their place others no farther than them.

    Which of equal images are found is chance.
    """
    same = np.stack([np.isin(*both) for both in zip(found, exact)])
    asked, places = np.nonzero(~same & (found >= 0))
    hits = np.count_nonzero(same)
    if len(asked):
        pairs = query[asked], found[asked, places], exact[asked, -1]
        hits += np.count_nonzero(_no_farther(gallery, *pairs, metric))
    return hits / exact.size


def _no_farther(
    gallery: Embeddings,
    query: Float[np.ndarray, 'n d'],
    found: Int[np.ndarray, 'n'],
    last: Int[np.ndarray, 'n'],
    metric: str,
) -> Bool[np.ndarray, 'n']:
    """Whether each of `found` is as near to its query as `last` is, but for rounding."""
    rows = np.unique([found, last])
    vectors = _vectors(gallery, rows)
    fitted = EXACT[metric](query, vectors)
    asking, (features, offsets) = fitted.query(query), fitted.gallery(vectors)
    own, other = np.searchsorted(rows, [found, last])
    far, limit = (
        offsets[at] - np.einsum('nd,nd->n', asking, features[at], dtype=float)
        for at in (own, other)
    )
    return far - limit <= TIE * (fitted.own(asking) + offsets[other])


def _vectors(gallery: Embeddings, rows: Int[np.ndarray, 'n']) -> Float[np.ndarray, 'n d']:
    """The embeddings of some images, by ascending rows; a block at a time is read."""
    first, found = 0, []
    for block in gallery.blocks(streaming.rows_of_block(gallery.size, gallery.facts['width'])):
        low, high = np.searchsorted(rows, [first, first + len(block)])
        found.append(block[rows[low:high] - first])
        first += len(block)
    return np.concatenate(found)


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError:
        raise RunError(f'--index needs usearch: {INSTALL}') from None
    return usearch.index


def _beside(file: Path) -> Path:
    return file.with_name(f'{file.name}.json')


def _told(file: Path) -> dict[str, Any] | None:
    """What is told of an index, None where nothing is; RunError for a file of something else."""
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or set(found) != {'metric', *OF_GALLERY}:
        raise RunError(f'{file} is in the way: it tells of no index; give another --index')
    return found


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


def _build(usearch: Any, file: Path, gallery: Embeddings, told: dict[str, Any]) -> None:
    """Write a whole index or nothing, and what is told of it."""
    width, part = gallery.facts['width'], file.with_name(f'.{file.name}.part')
    index = usearch.Index(
        ndim=width,
        metric=METRICS[told['metric']],
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
    runs.write_json(_beside(file), told)  # first, so that no index is ever without it
    os.replace(part, file)
