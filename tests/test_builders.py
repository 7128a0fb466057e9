import numpy as np
import pytest
import tensorflow_datasets as tfds
from preparing import (
    PLANT,
    assert_same_pixels,
    assert_same_records,
    plant_folder,
    plant_tracklets,
    prepared_from,
)

from kd_jax import data
from kd_jax.data import builders
from kd_jax.data.records import DataError, fingerprint

BAD = 'bounding_box_train/0001_c2s1_000001_00.png'
QUERY = 'query/0003_c1s1_000001_00.png'


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(builders, 'SHARD', 1)


def truncate(root, path):
    """Half of an image, whose head is whole."""
    file = root / path
    file.write_bytes(file.read_bytes()[:-60])


def test_a_class_is_made_once_and_known_by_the_name_of_the_data_set():
    made = builders.builder_class('duke_video')
    assert made is builders.builder_class('duke_video')
    assert made.name == 'duke_video'
    assert made.__name__ == 'DukeVideo'
    assert 'duke_video' in tfds.list_builders(with_community_datasets=False)
    assert 'ROOT/{train,query,gallery}/' in made.__doc__
    with pytest.raises(ValueError, match=r"name='records'.*choose one of.*duke_video"):
        builders.builder_class('records')


@pytest.mark.parametrize('name', ['folder', 'duke_video'])
def test_without_a_source_it_reads_the_manual_dir(tmp_path, name):
    raw, out = PLANT[name](tmp_path / 'raw'), str(tmp_path / 'out')
    builders.create(name, data_dir=out, manual_dir=raw).download_and_prepare()
    found, expected = data.read(name, root=out), data.read(name, root=raw)
    assert_same_records(found, expected)
    assert_same_pixels(found, expected)


@pytest.mark.parametrize('name', ['folder', 'cuhk03'])
def test_tfds_reads_images(tmp_path, name):
    raw = PLANT[name](tmp_path / 'raw')
    folder = prepared_from(name, raw, tmp_path / 'out')
    builder = tfds.builder_from_directory(folder)
    source = data.reader(name).read(root=raw)
    assert list(builder.info.splits) == ['train', 'query', 'gallery']
    for split, records in source.splits().items():
        found = list(builder.as_data_source(split))
        assert [example['path'].decode() for example in found] == records.paths.tolist()
        columns = {'pid': 'pids', 'camera': 'cameras', 'tracklet': 'tracklets', 'frame': 'frames'}
        for key, column in columns.items():
            assert [example[key] for example in found] == getattr(records, column).tolist()
        for example, path in zip(found, records.paths):
            with source.open(path) as image:
                np.testing.assert_array_equal(example['image'], np.asarray(image))


def test_tfds_reads_tracklets(tmp_path):
    raw = plant_tracklets(tmp_path / 'raw')
    folder = prepared_from('duke_video', raw, tmp_path / 'out')
    builder = tfds.builder_from_directory(folder)
    first, second, third = builder.as_data_source('train')
    assert [example['pid'] for example in (first, second, third)] == [1, 1, 7]
    assert [example['camera'] for example in (first, second, third)] == [5, 1, 1]
    assert [example['tracklet'] for example in (first, second, third)] == [0, 1, 2]
    assert list(first['frame']) == [1, 2, 3]
    names = [f'train/0001/0001/0001_C6_F000{n}_X1.jpg' for n in (1, 2, 3)]
    assert [name.decode() for name in first['names']] == names
    assert list(first['frames']) == [(tmp_path / 'raw' / name).read_bytes() for name in names]
    assert len(second['frames']) == 1


def test_metadata(tmp_path):
    raw = plant_folder(tmp_path / 'raw')
    source = data.reader('folder').read(root=raw)
    found = tfds.builder_from_directory(
        prepared_from('folder', raw, tmp_path / 'out')
    ).info.metadata
    assert found['fingerprint'] == fingerprint(source.train, source.query, source.gallery)
    assert (found['reader'], found['config'], found['options']) == ('folder', 'default', {})
    assert found['counts']['train'] == dict(images=5, identities=3, cameras=3, tracklets=5)
    assert found['left_out'] == {'train': {}, 'query': {}, 'gallery': {}}
    assert found['kd_jax']


