"""Search among embedded images: python -m kd_jax.search --gallery=FILE --run=DIR --query=IMAGE.

Prints the nearest images of the gallery with their distances, 1 - cos or euclidean, and draws them.
--calibrate=RATE prints the distance below which two images of the gallery, whose identities have to
be known, match falsely at that rate. Without --index the search is exact.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pyarrow
from absl import flags
from jaxtyping import Float
from PIL import Image

from kd_jax import (
    calibrate,
    checkpoints,
    command,
    embeddings,
    index,
    own_images,
    ranklist,
)
from kd_jax.data import listing
from kd_jax.data.records import DataError
from kd_jax.embeddings import Embeddings
from kd_jax.own_images import Network
from kd_jax.ranklist import Asked, Item
from kd_jax.retrieval import ranking, streaming
from kd_jax.retrieval.streaming import Nearest

NONE = 'none'  # in place of a file, draws nothing


class Request(NamedTuple):
    """What the command line asks for, by its flags."""

    gallery: str
    run: str | None = None
    checkpoint: str | None = None
    query: str | None = None
    names: str = 'none'
    top: int = 10
    out: str | None = None
    metric: str | None = None
    calibrate: list[str] | None = None
    index: str | None = None
    recall_queries: int = 100
    batch: int | None = None


class Queries(NamedTuple):
    """Images to search for: the columns path, identity and camera, below `home`."""

    home: Path
    images: pyarrow.Table
    vectors: Float[np.ndarray, 'q d']


def by_network(network: Network, images: listing.Listing, batch: int) -> Queries:
    """Images embedded now; DataError where none can be read, others are logged and left out."""
    starts = range(0, len(images.paths), own_images.PART)
    batch = min(batch, network.shots * len(images.paths))
    parts = list(own_images.parts(network, images, starts, dtype='float32', batch=batch))
    rows = np.concatenate([part.rows for part in parts])
    if not len(rows):
        path, cause = next(iter(parts[0].bad.items()))
        raise DataError(f'{path}: {cause}; there is no image to search for')
    vectors = np.concatenate([part.vectors for part in parts if len(part.rows)])
    return Queries(images.home, embeddings.labels(*(of[rows] for of in images[1:])), vectors)


def by_file(file: Path) -> tuple[Queries, Embeddings]:
    """Images embedded before."""
    found = embeddings.read(file)
    return Queries(Path(found.facts['home']), found.images, found.vectors()), found


def exact(gallery: Embeddings, query: Float[np.ndarray, 'q d'], top: int, metric: str) -> Nearest:
    """The nearest of all the gallery, of which a block at a time is read."""
    blocks = gallery.blocks(streaming.rows_of_block(gallery.size, gallery.facts['width']))
    return streaming.nearest(query, blocks, top, metric=metric, devices=jax.local_devices())


def by_index(
    file: Path, gallery: Embeddings, query: np.ndarray, top: int, metric: str, checked: int
) -> tuple[Nearest, float]:
    """The nearest by an index, and its recall of those of `checked` queries that are the nearest.

    NaN where none are checked.
    """
    found = index.nearest(index.opened(file, gallery, metric), query, top, metric)
    rows = np.unique(np.linspace(0, len(query) - 1, min(checked, len(query))).astype(int))
    if not len(rows):
        return found, float('nan')
    wanted = exact(gallery, query[rows], top, metric)
    share = index.recall(gallery, query[rows], found.index[rows], wanted.index, metric)
    return found, share


def asked(queries: Queries, gallery: Embeddings, found: Nearest) -> Iterator[Asked]:
    """Every query with what was found."""
    home, real = Path(gallery.facts['home']), functools.cache(os.path.realpath)
    for image, places, far in zip(queries.images.to_pylist(), *found):
        there, items = places >= 0, []
        known, file = _known(image), real(queries.home / image['path'])
        for row, distance in zip(gallery.images.take(places[there]).to_pylist(), far[there]):
            itself = real(home / row['path']) == file
            verdict = ranklist.verdict(known, _known(row), itself=itself)
            items.append(Item(**row, distance=float(distance), verdict=verdict))
        yield Asked(**image, found=items)


def _known(image: dict[str, str]) -> tuple[str, str]:
    return image['identity'], image['camera']


def run(given: Request) -> None:
    """Print thresholds, search, print and draw what is found, as far as it is asked for."""
    gallery = embeddings.read(Path(given.gallery))
    metric = given.metric or gallery.facts['metric']
    ranking.check_metric(metric)
    if not (given.query or given.calibrate or given.index):
        raise ValueError('nothing to do: give --query, --calibrate or --index')
    network = None
    if given.run:
        which = given.checkpoint or gallery.facts['checkpoint']
        network = own_images.opened(Path(given.run), which)
        embeddings.check_same(gallery, network.facts, given.run)
    out = _picture(given)
    if given.calibrate:
        found = calibrate.calibrated(gallery, given.calibrate, metric)
        print(calibrate.table(found, metric), end='\n\n' if given.query else '\n')
    if given.query:
        _search(given, gallery, metric, _queries(given, network, gallery), out)
    elif given.index:
        index.opened(Path(given.index), gallery, metric)


def _picture(given: Request) -> Path | None:
    """The picture to write, in a folder that is there then, or None; ValueError if no PNG."""
    if not given.query or given.out == NONE:
        return None
    out = Path(given.out or f'{Path(given.query).stem}_ranks.png')
    if out.suffix.lower() != '.png':
        raise ValueError(f'--out={out}: the picture is a PNG; call it so, or give none')
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _queries(given: Request, network: Network | None, gallery: Embeddings) -> Queries:
    """The queries that are named; DataError for those of another run, or without one."""
    query = Path(given.query)
    if query.suffix.lower() in embeddings.SUFFIXES:
        queries, file = by_file(query)
        embeddings.check_same(gallery, file.facts, str(query))
        return queries
    images = listing.listed(query, given.names)
    if network is None:
        raise DataError(f'{query} is not embedded yet: give --run=DIR, the run of the gallery')
    return by_network(network, images, given.batch or network.batch)


def _search(
    given: Request, gallery: Embeddings, metric: str, queries: Queries, out: Path | None
) -> None:
    if given.index:
        options = given.top, metric, given.recall_queries
        found, share = by_index(Path(given.index), gallery, queries.vectors, *options)
    else:
        found = exact(gallery, queries.vectors, given.top, metric)
    listed = list(asked(queries, gallery, found))
    print(ranklist.table(listed))
    if given.index:
        _tell_recall(given, share, *found.index.shape)
    if out:
        title = f'{metric} distance among the {gallery.size:,} images of {gallery.file.name}'
        home = Path(gallery.facts['home'])
        opens = (
            lambda path, below=below: Image.open(below / path) for below in (queries.home, home)
        )
        ranklist.draw(listed, *opens, title, out)
        few = f', the first {ranklist.ROWS} of {len(listed):,} queries'
        print(f'\nrank list: {out}{few if len(listed) > ranklist.ROWS else ""}')


def _tell_recall(given: Request, share: float, queries: int, nearest: int) -> None:
    """What of the exact search the index found."""
    checked = min(given.recall_queries, queries)
    if not checked:
        print('\nrecall of the index: unknown, as --recall_queries=0')
    else:
        text = f'{share:.1%} of the {nearest:,} nearest by exact search, of {checked:,} queries'
        print(f'\nrecall of the index: {text}')


def main() -> None:
    """The command line: --gallery=FILE --run=DIR --query=IMAGE|FOLDER, and more with --help."""
    own, flag, number = Request._field_defaults, flags.DEFINE_string, flags.DEFINE_integer
    flag('gallery', None, 'The file of embeddings to search, of kd_jax.embed.', required=True)
    flag('run', None, 'The run that the gallery was embedded by; it embeds the query.')
    which = 'Which of its checkpoints; else that of the gallery.'
    flags.DEFINE_enum('checkpoint', None, checkpoints.WHICH, which)
    flag('query', None, 'An image, a folder or CSV of images, or a file of embeddings.')
    flags.DEFINE_enum('names', own['names'], listing.NAMES, own_images.NAMES_HELP)
    number('top', own['top'], 'How many of the gallery are found for each query.', 1)
    flag('out', None, 'The PNG to write (QUERY_ranks.png), or none.')
    metrics = 'How distances are made; else as the run evaluates.'
    flags.DEFINE_enum('metric', None, ranking.METRICS, metrics)
    rates = 'False-match rates, e.g. 0.001,0.0001: prints the threshold of each.'
    flags.DEFINE_list('calibrate', None, rates)
    built = (
        'An index of the gallery to search by, approximately; built if it is not there, kept with '
        f'FILE.json beside it. Needs usearch ({index.INSTALL}).'
    )
    flag('index', None, built)
    recall = 'Queries that are also searched for exactly, which tells the recall of the index.'
    number('recall_queries', own['recall_queries'], recall, 0)
    number('batch', None, 'Images embedded at once; else as the run evaluates.', 1)
    command.start(lambda _: run(Request(*(flags.FLAGS[name].value for name in Request._fields))))


if __name__ == '__main__':
    main()
