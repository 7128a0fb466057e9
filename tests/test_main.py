import json

import numpy as np
import pytest
import smoke
from absl import logging
from PIL import Image

from configs import base, supervised_folder
from kd_jax import command, results, train
from kd_jax.data.records import DataError
from kd_jax.runs import RunError

MAIN = '-m', 'kd_jax.main'
SMOKE = '--config=configs/supervised_carousel.py:smoke'


def test_a_run_of_the_command_line(tmp_path):
    """Trained, and scored again; other values of a config are set by their names."""
    run = tmp_path / 'run'
    where = f'--workdir={run}'
    ((code, trained, errors),) = smoke.ended(smoke.python(*MAIN, SMOKE, where))
    assert code == 0, errors
    result = smoke.result(smoke.finished('supervised_carousel'))
    assert smoke.result(run) == result
    assert trained == f'{results.table(result)}\nrun directory: {run}\n'
    assert 'step 8/8' in errors

    again, other = smoke.ended(
        smoke.python(*MAIN, SMOKE, where, '--mode=evaluate'),
        smoke.python(*MAIN, SMOKE, where, '--config.network.width=8'),
    )
    assert again[:2] == (0, f'{results.table({"run": result["student"]})}\nrun directory: {run}\n')
    assert other[:2] == (1, '')
    assert other[2].endswith('config.network.width: 4 in the run, 8 now\n')
    assert f'kd_jax: {run} is a run of another config.' in other[2]


def test_what_is_told_on_the_command_line(tmp_path):
    where = f'--workdir={tmp_path}/run'
    folder = '--config=configs/supervised_folder.py'
    asked = {
        'help': ('--help',),
        'misspelt': (SMOKE, where, '--config.train.epoch=3'),
        'no root': (folder, where),
        'no root, in full': (folder, where, '--verbosity=1'),
        'no run': (SMOKE, where, '--mode=evaluate'),
        'no config': ('--config=configs/none.py', where),
        'bucket': (SMOKE, '--workdir=gs://bucket/run'),
        'half of a host': (SMOKE, where, '--num_processes=2'),
    }
    processes = [smoke.python(*MAIN, *arguments) for arguments in asked.values()]
    told = dict(zip(asked, smoke.ended(*processes)))

    _, printed, _ = told.pop('help')
    assert all(flag in printed for flag in ('--config:', '--workdir:', '--mode: <train|evaluate>'))
    for code, printed, errors in told.values():
        assert (code, printed) == (1, '')
        assert errors.splitlines()[-1].strip()
    assert not (tmp_path / 'run').exists()

    lines = {name: errors for name, (_, _, errors) in told.items()}
    full = lines.pop('no root, in full')
    assert all('Traceback' not in errors for errors in lines.values())
    assert lines['misspelt'].startswith('kd_jax: the config has no such key: ')
    assert 'Did you mean "epochs" instead of "epoch"?' in lines['misspelt']
    no_root = 'kd_jax: no folder given for this data set: add --config.data.root=DIR\n'
    assert lines['no root'] == no_root
    assert 'Traceback' in full
    assert 'folder.py' in full
    assert full.endswith(no_root)
    assert lines['no run'] == f'kd_jax: {tmp_path}/run is no run: it has no config.json\n'
    assert lines['bucket'].startswith('kd_jax: --workdir=gs://bucket/run: give a folder')
    assert lines['half of a host'].startswith('kd_jax: give --coordinator=HOST:PORT, --num_proc')
    assert lines['no config'].startswith('kd_jax: ')
    assert 'configs/none.py' in lines['no config']


def raising(error):
    def application(_):
        raise error

    return application


@pytest.mark.parametrize('kind', [RunError, DataError, FloatingPointError, FileNotFoundError])
def test_an_error_of_the_user_is_one_line(kind):
    with pytest.raises(SystemExit) as told:
        command.told(raising(kind('what to do')), [])
    assert told.value.code == 'kd_jax: what to do'  # printed by Python, whose exit code is then 1


def test_a_refused_value_is_one_line():
    config = smoke.config('supervised_carousel')
    config.network.name = 'resnet51'
    with pytest.raises(SystemExit, match=r"kd_jax: network\.name='resnet51': known networks are "):
        command.told(lambda _: train.run(config, 'nowhere'), [])


@pytest.mark.parametrize(
    'application',
    [
        lambda _: np.zeros(2) + np.zeros(3),  # no value of a config, but a bug
        lambda _: results.table({'a': None}),
        raising(ValueError('of elsewhere')),
        raising(KeyError('a')),
    ],
)
def test_a_bug_keeps_its_traceback(application):
    with pytest.raises((ValueError, TypeError, KeyError)):
        command.told(application, [])


