import pkgutil
import shutil
import signal
import sys
import types

import jax
import numpy as np
import pytest
import smoke
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_jax import checkpoints, evaluate, loop, methods, runs, scoring, train
from kd_jax.data.records import DataError
from kd_jax.runs import RunError

CONFIGS = sorted(path.stem for path in (smoke.ROOT / 'configs').glob('*_carousel.py'))
SCORES = {'mAP', 'mAP_trapezoid', 'mINP', 'rank-1', 'rank-5', 'rank-10'}
WORDS = {'protocol': 'market', 'metric': 'cosine', 'same_camera': 'drop'}
WORDS |= {'quoted': 'mAP', 'also': [], 'refined': ''}
COUNTS = {'valid_queries': 24, 'queries': 24}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)


def student_of(run):
    return checkpoints.restore_network(run).variables


def assert_same_end(run, other):
    """Two runs ended bit by bit alike: what was told, what was found, what was learned."""
    assert (run / 'metrics.jsonl').read_bytes() == (other / 'metrics.jsonl').read_bytes()
    assert smoke.result(run) == smoke.result(other)
    assert_same(student_of(run), student_of(other))


def taught_by(teacher, **changes):
    """The umts smoke config with a finished run as its teacher."""
    config = smoke.config()
    config.teachers = {'teacher': str(teacher)}
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def no_training(monkeypatch):
    smoke.finished()
    monkeypatch.setattr(loop, 'fit', lambda *_: pytest.fail('trained again'))


def test_every_method_has_a_config_on_the_built_in_data():
    named = {smoke.config(name).method.name for name in CONFIGS}
    assert named == {module.name for module in pkgutil.iter_modules(methods.__path__)}


@pytest.mark.parametrize('name', CONFIGS)
def test_a_smoke_run_ends_with_a_result(name):
    run, config = smoke.finished(name), smoke.config(name)
    result = smoke.result(run)
    assert list(result) == [*config.teachers, 'student']
    for found in result.values():
        assert set(found) == SCORES | set(COUNTS) | {'shots', 'shots_of', 'repeated', *WORDS}
        assert {key: found[key] for key in WORDS if key != 'also'} | {'also': []} == WORDS
        others = [one['protocol'] for one in found['also']]
        assert others == config.evaluate.protocol.split(',')[1:]
        assert all(0 < found[score] < 1 for score in SCORES)
        assert {key: found[key] for key in COUNTS} == COUNTS
    assert result['student']['shots_of'] == 'identity'
    assert result['student']['shots'] == config.evaluate.shots
    assert checkpoints.restore_network(run).step == 8
    told = [(row['step'], 'evaluation' in row) for row in smoke.rows(run)]
    assert told == [(2, False), (4, False), (4, True), (6, False), (8, False), (8, True)]
    assert smoke.rows(run)[-1]['evaluation'] == result['student']


@pytest.mark.parametrize('name', CONFIGS)
def test_it_learns(name):
    """The student's weights leave their start, and so do its running statistics."""
    restored = checkpoints.restore_network(smoke.finished(name))
    stats = restored.variables['batch_stats']
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(stats))
    assert np.abs(stats['bn1']['var'] - 1).max() > 0.01
    assert np.abs(restored.variables['params']['bn1']['bias']).max() > 1e-4  # starts as zeros


def test_metrics_tell_each_term_apart():
    first, *_ = smoke.rows(smoke.finished())
    terms = {'identity', 'triplet', *(f'stage{stage}' for stage in range(1, 6))}
    assert set(first) > {'step', 'loss', 'gradient_norm', 'accuracy'} | terms
    assert first['loss'] == pytest.approx(sum(first[term] for term in terms), rel=1e-5)
    assert all(first[term] > 0 for term in terms)


def test_a_teacher_is_a_run_of_its_own():
    run = smoke.finished() / 'teachers/teacher'
    result = smoke.result(run)['student']
    assert result == smoke.result(smoke.finished())['teacher']
    assert result['shots'] == 2
    first, *_ = smoke.rows(run)
    terms = {'identity', 'triplet'}
    assert set(first) == {'step', 'loss', 'gradient_norm', 'accuracy'} | terms


