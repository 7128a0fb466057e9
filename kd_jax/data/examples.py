"""The examples of a prepared data set: made of images, and taken apart again without TensorFlow.

An example is one image, or one tracklet where the splits are made of tracklets.
"""

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from kd_jax.data.images import BLOCK, DAMAGE, ImageError
from kd_jax.data.records import DataError, Records, select


def bounds(records: Records, tracklets: bool) -> Int[np.ndarray, 'e_plus_1']:
    """The first row of each example, and behind the last one the number of rows."""
    if not tracklets:
        return np.arange(len(records.pids) + 1)
    keys = np.stack([records.pids, records.cameras, records.tracklets])
    changes = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
    return np.concatenate([[0], changes, [len(records.pids)]])


def numbers(records: Records, bad: Collection[str], tracklets: bool) -> Int[np.ndarray, 'k']:
    """The number of the example that each row is in, of the rows whose images are not bad.

    Examples all of whose images are bad do not count.
    """
    edges = bounds(records, tracklets)
    found = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    return np.unique(found[~np.isin(records.paths, list(bad))], return_inverse=True)[1]


def shards(edges: Int[np.ndarray, 'e_plus_1'], size: int) -> list[Int[np.ndarray, 'k']]:
    """The bounds of the examples of each shard; a shard is full with `size` rows, about."""
    number = edges[:-1] // size
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
    return [edges[first : last + 1] for first, last in pairwise(cuts)]


def made(
    open: Callable[[str], Image.Image],
    records: Records,
    edges: Int[np.ndarray, 'k'],
    *,
    tracklets: bool,
    refuse: Callable[[str, str], None],
    tell: Callable[[int], None],
) -> Iterator[dict[str, Any]]:
    """The examples between `edges` by feature, as builders.py has them.

    A bad image is left out, `refuse` being called with its path and the cause; an example of
    nothing else too. `tell` is called with the number of images that have been read.
    """
    images = encoded(open, records.paths[edges[0] : edges[-1]].tolist(), tell)
    for first, last in pairwise(edges.tolist()):
        good = {}
        for row, image in zip(range(first, last), images):
            if isinstance(image, ImageError):
                refuse(str(records.paths[row]), image.cause)
            else:
                good[row] = image
        if good:
            yield _example(select(records, np.array(list(good))), list(good.values()), tracklets)


def encoded(
    open: Callable[[str], Image.Image], paths: Sequence[str], tell: Callable[[int], None]
) -> Iterator[bytes | ImageError]:
    """Each image as the bytes of its file, or what is wrong with it; read by several threads.

    What the reader does not take from a file as it is (a cell of a matrix, a mirrored image) is
    stored as PNG, without loss. All are decoded, for nothing less finds a truncated file. Raises
    DataError for files that cannot be read.
    """

    def attempt(path):
        try:
            with open(path) as image:
                image.load()
                return _bytes(image)
        except DAMAGE as error:
            if getattr(error, 'errno', None):  # missing, forbidden, too many open: not its fault
                raise DataError(f'{path}: {error}') from error
            return ImageError(path, str(error))

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BLOCK):
            images = list(pool.map(attempt, paths[start : start + BLOCK]))
            tell(len(images))
            yield from images


def values(example: bytes, feature: str) -> list[memoryview]:
    """The bytes of a feature in a serialised tf.train.Example, in their order.

    Raises ValueError if the example has no such feature.
    """
    (features,) = _fields(memoryview(example))
    for entry in _fields(features):
        name, value = _fields(entry)
        if name == feature.encode():
            (listed,) = _fields(value)
            return list(_fields(listed))
    raise ValueError(f'no {feature} in a stored example')


def _example(records: Records, images: list[bytes], tracklets: bool) -> dict[str, Any]:
    """One image or one tracklet, by feature."""
    whole = {'pid': records.pids[0], 'camera': records.cameras[0]}
    whole['tracklet'] = records.tracklets[0]
    if tracklets:
        names, frame = records.paths.tolist(), records.frames.tolist()
        return whole | {'frames': images, 'names': names, 'frame': frame}
    return whole | {'image': images[0], 'path': str(records.paths[0]), 'frame': records.frames[0]}


def _bytes(image: Image.Image) -> bytes:
    """The file that an image was opened from; without one, or if it was changed since, a PNG."""
    file = getattr(image, 'filename', '')
    if file:
        return Path(file).read_bytes()
    out = io.BytesIO()
    image.save(out, 'PNG')
    return out.getvalue()


def _fields(message: memoryview) -> Iterator[memoryview]:
    """The contents of a protocol buffer's fields, all of which must have a length before them.

    A field is a byte that tells its number and type, its length in groups of seven bits, the
    lowest first and all but the last with the eighth bit set, and that many bytes.
    """
    place = 0
    while place < len(message):
        length, shift, more = 0, 0, True
        while more:
            place += 1
            length |= (message[place] & 127) << shift
            shift, more = shift + 7, message[place] > 127
        yield message[place + 1 : place + 1 + length]
        place += 1 + length