def test_where_an_error_came_from_is_told_to_who_asks(caplog):
    for level, told in ((logging.INFO, False), (logging.DEBUG, True)):
        logging.set_verbosity(level)
        with pytest.raises(SystemExit):
            command.told(raising(RunError('what to do')), [])
        assert ('Traceback' in caplog.text) == told


def folder_config(root, **changes):
    """The smoke run on the images of a folder."""
    config = base.smoke(supervised_folder.get_config('tiny'))
    size = {'height': 32, 'width': 16, 'channels': 3, 'cache_dir': ''}
    config.data = {'name': 'folder', 'root': str(root), 'feed': 'device', **size}
    config.data.on_bad_image = 'error'
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def root(tmp_path):
    """Eight identities to train on and four to find, each four times, by two cameras."""
    rng = np.random.default_rng(0)
    for folder, pids, frames in (
        ('bounding_box_train', range(1, 9), (1, 2)),
        ('query', range(9, 13), (1,)),
        ('bounding_box_test', range(9, 13), (2,)),
    ):
        (tmp_path / 'images' / folder).mkdir(parents=True)
        for pid in pids:
            for camera, frame in ((c, f) for c in (1, 2) for f in frames):
                pixels = rng.integers(0, 256, (40, 20, 3), np.uint8)
                name = f'{pid:04d}_c{camera}s1_{frame:06d}_01.jpg'
                Image.fromarray(pixels).save(tmp_path / 'images' / folder / name)
    return tmp_path / 'images'


def cut(root):
    """Leave the first half of a training image, as a broken download does."""
    path = root / 'bounding_box_train/0003_c1s1_000001_01.jpg'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_damaged_image_is_named(root, tmp_path):
    path = cut(root)
    with pytest.raises(DataError) as told:
        train.run(folder_config(root), tmp_path / 'run')
    assert str(path.relative_to(root)) in str(told.value)
    assert '--config.data.on_bad_image=skip' in str(told.value)
    assert not (tmp_path / 'run').exists()


def test_a_damaged_image_may_be_left_out(root, tmp_path, caplog):
    """It is named and counted, and the run goes on without it."""
    path = cut(root)
    caplog.set_level('INFO')
    config = folder_config(root, **{'data.on_bad_image': 'skip'})
    result = train.run(config, tmp_path / 'run')
    assert (result['student']['queries'], result['student']['valid_queries']) == (8, 8)
    assert f'leaving out {path.relative_to(root)}' in caplog.text
    assert 'left out 1 of 32 images' in caplog.text
    counted = [line.split() for line in caplog.text.splitlines() if line.startswith('train ')]
    assert counted == [['train', '31', '8', '2', '16', '0']]


def test_an_empty_root_is_named(tmp_path):
    with pytest.raises(DataError, match=f'{tmp_path}/bounding_box_train: no such folder'):
        train.run(folder_config(tmp_path), tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


def test_more_identities_than_there_are_is_told_with_both_numbers(root, tmp_path):
    config = folder_config(root, **{'sampling.identities': 9})
    message = r'sampling\.identities=9, but the training data has only 8 identities'
    with pytest.raises(ValueError, match=message):
        train.run(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'part',
    ['data', 'sampling', 'augment', 'network', 'method', 'optimizer', 'train', 'evaluate'],
)
def test_a_key_that_nothing_takes_is_named_before_anything_starts(tmp_path, part):
    config = smoke.config('supervised_carousel')
    with config.unlocked():
        config[part].colour = 'red'
    with pytest.raises(TypeError, match='colour'):
        train.run(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_part_that_is_missing_or_surplus_is_named(tmp_path):
    for change in (lambda c: delattr(c, 'augment'), lambda c: c.update(augmnet={})):
        config = smoke.config('supervised_carousel')
        with config.unlocked():
            change(config)
        with pytest.raises(TypeError, match=r"missing or surplus: \['augm"):
            train.run(config, tmp_path / 'run')
    assert list(tmp_path.iterdir()) == []


def test_the_run_directory_has_what_it_should(tmp_path):
    run = smoke.finished('supervised_carousel')
    names = {path.name.strip('.').split('.')[0] for path in run.iterdir()}
    assert names == {'config', 'metrics', 'events', 'checkpoints', 'result', 'lock'}
    locked = json.loads((run / 'config.json').read_text())
    assert locked['config'] == json.loads(smoke.config('supervised_carousel').to_json())
