"""Several processes as one run: how they find each other, agree, and which of them writes."""

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from kd_jax.runs import RunError

PIECE = 2**10  # bytes; texts are exchanged in few lengths, as each is compiled for
# Where a launcher says of how many processes this is one, and which.
LAUNCHERS = {
    'SLURM_STEP_NUM_TASKS': 'SLURM_PROCID',
    'OMPI_COMM_WORLD_SIZE': 'OMPI_COMM_WORLD_RANK',
    'PMI_SIZE': 'PMI_RANK',
}


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Make this process one of several that train together, before JAX is used.

    Without arguments they are found as the launcher tells (TPU pods, SLURM, Open MPI, Kubernetes);
    where nothing tells of others, this process is alone. Raises ValueError for arguments that are
    not whole, RunError where the others are not found.
    """
    given = coordinator, num_processes, process_id
    _check(*given)
    if num_processes == 1 or (given == (None,) * 3 and _launched()[0] == 1):
        return
    try:
        jax.distributed.initialize(*given)
    except ValueError as error:
        if 'coordinator_address should be defined' not in str(error):
            raise
        if _launched()[0] > 1:
            raise RunError(_unfound()) from error
        return
    except RuntimeError as error:
        raise RunError(f'the other processes were not found: {error}') from error
    if jax.process_count() < _launched()[0] and given == (None,) * 3:
        raise RunError(_unfound())
    _tell()


def _tell() -> None:
    """Log which process this is and what it has; from then on the first tells of the run."""
    own = ', '.join(map(str, jax.local_devices()))
    logging.info(
        'process %d of %d on %s: its devices are %s; %d in all',
        jax.process_index(),
        jax.process_count(),
        socket.gethostname(),
        own,
        jax.device_count(),
    )
    if not is_first():
        logging.set_verbosity(logging.WARNING)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All processes go on behind it or none: what is raised in one, all raise, naming it."""
    if jax.process_count() == 1:
        yield
        return
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    said = '' if failure is None else str(failure) or repr(failure)
    texts = _exchanged(said)
    if failure is not None:
        raise failure
    for number, text in enumerate(texts):
        if text:
            raise RunError(f'process {number} of {len(texts)}: {text}')


def of_first(function: Callable[[], Any]) -> Any:
    """What the first process finds, as JSON tells it, or raises, on all of them."""
    if jax.process_count() == 1:
        return function()
    found = None
    with together():
        if is_first():
            found = function()
    return json.loads(_exchanged(json.dumps(found))[0])


def in_turn(function: Callable[[], Any]) -> Any:
    """What each process finds, the others after the first, which may leave them its work."""
    found = None
    for turn in (True, False):
        with together():
            if is_first() is turn:
                found = function()
    return found


def are_several() -> bool:
    """Whether this is one of several processes; asked before JAX is used, it is not."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leave(text: str) -> NoReturn:
    """End this process at once with a text and code 1; the others, who miss it, stop too."""
    sys.stderr.write(f'process {jax.process_index()}: {text}')
    sys.stderr.flush()
    os._exit(1)  # an orderly end waits minutes for the others, who wait for this one


def _exchanged(text: str) -> list[str]:
    """What every process says."""
    said = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(said)))
    filled = np.zeros(-(-max(lengths.max(), 1) // PIECE) * PIECE, np.uint8)
    filled[: len(said)] = said
    rows = multihost_utils.process_allgather(filled)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths)]


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if num_processes == 1:
        return
    given = coordinator, num_processes, process_id
    if None in given and given != (None,) * 3:
        raise ValueError(
            'give --coordinator=HOST:PORT, --num_processes and --process_id together, or none of '
            'them where the launcher tells (TPU pods, SLURM, Open MPI)'
        )
    if coordinator is not None and not coordinator.rpartition(':')[2].isdigit():
        raise ValueError(f'--coordinator={coordinator}: give HOST:PORT, as in 10.0.0.1:1234')
    if num_processes is not None and num_processes < 1:
        raise ValueError(f'--num_processes={num_processes}: at least 1')
    if process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(
            f'--process_id={process_id}: of --num_processes={num_processes} it is one from 0 to '
            f'{num_processes - 1}'
        )


def _launched() -> tuple[int, str, str]:
    """How many processes a launcher says it started, 0 where none says so, and by which variables.

    An mpirun within a SLURM job tells of more than SLURM does.
    """
    told = [(size, rank) for size, rank in LAUNCHERS.items() if {size, rank} <= os.environ.keys()]
    return max([(int(os.environ[size]), size, rank) for size, rank in told], default=(0, '', ''))


def _unfound() -> str:
    count, size, rank = _launched()
    return (
        f'this is one of {count} processes ({size}), but their coordinator is not '
        f'found: give --coordinator=HOST:PORT --num_processes=${size} --process_id=${rank}, or '
        '--num_processes=1 to train alone'
    )