def test_the_evaluation_is_of_the_network_that_was_saved():
    """metrics.jsonl, result.json and the checkpoint speak of the same weights."""
    for run in (smoke.finished(), smoke.finished() / 'teachers/teacher'):
        assert evaluate.run(run, runs.config_of(run)) == smoke.result(run)['student']


def events_of(run, monkeypatch):
    """TensorBoard's view of a run, read without TensorFlow."""
    monkeypatch.setitem(
        sys.modules, 'tensorboard.compat.notf', types.ModuleType('tensorboard.compat.notf')
    )
    events = EventAccumulator(str(run))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()['scalars']
    }


def assert_events_tell_the_rows(run, monkeypatch):
    events = events_of(run, monkeypatch)
    assert all(speed > 0 for _, speed in events.pop('images_per_second'))
    rows = smoke.rows(run)
    told = {}
    for row in rows:
        found = row.get('evaluation', {})
        values = {
            f'evaluation/{k}': v for k, v in found.items() if k not in (*WORDS, 'shots_of')
        } or row
        for tag in set(values) - {'step'}:
            told.setdefault(tag, []).append((row['step'], np.float32(values[tag])))
    assert events == told


def test_tensorboard_tells_what_metrics_tell(monkeypatch):
    assert_events_tell_the_rows(smoke.finished(), monkeypatch)


def test_a_finished_run_is_not_trained_again(no_training):
    before = smoke.written(smoke.finished())
    assert train.run(smoke.config(), smoke.finished()) == smoke.result(smoke.finished())
    assert smoke.written(smoke.finished()) == before


def test_killed_before_the_result_was_written(tmp_path):
    run = smoke.copy(smoke.finished(), tmp_path / 'run')
    (run / 'result.json').unlink()
    before = smoke.written(run / 'teachers')
    train.run(smoke.config(), run)
    assert_same_end(run, smoke.finished())
    assert smoke.written(run / 'teachers') == before


def killed(run, event, pattern, count=1, name='umts_carousel', changes=()):
    """Start a config's smoke run and kill it at an event; see killed.py."""
    process = smoke.python('tests/killed.py', name, run, event, pattern, str(count), *changes)
    ((code, _, errors),) = smoke.ended(process)
    assert code == -signal.SIGKILL, errors


def steps_of(run):
    """The checkpoints of a run that are whole, without touching it."""
    return sorted(int(path.name) for path in (run / 'checkpoints').iterdir() if path.name.isdigit())


def test_a_run_that_was_killed_ends_as_if_it_was_not(tmp_path, monkeypatch):
    run, teacher = tmp_path / 'run', tmp_path / 'run/teachers/teacher'

    killed(run, 'os.rename', r"teacher/checkpoints/6'")  # all of it written but not its name
    assert (steps_of(teacher), (run / 'metrics.jsonl').exists()) == ([2, 4], False)
    assert (teacher / 'checkpoints/6.orbax-checkpoint-tmp').exists()

    killed(run, 'os.mkdir', r'run/checkpoints/4\..*/training')  # half of the student's written
    trained = smoke.written(teacher)
    assert steps_of(run) == [2]
    assert smoke.rows(run)[-1]['step'] == 4  # told, and to be told again

    killed(run, 'open', r"run/metrics\.jsonl', 'a'", 3)  # between checkpoints
    assert smoke.rows(run)[-1]['step'] == 4
    assert not (run / 'result.json').exists()

    train.run(smoke.config(), run)
    assert_same_end(teacher, smoke.finished() / 'teachers/teacher')
    assert_same_end(run, smoke.finished())
    assert smoke.written(teacher) == trained
    assert [path.name for path in (run / 'checkpoints').iterdir() if 'tmp' in path.name] == []
    assert_events_tell_the_rows(run, monkeypatch)
    assert_events_tell_the_rows(teacher, monkeypatch)


