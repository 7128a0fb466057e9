"""SIGTERM, by which a machine is taken away: a run saves, and ends with a code that says so.

In one process a signal ends it at once, but while it is `deferred`. Of several processes the
coordination service of JAX notes the signal, and all of them stop after the same step.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

RESTART = os.EX_TEMPFAIL  # 75: nothing is wrong; the same command goes on
SIGNALS = signal.SIGTERM, signal.SIGINT


class Preempted(SystemExit):
    """The run was told to stop, and has kept what it can."""

    def __init__(self):
        super().__init__(RESTART)


_deferring = 0  # regions that end in their own time
_noticed = False


def watch() -> None:
    """Stop as `Preempted` on SIGTERM and Ctrl-C from now on; on a second one, at once."""
    if jax.process_count() == 1:
        for number in SIGNALS:
            signal.signal(number, _notice)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it a signal is only noted, for `reached` and `check`."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1


def reached(step: int) -> bool:
    """Whether the run is to stop after this step, in all processes; called after every step."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return _noticed


def check() -> None:
    """Raise `Preempted` where that was asked of this process, which trains alone."""
    if _noticed:
        raise Preempted


def _notice(number: int, frame: FrameType | None) -> None:
    global _noticed
    for one in SIGNALS:
        signal.signal(one, signal.SIG_DFL)
    _noticed = True
    if not _deferring:
        raise Preempted
