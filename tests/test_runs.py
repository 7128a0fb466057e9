import json
from pathlib import Path

import pytest
import smoke

from configs import umts_vehicleid
from kd_jax import runs
from kd_jax.runs import RunError

FACTS = {'classes': 8, 'data': '0123456789abcdef'}


@pytest.fixture
def run(tmp_path):
    """A run that was begun."""
    runs.start(tmp_path / 'run', smoke.config(), FACTS)
    return tmp_path / 'run'


def test_start_writes_the_config_and_with_what_it_was_begun(run):
    found = json.loads((run / 'config.json').read_text())
    assert found['config']['network']['width'] == 4
    assert found['config']['teachers']['teacher']['method']['reads'] == 'stacked'
    assert (found['classes'], found['data']) == (8, '0123456789abcdef')
    assert {'jax', 'flax', 'optax', 'orbax-checkpoint', 'python'} <= set(found['versions'])


def test_the_locked_config_is_the_one_given(run):
    assert runs.config_of(run).to_json() == smoke.config().to_json()
    assert runs.classes_of(run) == 8


def test_the_same_config_may_start_again(run):
    before = smoke.files(run)
    runs.start(run, smoke.config(), FACTS)
    assert smoke.files(run) == before


@pytest.mark.parametrize(
    ('key', 'old', 'new'),
    [
        ('seed', 0, 1),
        ('network.width', 4, 8),
        ('optimizer.learning_rate', 0.003, 0.1),
        ('data.height', 32, 64),
        ('method.margin', None, 0.3),
        ('method.weights', [0.1, 0.1, 0.1, 0.1, 0.5], [0.1, 0.1, 0.1, 0.1, 1.0]),
        ('teachers.teacher.train.epochs', 2.0, 3.0),
    ],
)
def test_another_config_is_refused_before_anything_changes(run, key, old, new):
    (run / 'metrics.jsonl').write_text('{"step": 2}\n')
    before = smoke.files(run)
    config = smoke.config()
    config.update_from_flattened_dict({key: tuple(new) if isinstance(new, list) else new})
    with pytest.raises(RunError) as told:
        runs.start(run, config, FACTS)
    assert str(run) in str(told.value)
    changed = [line for line in str(told.value).split('\n') if ' in the run, ' in line]
    assert f'  config.{key}: {old!r} in the run, {new!r} now' in changed
    # One key of the config; the T-net's data and seed are the student's.
    assert {line.split(':')[0].rpartition('.')[2] for line in changed} == {key.rpartition('.')[2]}
    assert smoke.files(run) == before


def test_a_key_that_only_one_of_the_two_has_is_a_difference(run):
    config = smoke.config()
    with config.unlocked():
        config.train.stop_early = True
        del config.evaluate.batch
    with pytest.raises(RunError) as told:
        runs.start(run, config, FACTS)
    assert "config.train.stop_early: '(absent)' in the run, True now" in str(told.value)
    assert "config.evaluate.batch: 32 in the run, '(absent)' now" in str(told.value)


@pytest.mark.parametrize(('fact', 'new'), [('classes', 9), ('data', 'fedcba9876543210')])
def test_other_data_is_refused(run, fact, new):
    before = smoke.files(run)
    with pytest.raises(RunError, match=f'{fact}: {FACTS[fact]!r} in the run, {new!r} now'):
        runs.start(run, smoke.config(), FACTS | {fact: new})
    assert smoke.files(run) == before


def test_the_data_may_lie_elsewhere_and_be_fed_otherwise(tmp_path):
    config = smoke.config()
    with config.unlocked():
        config.data.root = '/here'
    runs.start(tmp_path, config, FACTS)
    config.data.update(root='/there', cache_dir='/cache', feed='stream')
    runs.start(tmp_path, config, FACTS)
    assert config.teachers.teacher.data.root == '/there'  # the T-net's was changed too
    config.data.width = 8
    with pytest.raises(RunError, match=r'config\.data\.width: 16 in the run, 8 now'):
        runs.start(tmp_path, config, FACTS)


def test_checkpoints_without_a_config_are_refused(tmp_path):
    (tmp_path / 'checkpoints/4').mkdir(parents=True)
    with pytest.raises(RunError, match=r'no config\.json') as told:
        runs.start(tmp_path, smoke.config(), FACTS)
    assert str(tmp_path) in str(told.value)
    assert smoke.files(tmp_path) == {}


