"""Steps timed in turns, so that a noisy machine is noisy for all of them."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Times = dict[str, list[float]]  # name -> seconds a step, one value a turn


class Contender(NamedTuple):
    """A step to be timed: its name, the call, which waits for its end, and what it took to make.

    `seconds` to compile; `bytes` at the peak of a step. None where that is not known.
    """

    name: str
    step: Callable[[], Any]
    seconds: float | None = None
    bytes: int | None = None


def take(contenders: list[Contender], rounds: int, seconds: float) -> Times:
    """Seconds a step in every round, in each of which all take a turn of about `seconds`."""
    steps = {c.name: max(1, round(seconds / _warm(c.step))) for c in contenders}
    times: Times = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for contender in contenders:
            started = time.perf_counter()
            for _ in range(steps[contender.name]):
                contender.step()
            taken = time.perf_counter() - started
            times[contender.name].append(taken / steps[contender.name])
    return times


def ratio(times: Times, of: str, to: str) -> tuple[float, float, float]:
    """How much faster `of` is than `to`: the median over rounds, the least and the most."""
    ratios = sorted(b / a for a, b in zip(times[of], times[to]))
    return median(ratios), ratios[0], ratios[-1]


def median(values: list[float]) -> float:
    """The middle of seconds a step, one value a turn."""
    return statistics.median(values)


class Stopwatch:
    """Seconds that the block under `with` took."""

    def __enter__(self):
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.started


def _warm(step: Callable[[], Any]) -> float:
    """Seconds of the second call; the first may set things up."""
    step()
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