def test_a_run_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    config = smoke.config('supervised_carousel')
    config.optimizer.update(schedule='step', warmup_epochs=0.0, boundaries=(1,), factor=1e30)
    with pytest.raises(FloatingPointError) as told:  # after epoch 1, step 4
        train.run(config, tmp_path)
    term, message = str(told.value).split(' ', 1)
    assert term in {'identity', 'triplet'}  # what is not finite, not only that something is
    assert message.split(';')[0] in {f'is {bad} at step 6' for bad in ('nan', 'inf')}
    assert f'the last good one, of step 4, is in {tmp_path}/checkpoints' in message
    assert 'optimizer.learning_rate' in message
    assert steps_of(tmp_path) == [2, 4]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(student_of(tmp_path)))
    assert max(row['step'] for row in smoke.rows(tmp_path)) == 4
    assert not (tmp_path / 'result.json').exists()


def test_a_teacher_of_other_shots_is_refused(tmp_path):
    config = taught_by(smoke.finished() / 'teachers/teacher', **{'sampling.shots': 3})
    with pytest.raises(ValueError, match=r'sampling\.shots=2.*sampling\.shots=3'):
        train.run(config, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('key', 'old', 'new'), [('height', 32, 48), ('channels', 3, 1)])
def test_a_teacher_of_other_images_is_refused(tmp_path, key, old, new):
    config = taught_by(smoke.finished() / 'teachers/teacher', **{f'data.{key}': new})
    with pytest.raises(ValueError, match=rf'data\.{key}={old}.*data\.{key}={new}'):
        train.run(config, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_is_not_finished_is_refused(tmp_path, no_training):
    teacher = smoke.copy(smoke.finished() / 'teachers/teacher', tmp_path / 'teacher')
    (teacher / 'result.json').unlink()
    with pytest.raises(RunError, match=f'teacher: {teacher} is not finished'):
        train.run(taught_by(teacher), tmp_path / 'run')


def test_a_teacher_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=f'{tmp_path}/none is no run'):
        train.run(taught_by(tmp_path / 'none'), tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


def test_teaching_leaves_the_teacher_as_it_was(tmp_path, monkeypatch):
    """Neither its files nor its arrays change, and a teacher of elsewhere teaches the same."""
    teacher = smoke.copy(smoke.finished() / 'teachers/teacher', tmp_path / 'teacher')
    files, written = smoke.files(teacher), smoke.written(teacher)
    fit, seen = loop.fit, []

    def watched(config, workdir, dataset, parts, teachers):
        before = jax.tree.map(np.array, teachers)
        found = fit(config, workdir, dataset, parts, teachers)
        assert_same(before, teachers)
        seen.append(set(teachers))
        return found

    monkeypatch.setattr(loop, 'fit', watched)
    train.run(taught_by(teacher), tmp_path / 'run')
    assert seen == [{'teacher'}]
    assert (smoke.files(teacher), smoke.written(teacher)) == (files, written)
    assert_same_end(tmp_path / 'run', smoke.finished())


def test_a_teacher_that_was_trained_here_is_no_part_of_the_student(tmp_path):
    """A student lives on without its teacher's run."""
    run = smoke.copy(smoke.finished(), tmp_path / 'run')
    shutil.rmtree(run / 'teachers')
    assert_same(student_of(run), student_of(smoke.finished()))
    assert train.run(smoke.config(), run) == smoke.result(smoke.finished())


def test_a_step_that_can_not_be_scored_is_kept(tmp_path, monkeypatch):
    """As by an image that is damaged: nothing that was trained is lost."""

    def damaged(*arguments, **options):
        raise DataError('query/1.jpg: truncated')

    config = smoke.config('supervised_carousel')
    score = scoring.score
    monkeypatch.setattr(scoring, 'score', damaged)
    with pytest.raises(DataError, match='truncated'):
        train.run(config, tmp_path)
    monkeypatch.setattr(scoring, 'score', score)
    assert steps_of(tmp_path)[-1] == 4  # the first that is scored
    train.run(config, tmp_path)  # and scores it first
    assert_same_end(tmp_path, smoke.finished('supervised_carousel'))
