"""The pixels of a split, decoded with Pillow whenever they are asked for."""

import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int, UInt8
from PIL import Image

from kd_jax.data.records import DataError, Records, select

MODES = {1: 'L', 3: 'RGB'}
ON_BAD_IMAGE = 'error', 'skip'
FILTERS = {
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'pad': Image.Resampling.BICUBIC,
}
BLOCK = 256  # images decoded between two looks at the clock
SECONDS = 5  # between two lines of progress
# What Pillow raises on files that are damaged or no images.
DAMAGE = OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError


class Pixels(NamedTuple):
    """The images of a split: `read` gives those at some rows, `array` all, or None if streamed."""

    read: Callable[[Int[np.ndarray, 'k']], UInt8[np.ndarray, 'k h w c']]
    array: UInt8[np.ndarray, 'n h w c'] | None


class ImageError(DataError):
    """An image file is damaged or is no image; the message has its path and the cause."""

    def __init__(self, path: str, cause: str):
        remedy = 'replace it, or leave bad images out: --config.data.on_bad_image=skip'
        super().__init__(f'{path}: {cause}; {remedy}')
        self.cause = cause


def decode(
    image: Image.Image, *, height: int, width: int, channels: int, resize: str
) -> UInt8[np.ndarray, 'h w c']:
    """One image as RGB (3 channels) or gray (1) pixels of the given size (`resized`)."""
    if image.mode.startswith('I'):  # 16 bits: convert would clip all but the darkest to white
        deep = np.asarray(image).astype(np.int64)
        image = Image.fromarray((deep >> 8).clip(0, 255).astype(np.uint8))
    if 'transparency' in image.info:  # a palette's; convert to RGB would warn
        image = image.convert('RGBA')
    image = image.convert(MODES[channels])
    if image.size != (width, height):
        image = resized(image, (width, height), resize)
    return np.asarray(image).reshape(height, width, channels)


def resized(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """An image stretched to a width and height, or with 'pad' in its own shape amid black.

    Re-ID code stretches bilinearly. VKD's does bicubically (MARS, DukeMTMC-VideoReID, VeRi-776),
    or pads (any other data); the odd one of the black rows or columns is above or to the left.
    """
    if resize != 'pad':
        return image.resize(size, FILTERS[resize])
    width, height = size
    inner = (  # in whole numbers; VKD's floats lose a pixel of some sizes
        max(1, min(width, image.width * height // image.height)),
        max(1, min(height, image.height * width // image.width)),
    )
    framed = Image.new(image.mode, size)
    left, top = ((outer - side + 1) // 2 for outer, side in zip(size, inner))
    framed.paste(image.resize(inner, FILTERS[resize]), (left, top))
    return framed


def streamed(
    records: Records,
    open: Callable[[str], Image.Image],
    *,
    split: str,
    height: int,
    width: int,
    channels: int,
    resize: str,
    on_bad_image: str = 'error',
) -> tuple[Records, Pixels]:
    """Records and pixels that are decoded on each call, by several threads.

    `on_bad_image='skip'` decodes everything once at first, and leaves bad images out of the
    records. With 'error', a bad image raises ImageError when it is read.
    """
    check(channels, resize, on_bad_image)
    shape = height, width, channels
    one = reader(open, shape, resize)
    if on_bad_image == 'skip':
        bad = sweep(records, one, split, skip=True, store=lambda block: None)
        records = without(records, bad, split, on_bad_image)
    pool = ThreadPoolExecutor()

    def read(rows):
        images = np.empty((len(rows), *shape), np.uint8)
        for place, image in enumerate(pool.map(one, records.paths[rows].tolist())):
            images[place] = image
        return images

    return records, Pixels(read, None)


def check(channels: int, resize: str, on_bad_image: str) -> None:
    """Raises ValueError for settings that are not among the choices."""
    if channels not in MODES:
        raise ValueError(f'channels={channels!r}: choose 3 (RGB) or 1 (gray)')
    if resize not in FILTERS:
        raise ValueError(f'data.resize={resize!r}: choose one of {", ".join(FILTERS)}')
    if on_bad_image not in ON_BAD_IMAGE:
        raise ValueError(f'on_bad_image={on_bad_image!r}: choose one of {", ".join(ON_BAD_IMAGE)}')


def reader(open: Callable[[str], Image.Image], shape: tuple[int, ...], resize: str) -> Callable:
    """A function that decodes the image at a path, its errors naming that path."""
    height, width, channels = shape
    wanted = {'height': height, 'width': width, 'channels': channels, 'resize': resize}

    def one(path: str) -> UInt8[np.ndarray, 'h w c']:
        try:
            with open(path) as image:
                return decode(image, **wanted)
        except DAMAGE as error:
            if getattr(error, 'errno', None):  # missing, forbidden, too many open: not its fault
                raise DataError(f'{path}: {error}') from error
            raise ImageError(path, str(error)) from error

    return one


def sweep(
    records: Records, one: Callable, split: str, *, skip: bool, store: Callable
) -> dict[str, str]:
    """Decodes every image, hands the good ones to `store` by blocks, returns the bad ones' causes.

    Raises ImageError at the first bad image unless told to `skip`.
    """

    def attempt(path):
        try:
            return one(path)
        except ImageError as error:
            if not skip:
                raise
            return error

    paths, bad, began = records.paths.tolist(), {}, time.monotonic()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            images = dict(zip(block, pool.map(attempt, block)))
            good = [image for image in images.values() if not isinstance(image, ImageError)]
            bad |= {path: e.cause for path, e in images.items() if isinstance(e, ImageError)}
            if good:
                store(np.stack(good))
            _report(split, start + len(block), len(paths), time.monotonic() - began)
    return bad


def _report(split: str, done: int, total: int, seconds: float) -> None:
    """Logs how far decoding is every few seconds, and when it is through."""
    speed = done / max(seconds, 1e-9)
    text = '%s: decoded %d of %d images, %.0f images/s, %.0f s left'
    line = text, split, done, total, speed, (total - done) / speed
    if done == total:
        logging.info(*line)
    else:
        logging.log_every_n_seconds(logging.INFO, text, SECONDS, *line[1:])


def without(records: Records, bad: dict[str, str], split: str, on_bad_image: str) -> Records:
    """The records without the bad images, each of which is logged; raises if bad is an error."""
    if not bad:
        return records
    if on_bad_image == 'error':
        raise ImageError(*next(iter(bad.items())))
    for path, cause in bad.items():
        logging.warning('%s: leaving out %s: %s', split, path, cause)
    logging.warning('%s: left out %d of %d images', split, len(bad), len(records.paths))
    return select(records, ~np.isin(records.paths, list(bad)))
