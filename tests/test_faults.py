"""What a run survives: signals, a full disk, damaged checkpoints, another process in its place."""

import os
import signal

import pytest
import smoke
from faulty import NAME, assert_same_end, steps_of, unfinished

from kd_jax import checkpoints, embedding, locking, logs, preemption, runs, scoring, train
from kd_jax.runs import RunError


@pytest.fixture
def watched(monkeypatch):
    """Signals stop a run, as on the command line; afterwards all is as it was."""
    before = {number: signal.getsignal(number) for number in preemption.CODES}
    monkeypatch.setattr(preemption, '_told', 0)
    preemption.watch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
    monkeypatch.setattr(preemption, '_told', 0)
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
        assert preemption.reached()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(preemption.Preempted) as stopped:
        preemption.check()
    assert stopped.value.code == 130  # of Ctrl-C: no code to be started again by


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


def test_metrics_that_can_not_be_written_are_told_with_their_file(tmp_path):
    (tmp_path / 'metrics.jsonl').symlink_to('/dev/full')
    with pytest.raises(RunError, match=rf'{tmp_path}/metrics\.jsonl can not be written \(No space'):
        runs.append_metrics(tmp_path, {'step': 1})


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


def test_a_lock_needs_no_room_for_a_name(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(locking.os, 'write', full)
    with locking.held(tmp_path):
        assert locking.holder(tmp_path) == 'another process'
        with pytest.raises(RunError, match=f'{tmp_path} is being trained by another process'):
            locking.held(tmp_path).__enter__()
    assert locking.holder(tmp_path) == ''


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
    monkeypatch.setattr(preemption, '_told', 0)
    scored, score = [], scoring.score
    monkeypatch.setattr(scoring, 'score', lambda *a, **o: scored.append(1) or score(*a, **o))
    train.run(smoke.config(NAME), tmp_path)
    assert len(scored) == 1
    assert [row['step'] for row in runs.metrics_of(tmp_path)] == [2, 4, 4, 6, 8, 8]


def test_scored_again_it_is_told_once(tmp_path, monkeypatch, watched):
    """Stopped while step 4 was scored; then killed between its evaluation and its checkpoint."""
    with monkeypatch.context() as patched:
        stopped_by(patched, embedding, 'batches')
        with pytest.raises(preemption.Preempted):
            train.run(smoke.config(NAME), tmp_path)
    monkeypatch.setattr(preemption, '_told', 0)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, 'save', killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(smoke.config(NAME), tmp_path)
    assert 'evaluation' in runs.metrics_of(tmp_path)[-1]
    train.run(smoke.config(NAME), tmp_path)
    assert_same_end(tmp_path)


def test_told_between_two_networks_the_second_does_not_begin(tmp_path, monkeypatch, watched):
    """Not that of umts, which would compile: its T-net has ended when the signal comes."""
    whole = smoke.finished()
    run = smoke.copy(whole, tmp_path / 'run')
    (run / 'result.json').unlink()
    monkeypatch.setattr(preemption, '_deferring', 1)  # as in the loop of the T-net
    stopped_by(monkeypatch, checkpoints, 'restore_network')
    with pytest.raises(preemption.Preempted):
        train.run(smoke.config(), run)
    assert runs.metrics_of(run) == runs.metrics_of(whole)
