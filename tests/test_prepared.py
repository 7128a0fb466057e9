import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preparing import (
    PLANT,
    assert_same_pixels,
    assert_same_records,
    plant_folder,
    plant_matrix,
    prepared_from,
    use_bucket,
)
from test_atrw import plant as plant_tigers

from kd_jax import data
from kd_jax.data import builders, prepared
from kd_jax.data.records import Counts, DataError

SIZE = {'height': 8, 'width': 4}
TRAIN = 'bounding_box_train/0001_c1s1_000001_00.png'


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(builders, 'SHARD', 2)


@pytest.fixture
def folder(tmp_path):
    return prepared_from('folder', plant_folder(tmp_path / 'raw'), tmp_path / 'out')


@pytest.mark.parametrize('feed', ['stream', 'cached'])
@pytest.mark.parametrize('name', PLANT)
def test_is_read_as_the_raw_folder(tmp_path, name, feed):
    raw, out = PLANT[name](tmp_path / 'raw'), str(tmp_path / 'out')
    prepared_from(name, raw, out)
    before = data.load(name=name, root=raw, feed=feed, **SIZE)
    after = data.load(name=name, root=out, feed=feed, **SIZE)
    assert after.fingerprint == before.fingerprint
    for split, expected in before.splits().items():
        found = after.splits()[split]
        rows = np.arange(len(expected.records.pids))
        for here, there in zip(found.records, expected.records):
            np.testing.assert_array_equal(here, there)
        np.testing.assert_array_equal(found.pixels.read(rows), expected.pixels.read(rows))
    sources = data.read(name, root=out), data.read(name, root=raw)
    assert_same_records(*sources)
    assert_same_pixels(*sources)


def test_files_are_stored_as_they_are(tmp_path, folder):
    stored = b''.join(file.read_bytes() for file in Path(folder).glob('*-train.array_record-*'))
    for file in (tmp_path / 'raw' / 'bounding_box_train').iterdir():
        assert file.read_bytes() in stored


def test_what_is_beside_the_records_survives(tmp_path):
    """Further test sets, pools, published counts."""
    sizes = {'sizes': (1600, 800)}
    raw = data.read('vehicleid', root=plant_lists(tmp_path / 'raw'), **sizes)
    prepared_from('vehicleid', str(tmp_path / 'raw'), tmp_path / 'out', **sizes)
    found = data.read('vehicleid', root=str(tmp_path / 'out'), **sizes)
    assert_same_records(found, raw)
    assert_same_pixels(found, raw)
    assert found.test == raw.test
    assert len(found.more) == 1
    assert all(query is gallery for query, gallery in found.tests().values())
    assert found.expected == raw.expected
    assert isinstance(found.expected['train'], Counts)
    assert found.home.parent.name == 'sizes_1600_800'


def plant_lists(root):
    """VehicleID with two test sets."""
    lists = {'train_list': (1, 2), 'test_list_800': (3, 4), 'test_list_1600': (3, 4, 5)}
    for folder in ('image', 'train_test_split'):
        (root / folder).mkdir(parents=True)
    for name, identities in lists.items():
        lines = [f'{identity:07d} {identity}\n' for identity in identities]
        (root / 'train_test_split' / f'{name}.txt').write_text(''.join(lines))
        for identity in identities:
            Image.new('RGB', (3, 4), (identity,) * 3).save(root / f'image/{identity:07d}.jpg')
    return str(root)


def test_root_may_be_the_prepared_folder_itself(tmp_path, folder):
    assert data.read('folder', root=str(folder)).home == Path(folder)
    with pytest.raises(DataError, match=r'prepared as folder/default/1.0.0, but market1501/def'):
        data.read('market1501', root=str(folder))


def test_other_options_are_named_and_how_to_prepare_them(tmp_path, folder):
    prepared_from('cuhk03', plant_matrix(tmp_path / 'mat'), tmp_path / 'out')
    (tmp_path / 'out' / '.hidden').write_text('')
    message = (
        r'detected_True/1.0.0: no such prepared data set; there is .*cuhk03/default/1.0.0\. '
        'Prepare it with python -m kd_jax.data.prepare --dataset=cuhk03 --detected=true '
        f'--manual_dir=DIR --data_dir={tmp_path / "out"}$'
    )
    with pytest.raises(DataError, match=message):
        data.read('cuhk03', root=str(tmp_path / 'out'), detected=True, classic_split=-1)


@pytest.mark.parametrize('beside', ['', 'more'])
def test_prepared_with_other_options_beside_what_is_raw(tmp_path, caplog, beside):
    """In the raw folder itself: what is not prepared is read raw."""
    raw = PLANT['duke_video'](tmp_path / 'raw')
    prepared_from('duke_video', raw, raw, merge=True)
    if beside:
        prepared_from('folder', plant_folder(tmp_path / 'more'), raw)
    assert data.read('duke_video', root=raw).home == tmp_path / 'raw'
    assert f'merge_True/1.0.0; reading {raw} as the raw data set' in caplog.text


def test_another_version_is_named(tmp_path, folder):
    folder.rename(folder.parent / '0.9.0')
    with pytest.raises(DataError, match=r'there is .*default/0.9.0. Prepare it with python -m'):
        data.read('folder', root=str(tmp_path / 'out'))


def test_a_raw_folder_is_no_prepared_one(tmp_path):
    raw = plant_folder(tmp_path / 'folder')  # of the data set's own name
    read = data.reader('folder').read
    assert prepared.find('folder', read, {'root': str(tmp_path)}) is None
    assert prepared.find('folder', read, {'root': ''}) is None
    assert data.read('folder', root=raw).home == tmp_path / 'folder'


