import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from preparing import (
    arguments,
    assert_same_pixels,
    assert_same_records,
    plant_folder,
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
    unbroken = prepared_from('folder', raw, tmp_path / 'unbroken', sequences=True)
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


@pytest.mark.parametrize('on_bad_image', ['error', 'skip'])
def test_started_again_it_makes_the_shards_of_changed_files_again(tmp_path, on_bad_image):
    """Nothing of what the first preparing found of the changed image is left, good or bad."""
    raw, more = plant_folder(tmp_path / 'raw'), {'on_bad_image': on_bad_image}
    file = tmp_path / 'raw' / 'bounding_box_train' / '0001_c1s1_000001_00.png'
    whole = file.read_bytes()
    if on_bad_image == 'skip':
        file.write_bytes(whole[:-60])

    def stop(path):
        if 'query' in path:
            raise KeyboardInterrupt
        return opened.append(path) or source.open(path)

    source, opened = data.reader('folder').read(root=raw), []
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare('folder', source._replace(open=stop), str(tmp_path / 'out'), **more)
    assert len(opened) == 5
    opened.clear()
    Image.new('RGB', (5, 9)).save(file)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare('folder', source._replace(open=stop), str(tmp_path / 'out'), **more)
    assert len(opened) == 2  # the first shard
    prepare.prepare('folder', source, str(tmp_path / 'out'), **more)
    found = data.read('folder', root=str(tmp_path / 'out'))
    assert_same_records(found, data.read('folder', root=raw))
    assert_same_pixels(found, data.read('folder', root=raw))


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
