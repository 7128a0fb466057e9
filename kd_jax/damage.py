"""Checkpoints that are damaged: how they are noticed, and where they are put."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from kd_jax import hosts
from kd_jax.runs import RunError

MACHINE = 'RESOURCE_EXHAUSTED', 'PERMISSION_DENIED', 'Too many open files', 'Permission denied'
MACHINE += 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'Stale file handle', 'Input/output error'
ASIDE = 'damaged'  # in a run directory, beside its checkpoints


class Damaged(RunError):
    """A checkpoint can not be read: its directory `place`, the `cause`, and what to do."""

    def __init__(self, place: Path | str, cause: str, remedy: str = ''):
        super().__init__(f'{place} is damaged ({cause}){remedy}')
        self.place, self.cause = Path(place), cause


def checksum(tree: Any) -> int:
    """A number that is another one after any change of a leaf."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), total)
    return total


@contextlib.contextmanager
def reading(place: Path | str) -> Iterator[None]:
    """Damaged for what orbax, tensorstore, zstd or JSON raise within, but for the machine's."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if is_of_the_machine(error):
            raise
        raise Damaged(place, first_line(error)) from error


def is_of_the_machine(error: Exception) -> bool:
    """Whether an error tells of memory, open files, rights or a disk, not of what was read."""
    said = str(error)
    return isinstance(error, MemoryError | PermissionError) or any(of in said for of in MACHINE)


def first_line(error: Exception) -> str:
    """What an error says, cut to a line, without the settings that tensorstore adds to it."""
    return (str(error).strip() or repr(error)).splitlines()[0].partition(' [tensorstore_spec=')[0]


def put_aside(step: Path, cause: RunError) -> None:
    """Move the checkpoint of a step to where it is none, and say why."""
    aside = Path(hosts.of_first(lambda: str(_moved(step))))
    logging.warning('%s; it is now %s', cause, aside)


def check_metrics(checkpoints: Path, put: bool) -> None:
    """Put aside those whose mAP can not be read, without which none can be; or raise RunError."""
    causes = hosts.of_first(lambda: _unreadable(checkpoints))
    for step, cause in causes.items():
        error = Damaged(checkpoints / step, cause)
        if not put:
            raise error
        put_aside(checkpoints / step, error)


def _unreadable(checkpoints: Path) -> dict[str, str]:
    found = {}
    for path in sorted(checkpoints.glob('*/metrics/metrics')):
        if not path.parents[1].name.isdigit():  # it is being written, or was when it was killed
            continue
        try:
            float(json.loads(path.read_bytes())['mAP'])
        except FileNotFoundError:  # whoever trains there has just dropped it
            continue
        except (ValueError, KeyError, TypeError) as error:
            found[path.parents[1].name] = f'{path.name}: {first_line(error)}'
    return found


def _moved(step: Path) -> Path:
    home = step.parents[1] / ASIDE
    aside, number = home / step.name, 1
    while aside.exists():
        aside, number = home / f'{step.name}_{number}', number + 1
    home.mkdir(exist_ok=True)
    os.replace(step, aside)
    return aside