@pytest.mark.parametrize('text', ['', '{"config": {', '[]', '3', '{"model_type": "bert"}'])
def test_a_config_that_is_none_is_refused(tmp_path, text):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(RunError) as told:
        runs.start(tmp_path, smoke.config(), FACTS)
    assert str(tmp_path) in str(told.value)
    with pytest.raises(RunError, match=r'config\.json'):
        runs.config_of(tmp_path)
    assert smoke.files(tmp_path) == {'config.json': text.encode()}


def test_a_directory_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match=f'{tmp_path} is no run'):
        runs.config_of(tmp_path)
    with pytest.raises(RunError, match='nowhere is no run'):
        runs.classes_of(tmp_path / 'nowhere')


def test_result_is_none_until_there_is_one(run):
    assert runs.result_of(run) is None
    runs.write_json(run / 'result.json', {'student': {'mAP': 0.5}})
    assert runs.result_of(run) == {'student': {'mAP': 0.5}}
    assert sorted(smoke.files(run)) == ['config.json', 'result.json']  # no temporary file is left


def test_metrics_are_rewound_to_a_step(run):
    written = [{'step': 2, 'loss': 0.1 + 0.2}, {'step': 4, 'loss': 1e-30}]
    written += [{'step': 4, 'evaluation': {'mAP': 1 / 3}}, {'step': 6, 'loss': 3.0}]
    for row in written:
        runs.append_metrics(run, row)
    whole = (run / 'metrics.jsonl').read_bytes()
    runs.rewind_metrics(run, 6)
    assert (run / 'metrics.jsonl').read_bytes() == whole
    runs.rewind_metrics(run, 4)
    assert runs.metrics_of(run) == written[:3]
    runs.append_metrics(run, written[3])
    assert (run / 'metrics.jsonl').read_bytes() == whole
    runs.rewind_metrics(run, 0)
    assert runs.metrics_of(run) == []


def test_there_are_no_metrics_before_the_first_row(run):
    assert runs.metrics_of(run) == []


@pytest.mark.parametrize('half', ['{"step": 4, "lo', '{"step": 4}'])
def test_a_line_that_was_not_ended_is_left_out(run, half):
    runs.append_metrics(run, {'step': 2})
    with open(run / 'metrics.jsonl', 'a') as file:
        file.write(half)
    assert runs.metrics_of(run) == [{'step': 2}]
    runs.rewind_metrics(run, 9)
    runs.append_metrics(run, {'step': 4})
    assert runs.metrics_of(run) == [{'step': 2}, {'step': 4}]


def test_tuples_come_back_as_tuples(tmp_path):
    """As a teacher is compared with the student's config, and as flags want them."""
    config = umts_vehicleid.get_config()
    runs.start(tmp_path, config, FACTS)
    found = runs.config_of(tmp_path)
    assert found.data.sizes == (800, 1600, 2400)
    assert found.method.stages == config.method.stages
    assert runs.content(found) == runs.content(config)


def test_a_result_that_is_none_is_told_with_what_to_do(run):
    (run / 'result.json').write_text('')
    with pytest.raises(RunError, match=rf'{run}/result\.json is no JSON .*: remove it, and start'):
        runs.result_of(run)


def test_a_row_that_is_none_is_told_with_its_file(run):
    (run / 'metrics.jsonl').write_text('{"step": 2}\n\0\0\n{"step": 4}\n{"st')
    with pytest.raises(
        RunError, match=rf'{run}/metrics\.jsonl has a line that is no JSON .*: remove that line'
    ):
        runs.metrics_of(run)


def test_what_another_host_wrote_is_waited_for(tmp_path, monkeypatch):
    """As where a network file system takes a while to show it."""
    tried = []

    def sleep(_):
        tried.append(1)
        (tmp_path / 'config.json').write_text('{}'[: len(tried)])

    monkeypatch.setattr(runs.time, 'sleep', sleep)
    runs.check_seen(tmp_path, '{}')
    assert len(tried) == 2
    monkeypatch.setattr(runs, 'SEEN_SECONDS', -1)
    message = f'{tmp_path}/config.json, as process 0 wrote it, is not seen on .*all hosts share'
    with pytest.raises(RunError, match=message):
        runs.check_seen(tmp_path, '{"other": 1}')


def test_a_relative_path_is_told_with_where_it_begins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=f'runs/gone is no run in {tmp_path}: it has no'):
        runs.config_of(Path('runs/gone'))
