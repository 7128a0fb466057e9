import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from preparing import (
    assert_same_pixels,
    assert_same_records,
    plant_folder,
    plant_matrix,
    prepared_from,
)

from kd_jax import data
from kd_jax.data import builders, parts, prepare
from kd_jax.data.records import DataError

KILLED = """
import os, re, signal, sys
from kd_jax.data import builders, prepare

event, pattern, *arguments = sys.argv[1:]

def kill(name, values):
    if name == event and re.search(pattern, str(values)):
        os.kill(os.getpid(), signal.SIGKILL)

builders.SHARD = 2
sys.addaudithook(kill)
prepare.run(arguments)
"""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(builders, 'SHARD', 2)


def arguments(tmp_path, name='folder', *more):
    places = f'--manual_dir={tmp_path / "raw"}', f'--data_dir={tmp_path / "out"}'
    return [f'--dataset={name}', *places, *more]


@pytest.mark.parametrize(
    ('event', 'pattern', 'kept'),
    [
        ('os.rename', r'train\S+-00001-of-00003.json', 1),  # the note that the shard is whole
        ('os.rename', r'query\S+-00000-of-00001\W', 3),  # the shard itself
        ('os.link', r'gallery\S+-00000-of-00001', 5),  # while tfds gets the shards
        ('os.rename', r'default/1\.0\.0', 5),  # the whole folder
    ],
)
def test_killed_and_started_again(tmp_path, event, pattern, kept):
    """Shards that were whole are not made again, and the end is that of an unbroken one."""
    raw = plant_folder(tmp_path / 'raw')
    command = [sys.executable, '-c', KILLED, event, pattern, *arguments(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list((tmp_path / 'out').glob('folder/default/1.0.0'))
    (made,) = (tmp_path / 'out').glob(f'folder/default/{parts.PREFIX}*')
    notes = {file.stem: (made / file.stem).stat() for file in made.glob('*.json')}
    assert len(notes) == kept

    prepare.run(arguments(tmp_path))
    folder = tmp_path / 'out' / 'folder' / 'default' / '1.0.0'
    for name, stat in notes.items():
        assert (folder / name).stat().st_ino == stat.st_ino
        assert (folder / name).stat().st_mtime_ns == stat.st_mtime_ns
    unbroken = prepared_from('folder', raw, tmp_path / 'unbroken')
    one, two = ({f.name: f.read_bytes() for f in place.iterdir()} for place in (folder, unbroken))
    assert one == two
    assert os.listdir(folder.parent) == ['1.0.0']
    assert os.listdir(tmp_path / 'out') == ['folder']


def test_started_again_it_opens_no_image_of_a_whole_shard(tmp_path):
    raw = plant_folder(tmp_path / 'raw')
    bad = tmp_path / 'raw' / 'bounding_box_test' / '0003_c2s1_000001_00.png'
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-60])
    with pytest.raises(DataError, match=r'0003_c2s1'):
        prepare.run(arguments(tmp_path))
    bad.write_bytes(whole)
    source, opened = data.reader('folder').read(root=raw), []
    source = source._replace(open=lambda path, open=source.open: opened.append(path) or open(path))
    prepare.prepare('folder', source, str(tmp_path / 'out'))
    assert sorted(opened) == sorted(source.gallery.paths)


def test_shards_of_other_images_are_not_taken(tmp_path):
    raw = plant_folder(tmp_path / 'raw')
    bad = tmp_path / 'raw' / 'query' / '0003_c1s1_000001_00.png'
    whole = bad.read_bytes()
    bad.write_bytes(b'no image')
    with pytest.raises(DataError, match='query/0003_c1s1'):
        prepare.run(arguments(tmp_path))
    bad.write_bytes(whole)
    folder = tmp_path / 'raw' / 'bounding_box_train'
    (folder / '0001_c1s1_000001_00.png').rename(folder / '0008_c1s1_000001_00.png')
    prepare.run(arguments(tmp_path))
    found, expected = (data.read('folder', root=root) for root in (str(tmp_path / 'out'), raw))
    assert_same_records(found, expected)
    assert_same_pixels(found, expected)
    assert os.listdir(tmp_path / 'out' / 'folder' / 'default') == ['1.0.0']


def test_started_again_bad_images_are_no_longer_left_out(tmp_path):
    plant_folder(tmp_path / 'raw')
    bad = tmp_path / 'raw' / 'bounding_box_train' / '0001_c1s1_000001_00.png'
    (tmp_path / 'raw' / 'query' / '0003_c1s1_000001_00.png').write_text('no image')
    bad.write_bytes(bad.read_bytes()[:-60])
    with pytest.raises(DataError, match='query would have no images'):
        prepare.run(arguments(tmp_path, 'folder', '--on_bad_image=skip'))
    with pytest.raises(DataError, match=r'0001_c1s1_000001_00\.png: .*truncated'):
        prepare.run(arguments(tmp_path))


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


def test_raw_and_prepared_may_have_one_folder(tmp_path):
    plant_matrix(tmp_path / 'raw')
    places = f'--manual_dir={tmp_path / "raw"}', f'--data_dir={tmp_path / "raw"}'
    for _ in range(2):
        prepare.run(['--dataset=cuhk03', *places])
    assert data.read('cuhk03', root=str(tmp_path / 'raw')).home.name == '1.0.0'


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
