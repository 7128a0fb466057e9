import json

import pytest
import smoke
from ml_collections import ConfigDict

from kd_jax import assembly, data, lineage, recipes, runs, train

NAME = 'vkd_carousel'


def config(generations=1, **changes):
    made = smoke.config(NAME)
    made.generations = generations
    made.update_from_flattened_dict(changes)
    return made


def plain(config):
    return json.loads(config.to_json())


def taught_by(run, name=NAME, **changes):
    """A smoke config with a run as its teacher."""
    made = smoke.config(name)
    made.teachers = {'teacher': str(run)}
    made.update_from_flattened_dict(changes)
    return made


def planted(run, classes=8, fingerprint='', **changes):
    """A run of a teacher that says it is finished, and has nothing else."""
    locked = smoke.config(NAME).teachers.teacher.copy_and_resolve_references()
    locked.update_from_flattened_dict(changes)
    runs.start(run, locked, {'classes': classes, 'data': fingerprint})
    runs.write_json(run / 'result.json', {'student': {}})
    return run


def ready(config, run, dataset):
    """The parts of a config, its teachers found and checked."""
    return assembly.ready(config, run, dataset, lineage.teachers(config, run))


def test_the_first_generation_has_the_teachers_of_its_config(tmp_path):
    given = config()
    given.teachers.start = str(planted(tmp_path / 'start'))
    found = lineage.teachers(given, tmp_path / 'run')
    assert found == {
        'teacher': (given.teachers.teacher, tmp_path / 'run/teachers/teacher', False),
        'start': (runs.config_of(tmp_path / 'start'), tmp_path / 'start', True),
    }
    del given.generations
    assert lineage.teachers(given, tmp_path / 'run') == found


def test_a_later_generation_has_the_one_before_as_its_only_teacher(tmp_path):
    given = config(generations=3)
    given.teachers.start = str(planted(tmp_path / 'start'))
    before, third, run = plain(given), given, tmp_path / 'run'
    for number in (2, 1):
        ((name, found),) = lineage.teachers(given, run).items()
        given, run = found.config, run / 'teachers/teacher'
        assert (name, found.run, found.given) == ('teacher', run, False)
        assert plain(given) == before | {'generations': number}
    assert set(lineage.teachers(given, run)) == {'teacher', 'start'}
    assert plain(third) == before


@pytest.mark.parametrize(
    ('rate', 'number', 'expected'),
    [
        (3e-3, 1, 3e-3),
        (3e-3, 2, 3e-4),
        (3e-3, 3, 3e-5),
        (3e-3, 4, 1e-5),
        (1e-6, 1, 1e-6),
        (1e-6, 3, 1e-6),
    ],
)
def test_the_learning_rate_of_a_generation(rate, number, expected):
    given = config(number, **{'optimizer.learning_rate': rate})
    found = lineage.optimizer(given)
    assert found.pop('learning_rate') == pytest.approx(expected)
    assert found == {k: v for k, v in given.optimizer.items() if k != 'learning_rate'}


def test_a_config_without_generations_keeps_its_learning_rate():
    given = smoke.config('supervised_carousel')
    assert lineage.optimizer(given) == dict(given.optimizer.items())


