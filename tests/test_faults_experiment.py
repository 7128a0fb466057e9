"""What experiments/faults.py compares, and what it says."""

import shutil
import signal
import sys

import pytest
import smoke

from experiments import faults

NAME = 'supervised_carousel'


@pytest.fixture(scope='module')
def whole():
    return faults.contents(smoke.finished(NAME))


def test_a_copy_is_the_same(whole, tmp_path):
    found = faults.contents(smoke.copy(smoke.finished(NAME), tmp_path / 'run'))
    assert {'metrics.jsonl', 'result.json', 'checkpoints/8/student'} < set(found)
    assert faults.differences(found, whole) == []


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda run: (run / 'metrics.jsonl').write_text('{}\n'), ['metrics.jsonl']),
        (lambda run: (run / 'result.json').unlink(), ['result.json']),
        (
            lambda run: shutil.rmtree(run / 'checkpoints/6'),
            ['checkpoints/6/student', 'checkpoints/6/training'],
        ),
        (
            lambda run: shutil.copytree(
                run / 'checkpoints/6', run / 'checkpoints/8', dirs_exist_ok=True
            ),
            ['checkpoints/8/student', 'checkpoints/8/training'],
        ),
    ],
)
def test_what_differs_is_named(whole, tmp_path, change, named):
    run = smoke.copy(smoke.finished(NAME), tmp_path / 'run')
    if named == ['checkpoints/8/student', 'checkpoints/8/training']:
        shutil.rmtree(run / 'checkpoints/8')
    change(run)
    assert faults.differences(faults.contents(run), whole) == named


def test_a_killed_run_is_compared_and_one_that_is_the_same_is_deleted(whole, tmp_path):
    for number in range(2):
        run = smoke.copy(smoke.finished(NAME), tmp_path / f'kill{number}')
        run.with_suffix('.log').touch()
    (tmp_path / 'kill1/result.json').write_text('{}')
    rows = [
        faults.compared({'kill': n, 'where': 'at its end', 'code': 0}, tmp_path, whole)
        for n in range(2)
    ]
    rows.append(faults.compared({'kill': 2, 'where': 'x', 'code': 1}, tmp_path, whole))
    assert [row['differs'] for row in rows] == [[], ['result.json'], ['exit 1']]
    assert not (tmp_path / 'kill0').exists()
    assert (tmp_path / 'kill1').exists()
    told = faults.report(rows)
    assert told.startswith('1 of 3 killed runs ended bit by bit as the unharmed one')
    assert "at its end: ['result.json']" in told
    assert '| at its end | 2 |' in told


def test_where_a_run_was_killed(tmp_path):
    run = smoke.copy(smoke.finished('umts_carousel'), tmp_path / 'run')
    assert faults.stage(run) == 'at its end'
    (run / 'result.json').unlink()
    assert faults.stage(run) == 'student after step 8'
    (run / 'teachers/teacher/result.json').unlink()
    (run / 'teachers/teacher/metrics.jsonl').unlink()
    assert faults.stage(run) == 'teacher before its steps'
    assert faults.stage(tmp_path / 'none') == 'before it began'


def test_a_run_is_killed_in_time_and_goes_on(tmp_path, monkeypatch):
    """A command that takes long when it starts, and none when it was started before."""
    code = 'import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); seen = p.exists(); '
    code += 'p.mkdir(exist_ok=True); seen or time.sleep(60)'
    line = [sys.executable, '-c', code, str(tmp_path / 'kill3')]
    monkeypatch.setattr(faults, 'command', lambda config, run: line)
    row = faults.kill(3, ['any'], tmp_path, 1.0, seed=0)
    assert (row['where'], row['code']) == ('student before its steps', 0)
    assert 0 < row['seconds'] < 1


def test_a_kill_that_came_too_late_is_tried_again(tmp_path, monkeypatch):
    moments, codes = [], iter((0, -signal.SIGKILL, 0))

    def train(config, run, seconds=None):
        moments.append(seconds)
        return next(codes)

    monkeypatch.setattr(faults, 'train', train)
    row = faults.kill(0, ['any'], tmp_path, 9.0, seed=0)
    assert moments == [moments[0], pytest.approx(row['seconds'], abs=0.01), None]
    assert (row['where'], row['code']) == ('before it began', 0)
    assert moments[0] != moments[1]


def test_runs_of_another_config_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, 'train', lambda *_: 0)
    assert faults.unharmed(['--config=a'], tmp_path, 2) > 0
    with pytest.raises(SystemExit, match=f'{tmp_path} has runs of --config=a: give another'):
        faults.unharmed(['--config=b'], tmp_path, 2)
