"""Folders that may be remote (gs://): what differs there from local ones."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from absl import logging
from etils import epath

from kd_jax.data.images import SECONDS
from kd_jax.data.records import DataError


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is one that only `epath` opens, and no local one."""
    return '://' in os.fspath(path)


def transfer(here: epath.Path, there: epath.Path) -> None:
    """Copies one file, of which either may be remote."""
    with here.open('rb') as source, there.open('wb') as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def fetched(folder: epath.Path, sizes: Mapping[str, int], cache: Path) -> Path:
    """The local folder `cache` with copies of the named files of a remote folder.

    Those that are there are not copied again. `sizes` are in bytes. Raises DataError if a file
    cannot be copied whole.
    """
    missing = [name for name in sizes if not (cache / name).exists()]
    began, done, total = time.monotonic(), 0, sum(sizes[name] for name in missing)
    for name in missing:
        _fetch(folder / name, cache / name, sizes[name])
        done += sizes[name]
        speed = done / max(time.monotonic() - began, 1e-9)
        text = 'copied %d of %d MB from %s, %.0f MB/s, %.0f s left'
        line = done >> 20, total >> 20, folder, speed / 2**20, (total - done) / max(speed, 1)
        if done == total:
            logging.info(text, *line)
        else:
            logging.log_every_n_seconds(logging.INFO, text, SECONDS, *line)
    return cache


def _fetch(there: epath.Path, here: Path, size: int) -> None:
    """Copies a file, which gets its name only once it is whole."""
    part = here.with_name(f'{here.name}.{os.getpid()}')
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        transfer(there, epath.Path(part))
        found = part.stat().st_size
        if found != size:
            raise DataError(f'{there}: has {found:,} bytes, not {size:,}; prepare it again')
        part.replace(here)
    except OSError as error:
        raise DataError(f'{there}: cannot be copied to {here.parent} ({error})') from error
    finally:
        part.unlink(missing_ok=True)