def test_equal_images_make_equal_files(tmp_path):
    raw = plant_folder(tmp_path / 'raw')
    folders = [prepared_from('folder', raw, tmp_path / out) for out in ('one', 'two')]
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert one == two
    assert sorted(one)[1:4] == [
        'features.json',
        'folder-gallery.array_record-00000-of-00002',
        'folder-gallery.array_record-00001-of-00002',
    ]


def test_a_bad_image_stops_it_and_leaves_nothing_that_looks_whole(tmp_path):
    raw = plant_folder(tmp_path / 'raw')
    truncate(tmp_path / 'raw', BAD)
    with pytest.raises(DataError, match=f'{BAD}: .*; replace it, or .*--on_bad_image=skip'):
        prepared_from('folder', raw, tmp_path / 'out')
    assert not list((tmp_path / 'out').rglob('dataset_info.json'))
    assert not list((tmp_path / 'out').rglob('1.0.0'))


def test_bad_images_may_be_left_out(tmp_path, caplog):
    """Here a shard is left without an example; the records are those of the raw folder."""
    raw, out = plant_folder(tmp_path / 'raw'), str(tmp_path / 'out')
    truncate(tmp_path / 'raw', BAD)
    folder = prepared_from('folder', raw, out, on_bad_image='skip')
    assert f'leaving out {BAD}' in caplog.text
    wanted = {'name': 'folder', 'height': 8, 'width': 4}
    found = data.load(root=out, **wanted)
    expected = data.load(root=raw, on_bad_image='skip', feed='stream', **wanted)
    assert found.fingerprint == expected.fingerprint
    rows = np.arange(4)
    np.testing.assert_array_equal(found.train.pixels.read(rows), expected.train.pixels.read(rows))
    builder = tfds.builder_from_directory(folder)
    assert [example['pid'] for example in builder.as_data_source('train')] == [1, 2, 2, 7]
    assert list(builder.info.metadata['left_out']['train']) == [BAD]
    with pytest.raises(DataError, match=f'{BAD}: .*--on_bad_image=skip'):
        prepared_from('folder', raw, tmp_path / 'again')


@pytest.mark.parametrize('which', ['first', 'all'])
def test_bad_frames_are_left_out_of_a_tracklet(tmp_path, which):
    raw, out = plant_tracklets(tmp_path / 'raw'), str(tmp_path / 'out')
    source = data.reader('duke_video').read(root=raw)
    bad = source.train.paths[: 1 if which == 'first' else 3]
    for path in bad:
        truncate(tmp_path / 'raw', path)
    prepared_from('duke_video', raw, out, on_bad_image='skip')
    found = data.read('duke_video', root=out)
    assert found.train.paths.tolist() == source.train.paths[len(bad) :].tolist()
    assert_same_pixels(found, source._replace(train=found.train))


def test_nothing_left_of_a_split(tmp_path):
    raw = plant_folder(tmp_path / 'raw')
    truncate(tmp_path / 'raw', QUERY)
    with pytest.raises(DataError, match='folder: query would have no images'):
        prepared_from('folder', raw, tmp_path / 'out', on_bad_image='skip')


def test_a_missing_image_is_no_bad_one(tmp_path):
    raw = plant_folder(tmp_path / 'raw')
    source = data.reader('folder').read(root=raw)
    (tmp_path / 'raw' / QUERY).unlink()
    builder = builders.create(
        'folder', data_dir=str(tmp_path / 'out'), source=source, on_bad_image='skip'
    )
    with pytest.raises(DataError, match=f'{QUERY}: listed, but No such file'):
        builder.download_and_prepare()