def _truncate(file):
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    ('name', 'spoil', 'message'),
    [
        ('records.npz', Path.unlink, 'cannot be read .*No such file.*prepare it again'),
        ('records.npz', _truncate, 'cannot be read .*; remove the folder'),
        ('metadata.json', _truncate, 'cannot be read .*; remove the folder'),
        ('metadata.json', lambda file: file.write_text('{}'), 'not of a data set that this'),
        ('folder-train.array_record-00000-of-00003', Path.unlink, r'has 0 bytes, not \d'),
        ('folder-train.array_record-00000-of-00003', _truncate, r'has 100 bytes, not \d'),
    ],
)
def test_damage_is_noticed_at_once(tmp_path, folder, name, spoil, message):
    spoil(Path(folder) / name)
    with pytest.raises(DataError, match=f'{name}: {message}'):
        data.read('folder', root=str(tmp_path / 'out'))


def test_other_lengths_than_the_records(tmp_path, folder):
    info = json.loads((folder / 'dataset_info.json').read_text())
    info['splits'][0]['shardLengths'] = ['1']
    (folder / 'dataset_info.json').write_text(json.dumps(info))
    with pytest.raises(DataError, match=r'records.npz: does not agree with the files beside it'):
        data.read('folder', root=str(tmp_path / 'out'))


@pytest.mark.parametrize('start', [0, 100])
def test_bytes_that_changed_are_noticed_when_they_are_read(tmp_path, folder, start):
    source = data.read('folder', root=str(tmp_path / 'out'))
    file = Path(folder) / 'folder-train.array_record-00000-of-00003'
    found = bytearray(file.read_bytes())
    found[start:] = bytes(len(found) - start)
    file.write_bytes(found)
    with pytest.raises(DataError, match=r'train.array_record-00000-of-00003: damaged .*; remove'):
        source.open(TRAIN)


def test_stamp_changes_with_pixels_alone(tmp_path, folder):
    raw, file = tmp_path / 'raw', tmp_path / 'raw' / TRAIN
    stamps = [prepared.source(folder).stamp(None)]
    for name in ('again', 'other'):
        if name == 'other':
            Image.new('RGB', (5, 9)).save(file)
        made = prepared_from('folder', str(raw), tmp_path / name)
        stamps.append(prepared.source(made).stamp(None))
    assert stamps[0] == stamps[1] != stamps[2]


def test_mirrored_images_are_stored_mirrored(tmp_path):
    root, out = plant_tigers(tmp_path / 'raw'), str(tmp_path / 'out')
    prepared_from('atrw', root, out, flips=True)
    found, raw = (data.read('atrw', root=place, flips=True) for place in (out, root))
    assert any(path.endswith('#flipped') for path in raw.train.paths)
    assert_same_records(found, raw)
    assert_same_pixels(found, raw)


def test_threads_read_at_once(tmp_path):
    raw, out = PLANT['duke_video'](tmp_path / 'raw'), str(tmp_path / 'out')
    prepared_from('duke_video', raw, out)
    found, expected = data.read('duke_video', root=out), data.read('duke_video', root=raw)
    sizes = {}
    for path in (path for records in expected.splits().values() for path in records.paths):
        with expected.open(path) as image:
            sizes[path] = image.size
    with ThreadPoolExecutor(8) as pool:
        assert (
            list(pool.map(lambda path: found.open(path).size, [*sizes] * 20))
            == [*sizes.values()] * 20
        )


def test_forked_processes_and_no_tensorflow(tmp_path, folder):
    code = """
import os, sys
from kd_jax import data
source = data.read('folder', root=sys.argv[1])
source.open(source.train.paths[0]).load()
child = os.fork()
source.open(source.train.paths[1]).load()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)
"""
    root = Path(__file__).parents[1]
    command = [sys.executable, '-c', code, str(tmp_path / 'out')]
    subprocess.run(command, cwd=root, check=True, timeout=60)


def test_remote(tmp_path, monkeypatch, caplog):
    use_bucket(monkeypatch, tmp_path / 'cloud')
    raw, cache = plant_folder(tmp_path / 'raw'), tmp_path / 'cache'
    folder = prepared_from('folder', raw, 'gs://bucket/data')
    assert str(folder) == 'gs://bucket/data/folder/default/1.0.0'
    assert [p.name for p in folder.parent.iterdir()] == ['1.0.0']
    with pytest.raises(DataError, match=r'gs://bucket.*--config\.data\.cache_dir=DIR'):
        data.read('folder', root='gs://bucket/data')
    found = data.read('folder', root='gs://bucket/data', cache_dir=str(cache))
    assert found.home is None
    expected = data.read('folder', root=raw)
    assert_same_records(found, expected)
    assert_same_pixels(found, expected)
    (copies,) = cache.iterdir()
    times = {file: file.stat().st_mtime_ns for file in copies.iterdir()}
    options = {'name': 'folder', 'cache_dir': str(cache), **SIZE}
    remote, local = (data.load(root=root, **options) for root in ('gs://bucket/data', raw))
    assert remote.fingerprint == local.fingerprint
    assert times == {file: file.stat().st_mtime_ns for file in copies.iterdir()}
    with pytest.raises(DataError, match=r'gs://bucket/none.*no such prepared data set; there'):
        data.read('folder', root='gs://bucket/none')
