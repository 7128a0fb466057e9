import os
import shlex

import pytest
from preparing import (
    NAMES,
    PLANT,
    arguments,
    plant_folder,
    plant_matrix,
)

from kd_jax import data
from kd_jax.data import builders, prepare
from kd_jax.data.records import DataError


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(builders, 'SHARD', 2)


def test_prints_counts_and_how_to_train(tmp_path, capsys):
    plant_matrix(tmp_path / 'raw')
    prepare.run(arguments(tmp_path, 'cuhk03', '--detected=false'))
    text = capsys.readouterr().out
    assert [line.split()[:3] for line in text.splitlines()[1:3]] == [
        ['train', '4!', '2!'],
        ['published', '7,368', '767'],
    ]
    command = 'python -m kd_jax.main --config=configs/supervised_cuhk03.py'
    flags = f'--config.data.root={tmp_path / "out"} --config.data.detected=False'
    assert text.splitlines()[-1].endswith(f'{command} {flags} --config.data.classic_split=-1')
    assert 'ownload' not in text


def test_how_to_train_is_what_a_shell_reads():
    split = {'detected': True, 'classic_split': 3}
    assert '--config=configs/supervised_cuhk03_classic.py' in prepare.training('cuhk03', 'd', split)
    line = prepare.training('vehicleid', 'my data', {'sizes': (800, 1600)})
    assert shlex.split(line)[-2:] == [
        '--config.data.root=my data',
        '--config.data.sizes=(800, 1600)',
    ]


def test_prepared_already(tmp_path, capsys, caplog):
    plant_folder(tmp_path / 'raw')
    prepare.run(arguments(tmp_path))
    folder = tmp_path / 'out' / 'folder' / 'default' / '1.0.0'
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    caplog.set_level('INFO')
    prepare.run(arguments(tmp_path))
    assert 'prepared already' in caplog.text
    assert times == {file: file.stat().st_mtime_ns for file in folder.iterdir()}


@pytest.mark.parametrize('name', ['folder', 'cuhk03'])
def test_files_that_changed_since(tmp_path, name):
    """Also those behind no path of their own, as a .mat."""
    PLANT[name](tmp_path / 'raw')
    prepare.run(arguments(tmp_path, name))
    file = {'folder': 'query/0003_c1s1_000001_00.png', 'cuhk03': 'cuhk-03.mat'}[name]
    splits = {'folder': 'query', 'cuhk03': 'train, query, gallery'}[name]
    os.utime(tmp_path / 'raw' / file)
    with pytest.raises(DataError, match=f'default/1.0.0: files of {splits} have changed since'):
        prepare.run(arguments(tmp_path, name))


def test_a_file_that_is_gone_since(tmp_path):
    source = data.reader('folder').read(root=plant_folder(tmp_path / 'raw'))
    file = tmp_path / 'raw/query/0003_c1s1_000001_00.png'
    prepare.prepare('folder', source, str(tmp_path / 'out'))
    file.unlink()
    with pytest.raises(DataError, match=f'{file}: listed, but No such file'):
        prepare.prepare('folder', source, str(tmp_path / 'out'))


def test_prepared_from_other_images(tmp_path):
    plant_folder(tmp_path / 'raw')
    prepare.run(arguments(tmp_path))
    name = '0004_c1s1_000001_00.png'
    os.link(tmp_path / 'raw/query/0003_c1s1_000001_00.png', tmp_path / 'raw/query' / name)
    message = r'default/1.0.0: prepared from other images \(\w{16}\) than .* \(\w{16}\); remove it'
    with pytest.raises(DataError, match=message):
        prepare.run(arguments(tmp_path))


def test_a_folder_that_is_not_finished(tmp_path):
    plant_folder(tmp_path / 'raw')
    (tmp_path / 'out/folder/default/1.0.0').mkdir(parents=True)
    with pytest.raises(DataError, match=r'1.0.0: without dataset_info.json, .*; remove it'):
        prepare.run(arguments(tmp_path))


@pytest.mark.parametrize('out', ['raw', 'raw/tfds', 'other/../raw'])
def test_nothing_is_prepared_in_the_raw_folder(tmp_path, out):
    plant_folder(tmp_path / 'raw')
    with pytest.raises(DataError, match=rf'{out}: lies in the raw .*raw\), .*set --data_dir'):
        prepare.run([*arguments(tmp_path), f'--data_dir={tmp_path / out}'])
    assert sorted(os.listdir(tmp_path / 'raw')) == sorted(NAMES)


@pytest.mark.parametrize('out', ['.', 'raw2'])
def test_raw_may_lie_in_the_prepared_folder(tmp_path, out):
    plant_folder(tmp_path / 'raw')
    prepare.run([*arguments(tmp_path), f'--data_dir={tmp_path / out}'])
    assert data.read('folder', root=str(tmp_path / out)).home.name == '1.0.0'
    assert data.read('folder', root=str(tmp_path / 'raw')).home == tmp_path / 'raw'


def test_no_raw_folder(tmp_path):
    with pytest.raises(DataError, match='raw: no such folder; set --manual_dir'):
        prepare.run(arguments(tmp_path))


def test_no_room_for_the_folder(tmp_path):
    plant_folder(tmp_path / 'raw')
    (tmp_path / 'out').write_text('a file in its place')
    with pytest.raises(DataError, match=r'default/1.0.0: cannot be written .*start again'):
        prepare.run(arguments(tmp_path))


def test_command_line_names_its_choices(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"name='market': .*cuhk03"):
        prepare.run(arguments(tmp_path, 'market'))
    with pytest.raises(SystemExit):
        prepare.run(arguments(tmp_path, 'carousel'))
    assert 'carousel lies in no folder' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare.run(['--dataset=cuhk03', '--help'])
    text = capsys.readouterr().out
    assert '--detected' in text
    assert '--on_bad_image' in text
