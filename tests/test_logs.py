import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.errors import OutOfRangeError
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

from kd_jax.logs import Log
from kd_jax.runs import RunError


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path, start=0, steps=8, images_per_step=4)
    yield log
    log.close()


def add(log, step, **metrics):
    log.add(step, {name: jnp.float32(value) for name, value in metrics.items()}, None)


def events(run):
    """The events of all files of a run, each checked against its checksum."""
    for path in sorted(run.glob('events.out.tfevents.*')):
        reader = PyRecordReader_New(str(path))
        while True:
            try:
                reader.GetNext()
            except OutOfRangeError:
                break
            yield Event.FromString(reader.record())


def scalars(run):
    found = (event for event in events(run) if event.HasField('summary'))
    return {(e.step, v.tag): v.simple_value for e in found for v in e.summary.value}


def test_a_row_is_the_mean_of_the_steps_since_the_last(tmp_path, log):
    add(log, 1, loss=1.0, term=4.0)
    add(log, 2, loss=3.0, term=8.0)
    log.flush(None)
    add(log, 3, loss=10.0, term=0.5)
    log.flush(2)
    assert smoke.rows(tmp_path) == [
        {'step': 2, 'loss': 2.0, 'term': 6.0},
        {'step': 3, 'loss': 10.0, 'term': 0.5},
    ]


def test_nothing_is_told_of_no_steps(tmp_path, log):
    log.flush(None)
    add(log, 1, loss=1.0)
    log.flush(None)
    log.flush(None)
    assert len(smoke.rows(tmp_path)) == 1


def test_events_are_the_rows_and_the_speed(tmp_path, log):
    add(log, 2, loss=0.1)
    log.flush(None)
    other = {'protocol': 'i2v', 'quoted': 'mAP', 'mAP': 0.125, 'rank-1': 0.75}
    told = {'protocol': 'market', 'quoted': 'mAP', 'mAP': 0.25, 'rank-1': 0.5, 'also': [other]}
    log.evaluation(2, told)
    found = scalars(tmp_path)
    assert found.pop((2, 'images_per_second')) > 0
    assert found == {
        (2, 'loss'): np.float32(0.1),
        (2, 'evaluation/mAP'): 0.25,
        (2, 'evaluation/rank-1'): 0.5,
        (2, 'evaluation/i2v/mAP'): 0.125,
        (2, 'evaluation/i2v/rank-1'): 0.75,
    }
    assert smoke.rows(tmp_path)[1] == {'step': 2, 'evaluation': told}


def test_who_goes_on_forgets_what_came_after_the_checkpoint(tmp_path, log):
    for step in (2, 4):
        add(log, step, loss=step)
        log.flush(None)
    log.close()
    Log(tmp_path, start=2, steps=8, images_per_step=4).close()
    assert [row['step'] for row in smoke.rows(tmp_path)] == [2]
    *_, last = events(tmp_path)
    assert (last.session_log.status, last.step) == (SessionLog.START, 3)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_the_metric_and_the_step_that_are_not_finite_are_named(tmp_path, log, bad):
    for step, value in ((5, 1.0), (6, bad), (7, np.nan)):
        add(log, step, accuracy=0.5, gradient_norm=value, loss=value, triplet=value)
    message = f'triplet is {bad} at step 6; .* of step 4, is in {tmp_path}/checkpoints'
    with pytest.raises(FloatingPointError, match=message):
        log.flush(4)
    assert smoke.rows(tmp_path) == []


def test_without_a_checkpoint_none_is_named(tmp_path, log):
    add(log, 1, loss=np.nan)
    with pytest.raises(FloatingPointError, match=r'loss is nan at step 1; .* there is none yet'):
        log.flush(None)


def test_progress_tells_step_and_terms(log, caplog):
    caplog.set_level('INFO')
    add(log, 2, loss=0.5, identity=0.25)
    log.flush(None)
    assert re.search(r'step 2/8, \d+ images/s, \d+:\d\d:\d\d left: ', caplog.text)
    assert 'loss 0.500' in caplog.text
    assert 'identity 0.250' in caplog.text


class Late:
    """A metric that the device has not computed yet."""

    def __init__(self, value):
        self.value, self.ready, self.copied = value, False, False

    def copy_to_host_async(self):
        self.copied = True

    def is_ready(self):
        return self.ready

    def __array__(self, dtype=None, copy=None):
        assert self.ready, 'the step was waited for'
        return np.asarray(self.value, dtype)


def test_a_window_is_told_once_the_device_has_computed_it(tmp_path, log):
    first, second, third = (Late(np.float32(step)) for step in (1, 2, 3))
    log.add(1, {'loss': first}, None)
    log.end_window()
    log.add(2, {'loss': second}, None)
    assert smoke.rows(tmp_path) == []
    assert first.copied
    first.ready = True
    log.add(3, {'loss': third}, None)  # nothing waits for steps 2 and 3
    assert smoke.rows(tmp_path) == [{'step': 1, 'loss': 1.0}]
    second.ready = third.ready = True
    log.flush(None)
    assert smoke.rows(tmp_path)[1:] == [{'step': 3, 'loss': 2.5}]


def test_windows_that_are_told_together_have_one_speed(tmp_path, log):
    steps = [Late(np.float32(step)) for step in range(1, 5)]
    for number, step in enumerate(steps, 1):
        log.add(number, {'loss': step}, None)
        log.end_window()
    log.watch -= 100
    for step in steps:
        step.ready = True
    log.flush(None)
    speeds = [scalars(tmp_path)[number, 'images_per_second'] for number in range(1, 5)]
    assert speeds == pytest.approx([4 * 4 / 100] * 4, rel=0.1)


def test_events_that_can_not_be_written_are_told_with_their_file(tmp_path, log):
    log.file.close()
    log.file = open('/dev/full', 'wb', buffering=0)  # noqa: SIM115, the log closes it
    add(log, 1, loss=0.5)
    message = rf'{tmp_path}/events\.out\.tfevents can not be written \(No space left'
    with pytest.raises(RunError, match=message):
        log.flush(None)
    log.close()  # and says nothing else


def test_who_goes_on_tells_the_mean_of_a_window_that_was_cut(tmp_path, log):
    """As if it had not been: in float32, whatever file they were kept in."""
    values = {1: 0.1, 2: 0.7, 3: 1 / 3}
    for step, value in values.items():
        add(log, step, loss=value)
    log.flush(None)
    add(log, 1, loss=values[1])
    add(log, 2, loss=values[2])
    untold = json.loads(json.dumps(log.untold(None)))
    assert len(smoke.rows(tmp_path)) == 1
    (tmp_path / 'again').mkdir()
    again = Log(tmp_path / 'again', start=2, steps=8, images_per_step=4)
    again.resume(untold)
    add(again, 3, loss=values[3])
    again.flush(None)
    again.close()
    assert smoke.rows(tmp_path / 'again') == smoke.rows(tmp_path)


def test_what_is_not_finite_is_not_kept_for_later(log):
    add(log, 1, loss=np.nan)
    with pytest.raises(FloatingPointError, match='loss is nan at step 1'):
        log.untold(None)
