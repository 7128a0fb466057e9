"""Checkpoints that are damaged: how they are noticed, and where they are put."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from kd_jax import hosts
from kd_jax.runs import RunError

MACHINE = 'RESOURCE_EXHAUSTED', 'PERMISSION_DENIED', 'Too many open files', 'Permission denied'
ASIDE = 'damaged'  # in a run directory, beside its checkpoints


def checksum(tree: Any) -> int:
    """A number that is another one after any change of a leaf."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), total)
    return total


def told(place: Path | str, error: Exception) -> RunError:
    """The error that a checkpoint is damaged, as another error shows."""
    return RunError(f'{place} is damaged ({first_line(error)})')


def is_of_the_machine(error: Exception) -> bool:
    """Whether an error tells of memory, open files or rights, not of what was read."""
    said = str(error)
    return isinstance(error, MemoryError | PermissionError) or any(of in said for of in MACHINE)


def first_line(error: Exception) -> str:
    """What an error says, cut to a line."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def put_aside(step: Path, cause: RunError) -> None:
    """Move the checkpoint of a step to where it is none, and say why."""
    aside = Path(hosts.of_first(lambda: str(_moved(step))))
    logging.warning('%s; it is now %s', cause, aside)


def check_metrics(checkpoints: Path, put: bool) -> None:
    """Put aside those whose mAP can not be read, without which none can be; or raise RunError."""
    causes = hosts.of_first(lambda: _unreadable(checkpoints))
    for step, cause in causes.items():
        error = RunError(f'{checkpoints / step} is damaged ({cause})')
        if not put:
            raise error
        put_aside(checkpoints / step, error)


def _unreadable(checkpoints: Path) -> dict[str, str]:
    found = {}
    for path in sorted(checkpoints.glob('*/metrics/metrics')):
        try:
            float(json.loads(path.read_bytes())['mAP'])
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
