import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cuhk03 import plant_mat, plant_protocol

from kd_jax import data
from kd_jax.data.images import ImageError
from kd_jax.data.records import DataError

NAMES = {
    'bounding_box_train': (
        '0001_c1s1_000001_00.png',
        '0001_c2s1_000004_00.png',
        '0002_c2s1_000001_00.png',
    ),
    'query': ('0003_c1s1_000001_00.png',),
    'bounding_box_test': ('0003_c2s1_000001_00.png', '0000_c3s1_000001_00.png'),
}
SIZE = {'height': 8, 'width': 4}


def plant(root, **changes):
    rng = np.random.default_rng(0)
    for folder, names in {**NAMES, **changes}.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 256, (9, 5, 3), np.uint8)
            Image.fromarray(pixels).save(root / folder / name)
    return str(root)


@pytest.mark.parametrize('feed', data.FEEDS)
def test_load_folder(tmp_path, feed):
    dataset = data.load(name='folder', root=plant(tmp_path), feed=feed, **SIZE)
    assert dataset.name == 'folder'
    assert dataset.classes == 2
    for split, count in zip(dataset[1:4], (3, 1, 2)):
        assert len(split.records.pids) == count
        assert split.pixels.read(np.arange(count)).shape == (count, 8, 4, 3)
        assert (split.pixels.array is None) == (feed == 'stream')


def test_load_cuhk03(tmp_path):
    plant_protocol(tmp_path)
    plant_mat(tmp_path / 'cuhk-03.mat')
    dataset = data.load(name='cuhk03', root=str(tmp_path), channels=1, **SIZE)
    assert dataset.classes == 2
    assert dataset.train.pixels.read(np.arange(4)).shape == (4, 8, 4, 1)


@pytest.mark.parametrize('feed', data.FEEDS)
def test_load_carousel(feed):
    people = {'train_identities': 3, 'test_identities': 2}
    dataset = data.load(name='carousel', feed=feed, **people, **SIZE)
    assert dataset.classes == 3
    assert dataset.query.pixels.read(np.arange(2)).any()


def test_fingerprint_is_of_the_content(tmp_path):
    def fingerprint(root, **options):
        return data.load(name='folder', root=root, **{**SIZE, **options}).fingerprint

    here, there = plant(tmp_path / 'here'), plant(tmp_path / 'there')
    assert fingerprint(here) == fingerprint(there) == fingerprint(here, feed='stream')
    more = (*NAMES['query'], '0003_c1s1_000002_00.png')
    others = [
        fingerprint(here, height=7),
        fingerprint(here, width=8),
        fingerprint(here, channels=1),
        fingerprint(plant(tmp_path / 'more', query=more)),
    ]
    assert len({fingerprint(here), *others}) == 5


def test_describe(tmp_path):
    dataset = data.load(name='folder', root=plant(tmp_path), **SIZE)
    head, *table = data.describe(dataset).splitlines()
    assert head == f'folder {dataset.fingerprint}'
    assert [line.split() for line in table] == [
        ['images', 'identities', 'cameras', 'tracklets', 'distractors'],
        ['train', '3', '2', '2', '3', '0'],
        ['query', '1', '1', '1', '1', '0'],
        ['gallery', '2', '1', '2', '2', '1'],
    ]


@pytest.mark.parametrize('name', ['market', 'records', '', 'folder.read'])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=f"name='{name}': .*carousel.*cuhk03.*folder"):
        data.load(name=name, **SIZE)


def test_misspelt_key(tmp_path):
    with pytest.raises(TypeError, match=r"data set folder: .*'rooot'"):
        data.load(name='folder', root=plant(tmp_path), rooot='', **SIZE)


def test_unknown_feed(tmp_path):
    with pytest.raises(ValueError, match="feed='disk': choose one of stream, cached, device"):
        data.load(name='folder', root=plant(tmp_path), feed='disk', **SIZE)


def test_one_identity_cannot_be_trained_on(tmp_path):
    root = plant(tmp_path, bounding_box_train=NAMES['bounding_box_train'][:1])
    with pytest.raises(DataError, match='folder: train has 1 identity in 1 images'):
        data.load(name='folder', root=root, **SIZE)


@pytest.mark.parametrize('split', ['query', 'gallery'])
def test_split_of_bad_images_only(tmp_path, split):
    root = plant(tmp_path)
    folder = {'query': 'query', 'gallery': 'bounding_box_test'}[split]
    for file in (tmp_path / folder).iterdir():
        file.write_text('no image')
    with pytest.raises(ImageError, match=f'{folder}/000'):
        data.load(name='folder', root=root, **SIZE)
    with pytest.raises(DataError, match=f'folder: {split} has 0 images'):
        data.load(name='folder', root=root, on_bad_image='skip', **SIZE)


def test_reading_data_does_not_import_tensorflow():
    code = 'import sys; from kd_jax.data import carousel, cuhk03, folder\n'
    code += "assert not {'tensorflow', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[1], check=True)
