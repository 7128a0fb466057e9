"""What a run survives: signals, a full disk, damaged checkpoints, another process in its place."""

import os
import shutil
import signal

import jax
import numpy as np
import pytest
import smoke

from kd_jax import checkpoints, embedding, locking, logs, preemption, runs, scoring, train
from kd_jax.runs import RunError

NAME = 'supervised_carousel'


@pytest.fixture
def watched(monkeypatch):
    """Signals stop a run, as on the command line; afterwards all is as it was."""
    before = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    monkeypatch.setattr(preemption, '_noticed', False)
    preemption.watch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def unfinished(where, last=8):
    """A copy of a smoke run whose checkpoints end with a step, without its result."""
    run = smoke.copy(smoke.finished(NAME), where)
    (run / 'result.json').unlink()
    for step in steps_of(run):
        if step > last:
            shutil.rmtree(run / f'checkpoints/{step}')
    return run


def steps_of(run):
    return sorted(int(path.name) for path in (run / 'checkpoints').iterdir() if path.name.isdigit())


def assert_same_end(run):
    """The run ended bit by bit as one that nothing happened to."""
    whole = smoke.finished(NAME)
    assert (run / 'metrics.jsonl').read_bytes() == (whole / 'metrics.jsonl').read_bytes()
    assert smoke.result(run) == smoke.result(whole)
    for which in checkpoints.WHICH:
        found, wanted = (checkpoints.restore_network(one, which) for one in (run, whole))
        assert found.step == wanted.step
        for x, y in zip(*(jax.tree.leaves(one.variables) for one in (found, wanted))):
            np.testing.assert_array_equal(x, y)


def stopped_by(monkeypatch, where, name, number=signal.SIGTERM, count=1):
    """Send this process a signal when a function is called for the n-th time."""
    function, calls = getattr(where, name), []

    def called(*given, **options):
        calls.append(name)
        if len(calls) == count:
            signal.raise_signal(number)
        return function(*given, **options)

    monkeypatch.setattr(where, name, called)


# Signals that ask to stop.


@pytest.mark.parametrize(
    ('where', 'name', 'count', 'saved'),
    [
        (logs.Log, 'add', 1, 1),  # in the middle of a window of metrics
        (logs.Log, 'add', 6, 6),  # at a step that is saved anyway
        (embedding, 'batches', 1, 4),  # while step 4 is scored
        (checkpoints, 'save', 2, 4),  # while it is saved
    ],
)
def test_a_run_that_is_told_to_stop_saves_and_goes_on(
    tmp_path, monkeypatch, watched, where, name, count, saved
):
    with monkeypatch.context() as patched:
        stopped_by(patched, where, name, count=count)
        with pytest.raises(preemption.Preempted) as stopped:
            train.run(smoke.config(NAME), tmp_path)
    assert stopped.value.code == 75
    assert steps_of(tmp_path)[-1] == saved
    assert not (tmp_path / 'result.json').exists()
    monkeypatch.setattr(preemption, '_noticed', False)
    train.run(smoke.config(NAME), tmp_path)
    assert_same_end(tmp_path)


