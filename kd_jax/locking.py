"""A run directory is trained in by one process at a time, or by the processes of one run."""

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from kd_jax.runs import RunError

FILE = '.lock'


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold a run directory, which a killed process lets go of; RunError where another holds it.

    Where files can not be locked, as on some network file systems, that is logged.
    """
    with open(run / FILE, 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f'{run} is being trained by {holder(run)}: wait for it, or give another --workdir'
            ) from None
        except OSError as error:
            logging.warning('%s can not be locked (%s): train in it once at a time', run, error)
        _sign(file, f'process {os.getpid()} on {socket.gethostname()} since {_now()}')
        try:
            yield
        finally:
            _sign(file, '')


def holder(run: Path) -> str:
    """Who trains in a run directory now, '' for nobody."""
    try:
        with open(run / FILE) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (run / FILE).read_text() or 'another process'
    except OSError:  # there is none, or files can not be locked there
        return ''
    return ''


def _sign(file, text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk; who holds it is told without a name then
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), text.encode())


def _now() -> str:
    return datetime.datetime.now().strftime('%Y-%m-%d %H:%M')
