"""What a run tells while it trains: metrics.jsonl, TensorBoard events and progress lines."""

import datetime
import math
import time
from pathlib import Path
from typing import Any, BinaryIO

import jax
from absl import logging
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from kd_jax import runs

TOTALS = ('loss', 'gradient_norm')  # not finite because one of the others is not


class Log:
    """Collects the metrics of steps without waiting for the device, and tells them in windows.

    What goes into metrics.jsonl depends on nothing but the steps, so that a run that was stopped
    and went on has the same file as one that was not.
    """

    def __init__(self, run: Path, start: int, steps: int, images_per_step: int):
        self.run, self.steps, self.images_per_step = run, steps, images_per_step
        self.pending: list[tuple[int, dict[str, jax.Array]]] = []
        self.clock = time.perf_counter()
        runs.rewind_metrics(run, start)
        events = run / f'events.out.tfevents.{time.time_ns()}.kd_jax'
        self.file: BinaryIO = open(events, 'wb')  # noqa: SIM115, closed by close()
        self._event(Event(file_version='brain.Event:2'))
        if start:  # TensorBoard forgets what came after it
            self._event(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Keep the metrics of a step until the next `flush`."""
        self.pending.append((step, metrics))

    def flush(self, last_good: int | None) -> None:
        """Tell the means since the last flush.

        Raises FloatingPointError naming the first metric that is not finite, its step and
        `last_good`, the step of the last checkpoint.
        """
        if not self.pending:
            return
        rows = [(step, jax.device_get(metrics)) for step, metrics in self.pending]
        self.pending = []
        for step, row in rows:
            self._check(step, row, last_good)
        step = rows[-1][0]
        means = {k: float(sum(float(row[k]) for _, row in rows) / len(rows)) for k in rows[0][1]}
        runs.append_metrics(self.run, {'step': step, **means})
        speed = len(rows) / max(1e-9, time.perf_counter() - self.clock)
        self._scalars(step, {**means, 'images_per_second': speed * self.images_per_step})
        self._progress(step, means, speed)
        self.restart_clock()

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
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave what happened until now out of the next images/s."""
        self.clock = time.perf_counter()

    def close(self) -> None:
        """Write what is left of the events."""
        self.file.close()

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
        RecordWriter(self.file).write(event.SerializeToString())
        self.file.flush()
