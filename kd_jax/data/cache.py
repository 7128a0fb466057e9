"""The pixels of a split decoded once, into a file that later runs map into memory."""

import contextlib
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from absl import logging
from PIL import Image

from kd_jax.data.images import Pixels, check, reader, sweep, without
from kd_jax.data.records import DataError, Records, files_of, fingerprint, stamp_of

HOST = platform.node().replace('.', '_')
DECODER = 1  # part of a cache's name: count up when `images.decode` gives other pixels


def cached(
    records: Records,
    open: Callable[[str], Image.Image],
    *,
    split: str,
    home: Path | None,
    cache_dir: str = '',
    height: int,
    width: int,
    channels: int,
    resize: str,
    on_bad_image: str = 'error',
    stamp: Callable[[Records], str] | None = None,
) -> tuple[Records, Pixels]:
    """Records and pixels that are decoded once, into a file that later runs map into memory.

    The file is `split`-KEY.npy in `cache_dir` or else `home`/.kd_jax, where KEY changes with the
    images' names, the `stamp` of what is behind them (by default their files' sizes and times),
    the shape and `resize`. Without a folder for the file the pixels stay in memory. Raises
    ImageError for the first bad image, or leaves them all out with `on_bad_image='skip'`; DataError
    if the cache cannot be written.
    """
    check(channels, resize, on_bad_image)
    shape = height, width, channels
    one = reader(open, shape, resize)
    decode_all = partial(sweep, records, one, split, skip=on_bad_image == 'skip')
    if home is None and not (cache_dir and stamp):
        blocks = [np.empty((0, *shape), np.uint8)]
        bad = decode_all(store=blocks.append)
        array = np.concatenate(blocks)
    else:
        folder = Path(cache_dir).expanduser() if cache_dir else home / '.kd_jax'
        stamped = stamp(records) if stamp else stamp_of(home / path for path in files_of(records))
        paths = '\n'.join(records.paths.tolist())
        key = fingerprint(paths, stamped, *shape, resize, DECODER)
        file = folder / f'{split}-{key}.npy'
        _clean(folder)
        array, bad = _load(file) or _write(file, len(records.paths), shape, decode_all)
    records = without(records, bad, split, on_bad_image)
    return records, Pixels(lambda rows: array[rows], array)


def _load(file: Path) -> tuple[np.ndarray, dict[str, str]] | None:
    """The pixels of a cache, and the causes of the images it is without; None without a cache."""
    try:
        bad = json.loads(file.with_suffix('.json').read_text())
        return np.asarray(np.load(file, mmap_mode='r')), bad  # np.memmap itself indexes slowly
    except (OSError, ValueError, EOFError):
        return None


def _write(file: Path, count: int, shape: tuple[int, ...], decode_all: Callable) -> tuple:
    """Decodes `count` images into a cache that has its name only once it is whole, and loads it."""
    part = file.with_name(f'{file.name}.{HOST}-{os.getpid()}.kd_jax')
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _check_room(file, count * math.prod(shape))
        with part.open('wb') as out:
            _write_header(out, count, shape)
            bad = decode_all(store=out.write)
            out.seek(0)
            _write_header(out, count - len(bad), shape)
            out.flush()
            os.fsync(out.fileno())  # else a machine that goes away may leave zeros below the name
        file.with_suffix('.json').write_text(json.dumps(bad, indent=1))
        part.replace(file)
        return _load(file)
    except OSError as error:
        raise DataError(
            f'{file.parent}: cannot hold the decoded images ({error}); set '
            '--config.data.cache_dir=DIR to a folder that can, or --config.data.feed=stream'
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _check_room(file: Path, size: int) -> None:
    """Raises OSError where there is less room than a cache needs, and tells its size."""
    free = shutil.disk_usage(file.parent).free
    if size > free:
        raise OSError(f'{size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB free')
    logging.info('decoding into %s, %.1f GB', file, size / 1e9)


def _write_header(out: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """The head of a .npy file; NumPy pads it so that its length is the same for any count."""
    head = {'descr': '|u1', 'fortran_order': False, 'shape': (count, *shape)}
    np.lib.format.write_array_header_1_0(out, head)


def _clean(folder: Path) -> None:
    """Deletes what killed runs left half-written in a folder of caches."""
    for part in folder.glob('*.npy.*-*.kd_jax'):
        with contextlib.suppress(OSError):  # another run cleans too, or the folder is read-only
            if _abandoned(part):
                part.unlink()


def _abandoned(part: Path) -> bool:
    """Whether nobody writes this file now: its process is dead, or elsewhere and idle for a day."""
    host, _, process = part.stem.rpartition('.')[2].rpartition('-')
    if host != HOST:
        return time.time() - part.stat().st_mtime > 24 * 3600
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    return int(process) == os.getpid()  # an earlier process's number: this one has begun nothing
