"""A run whose teachers are trained at once ends with runs as if each was trained by itself."""

import functools
import sys

import numpy as np
import pytest
import smoke
from absl.testing import flagsaver
from test_factorized_runs import NAME, PARTS, restored, run_of, saved
from test_train import assert_same_end, killed, steps_of

from kd_jax import checkpoints, evaluate, runs, train, trees
from kd_jax.runs import RunError

TERMS = {'identity', 'triplet'}
NEARLY = 1e-3  # a third of what one step of Adam changes at most


def config():
    made = smoke.config(NAME)
    made.stacked = True
    return made


@functools.cache
def finished():
    """A finished run, to be left as it is."""
    return smoke.once('stacked', functools.partial(train.run, config()))


def teacher(name):
    return finished() / 'teachers' / name


# What is left.


@pytest.mark.parametrize('name', PARTS)
def test_a_member_is_a_finished_run(name):
    """Of its own config, scored alone."""
    run, found = teacher(name), restored(teacher(name))
    result = smoke.result(run)
    assert result == {'student': smoke.result(finished())[name]}
    assert (found.step, found.network.part) == (8, PARTS[name])
    assert checkpoints.restore_network(run, 'best').step == 8
    alone, ours = ((one / 'config.json').read_text() for one in (run_of(name), run))
    assert ours == alone
    assert evaluate.run(run, runs.config_of(run)) == result['student']
    written = smoke.written(run)
    train.run(config().teachers[name].copy_and_resolve_references(), run)
    assert smoke.written(run) == written


@pytest.mark.parametrize('name', PARTS)
def test_a_member_is_saved_as_one_that_was_trained_alone(name):
    """The same tree; parameters differ by less than 1e-3, as Adam scales up what is rounded.

    Measured: 3e-4 at most, and the same scores.
    """
    ours, alone = teacher(name), run_of(name)
    assert steps_of(ours) == [8]
    assert saved(ours) == saved(alone)
    found, expected = (trees.named(restored(one).variables) for one in (ours, alone))
    assert found.keys() == expected.keys()
    apart = {path: np.abs(found[path] - expected[path]).max() for path in found}
    assert max(apart.values()) < NEARLY
    other, *_ = set(PARTS) - {name}
    theirs = trees.named(restored(teacher(other)).variables)
    assert max(np.abs(found[path] - theirs[path]).max() for path in found) > 2 * NEARLY


@pytest.mark.parametrize('name', PARTS)
def test_metrics_of_a_member_are_its_own(name):
    """Its terms without its name, and its evaluation at the end."""
    rows, alone = smoke.rows(teacher(name)), smoke.rows(run_of(name))
    assert [row['step'] for row in rows] == [2, 4, 6, 8, 8]
    *told, evaluation = rows
    assert evaluation == {'step': 8, 'evaluation': smoke.result(teacher(name))['student']}
    assert all(set(row) == {'step', 'accuracy', *TERMS} for row in told)
    expected = {row['step']: row for row in alone if 'loss' in row}
    for row in told:
        for term in TERMS:
            np.testing.assert_allclose(row[term], expected[row['step']][term], rtol=1e-3)


def test_the_joint_run_tells_all_terms():
    rows = smoke.rows(finished() / 'stacked')
    assert [row['step'] for row in rows] == [2, 4, 4, 6, 8, 8]
    assert ['evaluation' in row for row in rows] == [False, False, True] * 2
    own = {f'{name}/{term}' for name in PARTS for term in (*TERMS, 'accuracy')}
    assert set(rows[0]) == {'step', 'loss', 'gradient_norm', *own}


def test_the_joint_run_is_no_run_of_one_network(monkeypatch):
    run = finished() / 'stacked'
    message = rf'{run} is no run of one network: part0, part1 were trained at once there'
    for ask in (runs.config_of, restored):
        with pytest.raises(RunError, match=message):
            ask(run)
    with pytest.raises(RunError, match=f'{run} is a run of another config'):
        evaluate.run(run, smoke.config(NAME))
    monkeypatch.setattr(sys, 'argv', ['evaluate', f'--run={run}'])
    with flagsaver.flagsaver(), pytest.raises(SystemExit, match=f'kd_jax: {message}'):
        evaluate.main()


def test_the_joint_run_can_not_teach(tmp_path):
    given = smoke.config(NAME)
    given.teachers = {'part0': str(finished() / 'stacked')}
    with pytest.raises(RunError, match='part0, part1 were trained at once there'):
        train.run(given, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


# A run that is stopped.


def test_a_run_that_was_killed_ends_as_if_it_was_not(tmp_path):
    """While members are trained at once, and when one of them is left and the other half so."""
    run, kill = tmp_path / 'run', functools.partial(killed, name=NAME, changes=['stacked=true'])
    first, second = (run / 'teachers' / name for name in PARTS)

    kill(run, 'os.mkdir', r'run/stacked/checkpoints/6\..*/training')
    assert (steps_of(run / 'stacked'), (run / 'teachers').exists()) == ([2, 4], False)

    kill(run, 'os.rename', r"teachers/part1/result\.json'")
    assert (steps_of(first), (first / 'result.json').exists()) == ([8], True)
    assert (steps_of(second), (second / 'result.json').exists()) == ([8], False)
    before = smoke.written(first)

    train.run(config(), run)
    assert smoke.written(first) == before
    for name in PARTS:
        assert_same_end(run / 'teachers' / name, teacher(name))
    joint = [(one / 'stacked/metrics.jsonl').read_bytes() for one in (run, finished())]
    assert joint[0] == joint[1]
    assert_same_end(run, finished())
