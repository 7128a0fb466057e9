"""The classic protocol of CUHK03, on fakes with the structure of the real files."""

import json

import numpy as np
import pytest
from test_cuhk03 import GALLERY, NAMES, PIDS, QUERY, TRAIN, picture, plant_mat, plant_pngs

from kd_jax import data
from kd_jax.data import cuhk03
from kd_jax.data.records import DataError

TEST = sorted(QUERY + GALLERY)
# Pair and person, both from 1: persons 1_003, 2_002, and both with one who has no image.
TESTSETS = [[[1, 3]], [[2, 2]], [[1, 3], [2, 2], [2, 1]], *[[[1, 1]]] * 17]


def plant_listing(folder, version='labeled', **changes):
    """As torchreid wrote it elsewhere; only the split of number 3 is whole."""

    def rows(names, labels):
        return [[f'C:\\cuhk03\\{name}', labels[name[:5]], int(name[6]) - 1] for name in names]

    labels = {'1_001': 0, '2_002': 1}
    split = {
        'train': rows(reversed(TRAIN), labels),
        'query': rows(TEST, PIDS),
        'gallery': rows(reversed(TEST), PIDS),
        'num_train_pids': 2,
    }
    splits = [{key: [] for key in split}] * 20
    splits[3] = {**split, **changes}
    (folder / f'splits_classic_{version}.json').write_text(json.dumps(splits))


def assert_split(source):
    """Whether persons 1_001 and 2_002 are trained on, and 1_003 is the pool."""
    expected = [
        (TRAIN, [1, 1, 845, 845], [0, 1, 0, 1], [0, 1, 2, 3], [1, 6, 3, 10]),
        (TEST, [3, 3, 3, 3], [0, 0, 1, 1], [0, 0, 1, 1], [1, 2, 7, 10]),
    ]
    assert source.query is source.gallery
    assert [*source.splits()] == [*source.expected] == ['train', 'test']
    for records, (names, *columns) in zip(source[:2], expected):
        assert records.paths.tolist() == [f'images_labeled/{name}' for name in names]
        assert [column.tolist() for column in records[1:]] == columns
        for path, name in zip(records.paths.tolist(), names):
            with source.open(path) as image:
                np.testing.assert_array_equal(np.asarray(image), picture(name))


@pytest.mark.parametrize('place', ['cuhk-03.mat', 'cuhk03_release/cuhk-03.mat'])
@pytest.mark.parametrize('pngs', [False, True])
def test_testsets(tmp_path, place, pngs):
    plant_mat(tmp_path / place, testsets=TESTSETS)
    if pngs:
        plant_pngs(tmp_path)
    source = cuhk03.read(root=str(tmp_path), classic_split=0)
    assert_split(source)
    assert source.home == (tmp_path if pngs else (tmp_path / place).parent)


def test_every_split_has_test_persons_of_its_own(tmp_path):
    plant_mat(tmp_path / 'cuhk-03.mat', testsets=TESTSETS)
    tested = []
    for number in (0, 1, 2, 19):
        source = cuhk03.read(root=str(tmp_path), classic_split=number)
        assert set(source.train.pids) | set(source.query.pids) == {1, 3, 845}
        tested.append({*source.query.pids.tolist()})
    assert tested == [{3}, {845}, {3, 845}, {1}]


def test_half_extracted_pngs_change_no_split(tmp_path):
    plant_mat(tmp_path / 'cuhk-03.mat', testsets=TESTSETS)
    plant_pngs(tmp_path, NAMES[3:])
    assert_split(cuhk03.read(root=str(tmp_path), classic_split=0))


def test_listing(tmp_path):
    plant_listing(tmp_path)
    plant_pngs(tmp_path)
    assert_split(cuhk03.read(root=str(tmp_path), classic_split=3))


def test_listed_image_missing(tmp_path):
    plant_listing(tmp_path)
    plant_pngs(tmp_path, NAMES[1:])
    with pytest.raises(DataError, match=r'images_labeled: 1_001_1_01.png missing \(1 of 8\)'):
        cuhk03.read(root=str(tmp_path), classic_split=3)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'gallery': []}, 'query and gallery differ'),
        ({'train': [['a/1_003_1_01.png', 0, 0]]}, 'an image is listed twice'),
        ({'train': [['a/1_003_1_05.png', 0, 0]]}, r'identities 3 \(1\) are in the training'),
        ({'train': [['a/1_003_1_05.png', 0]]}, 'expected a list of 20 objects'),
    ],
)
def test_faulty_listing(tmp_path, changes, message):
    plant_listing(tmp_path, **changes)
    with pytest.raises(DataError, match=f'splits_classic_labeled.json: {message}'):
        cuhk03.read(root=str(tmp_path), classic_split=3)


def test_listing_of_another_number_of_splits(tmp_path):
    (tmp_path / 'splits_classic_labeled.json').write_text('[{}, {}]')
    with pytest.raises(DataError, match=r'expected a list of 20 objects .*2 of them'):
        cuhk03.read(root=str(tmp_path), classic_split=0)


@pytest.mark.parametrize(
    ('testsets', 'message'),
    [
        ((), 'expected `testsets`, 20 cells'),
        ([[[1, 3]]], 'expected `testsets`, 20 cells'),
        ([[[1, 3, 2]]] * 20, 'expected `testsets`, 20 cells'),
        ([[[0, 3]]] * 20, 'no persons from 1'),
        ([[[1, 0]]] * 20, 'no persons from 1'),
        ([[[3, 78]]] * 20, 'no persons from 1'),
        ([[[1.5, 3]]] * 20, 'no persons from 1'),
    ],
)
def test_faulty_testsets(tmp_path, testsets, message):
    plant_mat(tmp_path / 'cuhk-03.mat', testsets=testsets)
    with pytest.raises(DataError, match=f'cuhk-03.mat: .*{message}'):
        cuhk03.read(root=str(tmp_path), classic_split=7)


def test_mat_that_is_none(tmp_path):
    (tmp_path / 'cuhk-03.mat').write_text('half a download')
    with pytest.raises(DataError, match=r'cuhk-03\.mat: expected an HDF5 file'):
        cuhk03.read(root=str(tmp_path), classic_split=0)


def test_no_file_with_the_split(tmp_path):
    with pytest.raises(DataError, match=r'neither cuhk-03\.mat nor splits_classic_detected'):
        cuhk03.read(root=str(tmp_path), detected=True, classic_split=0)


@pytest.mark.parametrize('number', [-2, 20])
def test_unknown_split(number):
    with pytest.raises(ValueError, match=f'classic_split={number}: choose 0..19, or -1'):
        cuhk03.read(root='', classic_split=number)


def test_unpublished_counts_are_logged(tmp_path, caplog):
    plant_mat(tmp_path / 'cuhk-03.mat', testsets=TESTSETS)
    data.read('cuhk03', root=str(tmp_path), classic_split=0)
    assert 'cuhk03: train has 2 identities, published are 1,367' in caplog.text
    assert 'cuhk03: test has 1 identities, published are 100' in caplog.text
    assert 'cameras' not in caplog.text
    assert 'images' not in caplog.text
