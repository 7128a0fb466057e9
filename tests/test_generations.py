import functools

import numpy as np
import pytest
import smoke
from test_train import assert_same_end, killed, steps_of, student_of

from kd_jax import checkpoints, runs, train, trees

NAME = 'vkd_carousel'
BEFORE = 'teachers/teacher'  # where a run has its teacher, the generation before


def two_generations():
    config = smoke.config(NAME)
    config.generations = 2
    return config


@pytest.fixture(scope='module')
def second(tmp_path_factory):
    """A finished run of two generations, the first of them the finished run of one."""
    run = tmp_path_factory.mktemp('never_killed') / 'run'
    smoke.copy(smoke.finished(NAME), run / BEFORE)
    train.run(two_generations(), run)
    return run


def farthest(run, other):
    """How far apart two students lie in any weight that a student takes from its teacher."""
    fresh = ('neck', *checkpoints.restore_network(run).network.LAST_STAGE)
    ours, theirs = (trees.named(student_of(one)['params']) for one in (run, other))
    return max(np.abs(ours[k] - theirs[k]).max() for k in ours if not k.startswith(fresh))


def test_every_generation_is_a_run_in_the_one_that_it_teaches(second):
    first = second / BEFORE
    assert [runs.config_of(run).generations for run in (second, first)] == [2, 1]
    assert smoke.result(second)['teacher'] == smoke.result(first)['student']
    assert smoke.result(first)['teacher'] == smoke.result(first / BEFORE)['student']
    assert smoke.result(second)['student'] != smoke.result(first)['student']


def test_a_generation_learns_from_the_one_before_at_a_tenth_of_its_rate(second):
    """Adam moves a weight by about its learning rate a step, at most."""
    steps = checkpoints.restore_network(second).step
    reach = steps * two_generations().optimizer.learning_rate
    assert farthest(second, second / BEFORE) < reach / 10
    assert farthest(second / BEFORE, second / BEFORE / BEFORE) > reach / 4
    assert farthest(second, second / BEFORE / BEFORE) > reach / 4


def test_generations_that_were_killed_end_as_if_they_were_not(second, tmp_path):
    run = tmp_path / 'run'
    first, teacher = run / BEFORE, run / BEFORE / BEFORE
    kill = functools.partial(killed, run, name=NAME, changes=['generations=2'])

    kill('os.mkdir', rf'run/{BEFORE}/checkpoints/4\..*/training')  # in the first generation
    taught = smoke.written(teacher)
    assert ((teacher / 'result.json').exists(), steps_of(first)) == (True, [2])

    kill('os.rename', rf"run/{BEFORE}/result\.json'")  # all of it written but not its name
    assert (steps_of(first)[-1], (first / 'result.json').exists()) == (8, False)
    assert not (run / 'checkpoints').exists()

    kill('os.mkdir', r'run/checkpoints/4\..*/training')  # in the second
    trained = smoke.written(first)
    assert ((first / 'result.json').exists(), steps_of(run)) == (True, [2])

    train.run(two_generations(), run)
    assert_same_end(teacher, smoke.finished(NAME) / BEFORE)
    assert_same_end(first, smoke.finished(NAME))
    assert_same_end(run, second)
    assert (smoke.written(teacher), smoke.written(first)) == (taught, trained)


def test_a_student_leaves_its_teacher_as_it_was(tmp_path):
    teacher = smoke.copy(smoke.finished(NAME) / BEFORE, tmp_path / 'teacher')
    files, written = smoke.files(teacher), smoke.written(teacher)
    config = smoke.config(NAME)
    config.teachers = {'teacher': str(teacher)}
    train.run(config, tmp_path / 'run')
    assert (smoke.files(teacher), smoke.written(teacher)) == (files, written)
    assert not (tmp_path / 'run/teachers').exists()
    assert_same_end(tmp_path / 'run', smoke.finished(NAME))