def test_before_there_is_anything_to_save_it_stops_at_once(tmp_path, monkeypatch, watched):
    stopped_by(monkeypatch, train.assembly, 'ready', signal.SIGINT)
    with pytest.raises(preemption.Preempted):
        train.run(smoke.config(NAME), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_told_at_its_last_step_it_ends(tmp_path, monkeypatch, watched):
    run = unfinished(tmp_path / 'run', last=6)
    stopped_by(monkeypatch, logs.Log, 'add', count=2)
    with pytest.raises(preemption.Preempted):  # while it is scored: it is step 8
        train.run(smoke.config(NAME), run)
    assert steps_of(run)[-1] == 8


def test_a_second_signal_is_not_held_back(watched):
    with preemption.deferred():
        signal.raise_signal(signal.SIGINT)
        assert preemption.reached(1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(preemption.Preempted):
        preemption.check()


def test_the_exit_code_says_start_me_again(tmp_path):
    """On the command line, and the same command goes on to the same end."""
    code = f"""
import signal, sys
from kd_jax import logs, main
add = logs.Log.add
def told(self, step, *rest):
    add(self, step, *rest)
    if step == 3:
        signal.raise_signal(signal.SIGTERM)
if {{}}:
    logs.Log.add = told
sys.argv = ['kd_jax', '--config=configs/{NAME}.py:smoke', '--workdir={tmp_path}/run']
main.main()
"""
    for told, expected in ((True, preemption.RESTART), (False, 0)):
        ((found, _, errors),) = smoke.ended(smoke.python('-c', code.format(told)))
        assert found == expected, errors
        assert 'Traceback' not in errors
        assert ('saved step 3; the same command goes on' in errors) is told
    assert_same_end(tmp_path / 'run')


# A disk that is full.


def test_a_disk_that_is_full_is_told_and_loses_nothing(tmp_path):
    """No file may get larger than some bytes: what is written fails, in whatever language."""
    run = unfinished(tmp_path / 'run', last=6)
    kept = smoke.files(run / 'checkpoints/6')
    code = f"""
import resource, sys
from kd_jax import main
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
sys.argv = ['kd_jax', '--config=configs/{NAME}.py:smoke', '--workdir={run}']
main.main()
"""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '1000')  # writes nothing there
        ((found, _, errors),) = smoke.ended(smoke.python('-c', code))
    assert found == 1, errors
    assert f'kd_jax: {run}/checkpoints: a checkpoint could not be written (' in errors
    assert 'start again: it goes on from the last one that was' in errors
    assert steps_of(run) == [6]
    assert smoke.files(run / 'checkpoints/6') == kept
    assert not (run / 'result.json').exists()
    train.run(smoke.config(NAME), run)
    assert_same_end(run)


# Checkpoints that are damaged.


def largest(step):
    """The file of a checkpoint that has most of the student's numbers."""
    return max((step / 'student/ocdbt.process_0/d').iterdir(), key=lambda path: path.stat().st_size)


def flip(step):
    """One bit, in the middle of numbers that are stored as they are."""
    content = bytearray(largest(step).read_bytes())
    content[len(content) // 2] ^= 1
    largest(step).write_bytes(content)


DAMAGES = {
    'truncated': lambda step: os.truncate(largest(step), largest(step).stat().st_size // 2),
    'flipped': flip,
    'empty': lambda step: (step / 'training/manifest.ocdbt').write_bytes(b''),
    'no notes': lambda step: shutil.rmtree(step / 'notes'),
    'no item': lambda step: shutil.rmtree(step / 'training'),
    'no JSON': lambda step: (step / 'student/_METADATA').write_text('{'),
    'no metrics': lambda step: (step / 'metrics/metrics').write_text('{"mAP":'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, damage, caplog):
    run = unfinished(tmp_path / 'run')
    DAMAGES[damage](run / 'checkpoints/8')
    caplog.set_level('INFO')
    train.run(smoke.config(NAME), run)
    assert f'{run}/checkpoints/8 is damaged' in caplog.text
    assert f'it is now {run}/damaged/8' in caplog.text
    assert 'going on from the checkpoint of step 6' in caplog.text
    assert (run / 'damaged/8').is_dir()
    assert_same_end(run)


def test_where_none_can_be_read_nothing_is_moved(tmp_path):
    run = unfinished(tmp_path / 'run')
    for step in steps_of(run):
        DAMAGES['truncated'](run / f'checkpoints/{step}')
    before = smoke.files(run / 'checkpoints')
    with pytest.raises(RunError, match=f'{run}/checkpoints/8 is damaged'):
        train.run(smoke.config(NAME), run)
    assert smoke.files(run / 'checkpoints') == before


@pytest.mark.parametrize('damage', sorted(DAMAGES.keys() - {'no item', 'empty'}))
def test_a_network_is_not_restored_from_a_damaged_checkpoint(tmp_path, damage):
    run = smoke.copy(smoke.finished(NAME), tmp_path / 'run')
    DAMAGES[damage](run / 'checkpoints/8')
    with pytest.raises(RunError, match=f'{run}/checkpoints/8 is damaged'):
        checkpoints.restore_network(run)


# Others in the same place.


def test_a_second_process_in_a_run_directory_stops(tmp_path):
    run = unfinished(tmp_path / 'run')
    before = smoke.files(run)
    with locking.held(run):
        who = rf'process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d'
        with pytest.raises(RunError, match=f'{run} is being trained by {who}: wait'):
            train.run(smoke.config(NAME), run)
        assert locking.holder(run).startswith(f'process {os.getpid()} on ')
    assert smoke.files(run) == before
    assert locking.holder(run) == ''


def test_who_is_killed_holds_nothing(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from kd_jax import locking
with locking.held(Path('{tmp_path}')):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ((found, _, errors),) = smoke.ended(smoke.python('-c', code))
    assert found == -signal.SIGKILL, errors
    assert (tmp_path / '.lock').read_text()
    assert locking.holder(tmp_path) == ''
    with locking.held(tmp_path):
        assert locking.holder(tmp_path)


def test_where_files_can_not_be_locked_it_is_said(tmp_path, monkeypatch, caplog):
    def refused(*_):
        raise OSError(95, 'Operation not supported')

    monkeypatch.setattr(locking.fcntl, 'flock', refused)
    with locking.held(tmp_path):
        assert f'{tmp_path} can not be locked' in caplog.text
        assert locking.holder(tmp_path) == ''


def test_a_teacher_that_is_still_training_is_told(tmp_path):
    teacher = unfinished(tmp_path / 'teacher')
    config = smoke.config()
    config.teachers = {'teacher': str(teacher)}
    config.method.teacher_reads = 'mean'
    with locking.held(teacher):
        message = f'teacher: {teacher} is still trained by process {os.getpid()} on .*wait'
        with pytest.raises(RunError, match=message):
            train.run(config, tmp_path / 'run')
    with pytest.raises(RunError, match=f'teacher: {teacher} is not finished'):
        train.run(config, tmp_path / 'run')


def test_a_step_is_scored_once(tmp_path, monkeypatch, watched):
    """Stopped after a step was scored and saved, the next start does not score it again."""
    with monkeypatch.context() as patched:
        stopped_by(patched, checkpoints, 'save', count=2)
        with pytest.raises(preemption.Preempted):
            train.run(smoke.config(NAME), tmp_path)
    monkeypatch.setattr(preemption, '_noticed', False)
    scored, score = [], scoring.score
    monkeypatch.setattr(scoring, 'score', lambda *a, **o: scored.append(1) or score(*a, **o))
    train.run(smoke.config(NAME), tmp_path)
    assert len(scored) == 1
    assert [row['step'] for row in runs.metrics_of(tmp_path)] == [2, 4, 4, 6, 8, 8]
