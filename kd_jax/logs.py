"""What a run tells while it trains: metrics.jsonl, TensorBoard events and progress lines."""

import collections
import datetime
import itertools
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np
from absl import logging
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from kd_jax import hosts, runs
from kd_jax.clock import Clock

TOTALS = ('loss', 'gradient_norm')  # not finite because one of the others is not


class Window(NamedTuple):
    """The metrics of some steps, on the device until they are told together."""

    steps: list[int]
    metrics: list[dict[str, Any]]

    def ready(self) -> bool:
        """Whether the device has computed them all."""
        return all(value.is_ready() for value in self.metrics[-1].values())


class Log:
    """Collects the metrics of steps without waiting for the device, and tells them in windows.

    What goes into metrics.jsonl depends on nothing but the steps, so that a run that was stopped
    and went on has the same file as one that was not. Of several processes the first writes.
    """

    def __init__(
        self, run: Path, start: int, steps: int, images_per_step: int, evaluated: bool = True
    ):
        """`evaluated`: whether `start`, from which it goes on, is; else it will be."""
        self.run, self.steps, self.images_per_step = run, steps, images_per_step
        self.window, self.ended = Window([], []), collections.deque()
        self.clock, self.watch = Clock(), time.perf_counter()
        runs.rewind_metrics(run, start, evaluated)
        self.file: BinaryIO = _events(run)
        self._event(Event(file_version='brain.Event:2'))
        if start:  # TensorBoard forgets what came after it
            self._event(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, metrics: dict[str, Any], last_good: int | None) -> None:
        """Keep the metrics of a step, and tell those windows that the device has computed.

        Raises as `flush` does.
        """
        for value in metrics.values():
            value.copy_to_host_async()
        self.window.steps.append(step)
        self.window.metrics.append(metrics)
        with self.clock('logging'):
            ready = itertools.takewhile(Window.ready, self.ended)
            self._tell(len([*ready]), last_good)

    def end_window(self) -> None:
        """Have the means since the last window told, once the device has computed them."""
        if self.window.steps:
            self.ended.append(self.window)
            self.window = Window([], [])

    def flush(self, last_good: int | None) -> None:
        """Tell all that was added, which ends a window; waits for the device.

        Raises FloatingPointError naming the first metric that is not finite, its step and
        `last_good`, the step of the last checkpoint.
        """
        self.end_window()
        self.untold(last_good)

    def untold(self, last_good: int | None) -> list[tuple[int, dict[str, float]]]:
        """Tell the windows that ended; the steps of the one that did not. Waits for the device.

        Raises as `flush` does.
        """
        jax.block_until_ready([window.metrics for window in (*self.ended, self.window)])
        with self.clock('logging'):
            self._tell(len(self.ended), last_good)
        return [
            (step, {k: float(v) for k, v in row.items()})
            for step, row in self._rows(self.window, last_good)
        ]

    def resume(self, untold: Sequence[Sequence]) -> None:
        """Start with the steps of a window that did not end, as `untold` gave them."""
        for step, row in untold:
            self.window.steps.append(step)
            self.window.metrics.append({k: np.float32(v) for k, v in row.items()})

    def _rows(self, window: Window, last_good: int | None) -> list[tuple[int, dict]]:
        rows = list(zip(window.steps, jax.device_get(window.metrics)))
        for step, row in rows:
            self._check(step, row, last_good)
        return rows

    def _tell(self, count: int, last_good: int | None) -> None:
        """Tell so many of the windows that ended, all at the speed of their steps together."""
        if count:
            steps = sum(len(window.steps) for window in itertools.islice(self.ended, count))
            speed = steps / max(1e-9, time.perf_counter() - self.watch)
            for _ in range(count):
                self._tell_window(self.ended.popleft(), speed, last_good)
            self.restart_watch()

    def _tell_window(self, window: Window, speed: float, last_good: int | None) -> None:
        rows = self._rows(window, last_good)
        step = rows[-1][0]
        means = {k: float(sum(float(row[k]) for _, row in rows) / len(rows)) for k in rows[0][1]}
        runs.append_metrics(self.run, {'step': step, **means})
        self._scalars(step, {**means, 'images_per_second': speed * self.images_per_step})
        self._progress(step, means, speed)

    def evaluation(self, step: int, found: dict[str, Any]) -> None:
        """Tell the summary of an evaluation; TensorBoard has other rankings by their names."""
        runs.append_metrics(self.run, {'step': step, 'evaluation': found})
        for one in (found, *found['also']):
            place = 'evaluation' if one is found else f'evaluation/{one["protocol"]}'
            numbers = {name: value for name, value in one.items() if isinstance(value, int | float)}
            self._scalars(step, {f'{place}/{name}': value for name, value in numbers.items()})
            text = 'step %d: %s: mAP %.1f, rank-1 %.1f'
            percent = 100 * one[one['quoted']], 100 * one['rank-1']
            logging.info(text, step, one['protocol'], *percent)
        self.restart_watch()

    def restart_watch(self) -> None:
        """Leave what happened until now out of the next images/s."""
        self.watch = time.perf_counter()

    def close(self) -> None:
        """Write what is left of the events."""
        self.file.close()

    def summary(self) -> None:
        """Tell where the time went."""
        logging.info('trained %s', self.clock.text())

    def _check(self, step, row, last_good) -> None:
        for name in sorted(row, key=lambda name: name in TOTALS):
            value = row[name]
            if not math.isfinite(value):
                kept = f'the last good one, of step {last_good}, is in {self.run}/checkpoints'
                raise FloatingPointError(
                    f'{name} is {value} at step {step}; no checkpoint was made of it, '
                    f'{"and there is none yet" if last_good is None else kept}. A lower '
                    'optimizer.learning_rate or a longer optimizer.warmup_epochs may help.'
                )

    def _progress(self, step, means, speed) -> None:
        terms = ' '.join(f'{name} {value:.3f}' for name, value in means.items())
        left = datetime.timedelta(seconds=round((self.steps - step) / speed))
        images = speed * self.images_per_step
        logging.info(
            'step %d/%d, %.0f images/s, %s left: %s', step, self.steps, images, left, terms
        )

    def _scalars(self, step, values) -> None:
        pairs = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._event(Event(step=step, summary=Summary(value=pairs)))

    def _event(self, event) -> None:
        event.wall_time = time.time()
        with runs.writing(self.run / 'events.out.tfevents'):
            RecordWriter(self.file).write(event.SerializeToString())


def _events(run: Path) -> BinaryIO:
    """A new file of events; nowhere, where another process writes them."""
    name = run / f'events.out.tfevents.{time.time_ns()}.kd_jax'
    with runs.writing(name):  # without a buffer, of which closing would try to write the rest again
        return open(name if hosts.is_first() else os.devnull, 'wb', buffering=0)
