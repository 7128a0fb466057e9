"""SIGTERM, by which a machine is taken away: a run saves, and ends with a code that says so.

In one process a signal ends it at once, but while it is `deferred`. Of several processes the
coordination service of JAX notes SIGTERM, and all of them stop after the same step, or the same
batch of an evaluation.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

RESTART = os.EX_TEMPFAIL  # 75: nothing is wrong; the same command goes on
CODES = {signal.SIGTERM: RESTART, signal.SIGINT: 130}  # who pressed Ctrl-C wants no restart


class Preempted(SystemExit):
    """The run was told to stop, and has kept what it can."""


_deferring = 0  # regions that end in their own time
_told = 0  # the exit code, once a signal came
_asked = 0  # how often `reached` was called, in step with all processes


def watch() -> None:
    """Stop as `Preempted` on SIGTERM and Ctrl-C from now on; on a second one, at once."""
    for number in CODES:
        signal.signal(number, _notice)


def unwatch() -> None:
    """End at once on either: while others are waited for, and of several processes on Ctrl-C.

    Of several processes JAX takes SIGTERM from then on.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it a signal is only noted, for `reached` and `check`."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1


def reached() -> bool:
    """Whether the run is to stop now, in all processes, which ask it equally often.

    They ask after every step, and after every batch that is embedded.

    What JAX is asked are no steps: they start anew with every network and every start, and its
    answer is True once, at the number behind the largest that it was asked before.
    """
    global _asked, _told
    if jax.process_count() > 1 and not _told:
        _asked += 1
        if multihost_utils.reached_preemption_sync_point(_asked):
            _told = RESTART
    return bool(_told)


def check() -> None:
    """Raise `Preempted` where that was asked; in several processes, where `reached` said so."""
    if _told:
        raise Preempted(_told)


def _notice(number: int, frame: FrameType | None) -> None:
    global _told
    for one in CODES:
        signal.signal(one, signal.SIG_DFL)
    _told = CODES[number]
    if not _deferring:
        raise Preempted(_told)