@pytest.mark.parametrize(
    ('name', 'number'), [(NAME, 0), (NAME, -1), ('supervised_carousel', 2), ('umts_carousel', 0)]
)
def test_generations_that_can_not_be(tmp_path, name, number):
    given = smoke.config(name)
    given.generations = number
    with pytest.raises(ValueError, match=rf'config\.generations={number}: from 1 on'):
        train.run(given, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


def test_parts_of_a_config(tmp_path):
    given = config()
    recipes.check_keys(given)
    del given.generations
    recipes.check_keys(given)
    given.generation = 2
    with pytest.raises(TypeError, match=r"missing or surplus: \['generation'\]"):
        train.run(given, tmp_path / 'run')
    del given.generation, given.augment
    with pytest.raises(TypeError, match=r"missing or surplus: \['augment'\]"):
        train.run(given, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', [NAME, 'umts_carousel'])
@pytest.mark.parametrize(('key', 'theirs', 'ours'), [('seed', 1, 0), ('train_identities', 6, 8)])
def test_a_teacher_of_other_data(tmp_path, name, key, theirs, ours):
    given = taught_by(planted(tmp_path / 'teacher', **{f'data.{key}': theirs}), name)
    told = rf"was trained on .*'{key}': {theirs}\b.* this config has .*'{key}': {ours}\b"
    with pytest.raises(ValueError, match=told):
        train.run(given, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_teacher_of_other_data_that_needs_not_know_the_classes(tmp_path):
    teacher = planted(tmp_path / 'teacher', **{'data.seed': 1, 'data.train_identities': 6})
    off = {'method.logits_weight': 0.0}
    assert set(lineage.teachers(taught_by(teacher, **off), tmp_path)) == {'teacher'}
    with pytest.raises(ValueError, match=r'data\.height=32, but this config has data\.height=48'):
        lineage.teachers(taught_by(teacher, **off, **{'data.height': 48}), tmp_path)


def test_a_teacher_of_the_same_data_with_other_classes(tmp_path):
    """As where identities were added to a folder since."""
    teacher = planted(tmp_path / 'teacher', classes=6)
    given = taught_by(teacher)
    dataset = data.load(**given.data)
    message = 'the teacher tells 6 identities apart, but the training data has 8'
    with pytest.raises(ValueError, match=message):
        assembly.assemble(given, dataset, lineage.teachers(given, tmp_path))
    given.method.logits_weight = 0.0
    assembly.assemble(given, dataset, lineage.teachers(given, tmp_path))


def test_distances_are_learned_from_a_teacher_of_other_identities(tmp_path):
    teacher = smoke.finished(NAME) / 'teachers/teacher'
    short = {'train.epochs': 0.5, 'data.train_identities': 6, 'method.logits_weight': 0.0}
    given = taught_by(teacher, **short)
    result = train.run(given, tmp_path)
    assert result['teacher'] == smoke.result(teacher)['student']
    assert result == smoke.result(tmp_path)
    first, *_ = smoke.rows(tmp_path)
    assert first['distances'] > 0
    assert not {'logits', 'teacher_accuracy'} & set(first)


def test_logits_are_of_the_same_images(tmp_path):
    """As where another folder has as many identities, but other ones."""
    given = taught_by(planted(tmp_path / 'teacher', fingerprint='theirs'))
    with pytest.raises(ValueError, match=r'on other data, .*\(fingerprint theirs, here '):
        train.run(given, tmp_path / 'run')
    dataset = data.load(**given.data)
    planted(tmp_path / 'same', fingerprint=dataset.fingerprint)
    ready(taught_by(tmp_path / 'same'), tmp_path / 'run', dataset)
    given.method.logits_weight = 0.0
    ready(given, tmp_path / 'run', dataset)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'method.student_views': 9}, r'method\.student_views=9, but a set has sampling\.shots=4'),
        ({'teachers.teacher.network.width': 8}, r'another network than the teacher'),
        ({'teachers.teacher.method.reads': 'stacked'}, r"reads='stacked', but method vkd"),
    ],
)
def test_what_does_not_fit_does_not_wait_for_the_teacher(tmp_path, changes, message):
    given = config().copy_and_resolve_references()
    given.update_from_flattened_dict(changes)
    given.teachers.teacher.sampling.shots = given.sampling.shots
    with pytest.raises(ValueError, match=message):
        train.run(given, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_the_deepest_teacher_is_checked_before_anything_is_written(tmp_path):
    given = config(generations=3).copy_and_resolve_references()
    given.teachers.teacher.optimizer.learning_rat = 1.0
    with pytest.raises(TypeError, match='learning_rat'):
        train.run(given, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_is_trained_first_has_the_data_of_its_student(tmp_path):
    given = config(**{'method.logits_weight': 0.0}).copy_and_resolve_references()
    given.teachers.teacher.data = ConfigDict({**given.data, 'train_identities': 12})
    with pytest.raises(ValueError, match='was trained on'):
        train.run(given, tmp_path / 'run')


def test_what_a_student_starts_from_may_be_of_other_data(tmp_path):
    """It gives its weights, without classes."""
    other = planted(tmp_path / 'other', 6, 'theirs', **{'data.train_identities': 6})
    given = config()
    given.teachers.start = str(other)
    ready(given, tmp_path / 'run', data.load(**given.data))


def test_no_teacher_is_called_student(tmp_path):
    """It would be lost among the results of its run."""
    made = config()
    made.teachers = {'student': 'runs/a'}
    with pytest.raises(ValueError, match=r'config\.teachers\.student: call it something else'):
        lineage.teachers(made, tmp_path)
