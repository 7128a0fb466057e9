"""Market-1501, on a small tree with its traps, and its real columns if they are there."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from kd_jax import data
from kd_jax.data import market1501
from kd_jax.data.records import DataError

REAL = Path(__file__).parents[2] / 'shared' / 'splits' / 'market1501_eval'
TREE = {
    'bounding_box_train': (
        '0002_c1s1_000451_03.jpg',
        '0002_c1s1_000551_01.JPG',
        '0002_c1s2_000012_02.jpg',
        '1500_c6s3_000007_01.jpg',
        'Thumbs.db',
    ),
    'query': ('0001_c1s1_001051_00.jpg', '1501_c3s3_074483_00.jpg', '.DS_Store'),
    'bounding_box_test': (
        '-1_c1s1_000401_03.jpg',  # junk, not identity 1
        '-1_c6s4_000401_03.jpg',
        '0000_c1s1_000151_01.jpg',
        '0000_c2s1_000151_02.jpg',
        '0001_c1s1_002301_01.jpg',
        '0001_c2s1_000301_00.jpg',
        '1501_c6s4_001952_01.jpg',
        'Thumbs.db',
        '._0001_c1s1_002301_01.jpg',
    ),
    'gt_bbox': ('0002_c1s1_000451_00.jpg', '0001_c1s1_001051_00.jpg'),
    'gt_query': ('0001_c1s1_001051_00_good.mat',),
}
DISTRACTORS = (
    '-1_c1s1_000001_01.jpg',
    '00000000_c3_7.jpg',
    '0000_c1s1_000002_01.jpg',
    '0000_c6s2_0123456_01.jpg',
)


def plant(root, **changes):
    """A tree of empty files, with the names of some folders changed."""
    for folder, names in {**TREE, **changes}.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).touch()
    return str(root)


def plant_distractors(place):
    place.mkdir(parents=True)
    for name in DISTRACTORS:
        (place / name).touch()


def columns(records):
    """Base names, then the other columns, as lists."""
    names = [path.rpartition('/')[2] for path in records.paths.tolist()]
    return names, *(column.tolist() for column in records[1:])


@pytest.mark.parametrize('level', ['', 'Market-1501-v15.09.15'])
def test_columns(tmp_path, level):
    plant(tmp_path / '0009_c1s1_000001_00.jpg' / level)
    source = market1501.read(root=str(tmp_path / '0009_c1s1_000001_00.jpg'))
    names = [TREE[folder] for folder in ('bounding_box_train', 'query', 'bounding_box_test')]
    assert columns(source.train) == (
        [*names[0][:4]],
        [2, 2, 2, 1500],
        [0, 0, 0, 5],
        [0, 0, 1, 2],
        [451, 551, 12, 7],
    )
    # Query and gallery are numbered together: (0, c1), (0, c2), (1, c1), (1, c2), (1501, ...).
    assert columns(source.query) == ([*names[1][:2]], [1, 1501], [0, 2], [2, 4], [1051, 74483])
    assert columns(source.gallery) == (
        [*names[2][2:7]],
        [0, 0, 1, 1, 1501],
        [0, 1, 0, 1, 5],
        [0, 1, 2, 3, 5],
        [151, 151, 2301, 301, 1952],
    )
    assert source.train.paths[0] == 'bounding_box_train/0002_c1s1_000451_03.jpg'
    assert source.query.paths[0] == 'query/0001_c1s1_001051_00.jpg'
    assert source.gallery.paths[0] == 'bounding_box_test/0000_c1s1_000151_01.jpg'
    assert source.home == tmp_path / '0009_c1s1_000001_00.jpg' / level
    for records in source.splits().values():
        assert records.paths.tolist() == sorted(records.paths.tolist())  # the numbers are padded
        assert all((source.home / path).is_file() for path in records.paths)


@pytest.mark.parametrize(
    ('place', 'below'),
    [
        ('Market-1501-v15.09.15/images', 'Market-1501-v15.09.15'),
        ('Market-1501-v15.09.15/distractors_500k/images', 'Market-1501-v15.09.15'),
        ('images', ''),
        ('distractors_500k/images', ''),
    ],
)
@pytest.mark.parametrize('inner', [False, True])
def test_distractors_are_appended_to_the_gallery(tmp_path, monkeypatch, place, below, inner):
    release = tmp_path / 'Market-1501-v15.09.15'
    plant(release)
    plant_distractors(tmp_path / place)
    monkeypatch.chdir(release)
    root = '.' if inner else str(tmp_path)
    source = market1501.read(root=root, distractors_500k=True)
    # In the order of cameras, whatever zeros an identity begins with.
    names = [*TREE['bounding_box_test'][2:7], *(DISTRACTORS[n] for n in (2, 1, 3))]
    # Tracklets (0, c1), (0, c3), (0, c6) are the first, third and fourth of eight.
    assert columns(source.gallery) == (
        names,
        [0, 0, 1, 1, 1501, 0, 0, 0],
        [0, 1, 0, 1, 5, 0, 2, 5],
        [0, 1, 4, 5, 7, 0, 2, 3],
        [151, 151, 2301, 301, 1952, 2, 7, 123456],
    )
    assert columns(source.query)[1:] == ([1, 1501], [0, 2], [4, 6], [1051, 74483])
    assert columns(source.train)[1:4] == ([2, 2, 2, 1500], [0, 0, 0, 5], [0, 0, 1, 2])
    assert source.home == tmp_path / below
    for records in source.splits().values():
        assert all((source.home / path).is_file() for path in records.paths)
    assert source.expected['gallery'].images == 515_913


def test_distractors_are_not_read_unasked(tmp_path):
    plant_distractors(tmp_path / 'images')
    source = market1501.read(root=plant(tmp_path))
    assert len(source.gallery.paths) == 5
    assert source.expected['gallery'].images == 15_913


def test_distractors_missing(tmp_path):
    plant(tmp_path)
    with pytest.raises(DataError, match=r'500,000 distractors; .* one of \S+/images'):
        market1501.read(root=str(tmp_path), distractors_500k=True)


def test_distractors_of_an_identity(tmp_path):
    plant_distractors(tmp_path / 'images')
    (tmp_path / 'images' / '0001_c1s1_000001_01.jpg').touch()
    with pytest.raises(
        DataError, match=r'images: 0001_c1s1_000001_01.jpg \(1\) not named like 0000'
    ):
        market1501.read(root=plant(tmp_path), distractors_500k=True)


@pytest.mark.parametrize(
    'name',
    [
        '2_c1s1_000451_03.jpg',
        '0002_c7s1_000451_03.jpg',
        '0002_c0s1_000451_03.jpg',
        '0002_c1_000451_03.jpg',
        '0002_c1s1_000451.jpg',
        'x0002_c1s1_000451_03.jpg',
        '0002_c1s1_000451_03.png',
    ],
)
def test_strange_names(tmp_path, name):
    root = plant(tmp_path, bounding_box_train=(*TREE['bounding_box_train'], name))
    with pytest.raises(DataError, match=f'bounding_box_train: {name}' + r' \(1\) not named like'):
        market1501.read(root=root)


def test_identity_on_both_sides(tmp_path):
    root = plant(tmp_path, bounding_box_train=('0001_c1s1_000451_03.jpg',))
    with pytest.raises(DataError, match=r'identities 1 \(1\) are in the training'):
        market1501.read(root=root)


@pytest.mark.parametrize('name', ['bounding_box_train', 'query', 'bounding_box_test'])
def test_folder_missing(tmp_path, name):
    plant(tmp_path, **{name: ()})
    (tmp_path / name).rmdir()
    with pytest.raises(DataError, match=f'{name}: no such folder; expected bounding_box_train'):
        market1501.read(root=str(tmp_path))


@pytest.mark.skipif(not REAL.is_dir(), reason='the real columns are not here')
def test_real_columns(tmp_path, monkeypatch, caplog):
    def column(file, name):
        return scipy.io.loadmat(REAL / file)[name].ravel().astype(int)

    def listed(place, _):
        start = {pid: f'{pid:04d}' for pid in range(1502)} | {-1: '-1'}
        columns = enumerate(zip(*files[place.name]))
        return sorted(f'{start[p]}_c{c}s1_{i:06d}_00.jpg' for i, (p, c) in columns)

    files = {
        'bounding_box_train': (column('train_label.mat', 'label'), column('train_cam.mat', 'cam')),
        'query': (column('queryID.mat', 'queryID'), column('queryCam.mat', 'queryCAM')),
        'bounding_box_test': (column('testID.mat', 'testID'), column('testCam.mat', 'testCAM')),
    }
    monkeypatch.setattr('kd_jax.data.folder.images_in', listed)  # 36,036 files take seconds
    source = data.read('market1501', root=str(tmp_path))
    assert not caplog.text  # the counts are those that are published
    assert (source.gallery.pids == 0).sum() == 2798
    for records, (pids, cameras) in zip(source[:3], files.values()):
        np.testing.assert_array_equal(records.pids, pids[pids != -1])
        np.testing.assert_array_equal(records.cameras, cameras[pids != -1] - 1)
