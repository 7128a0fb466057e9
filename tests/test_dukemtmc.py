"""DukeMTMC-reID, on a small tree with its traps."""

import pytest

from kd_jax import data
from kd_jax.data import dukemtmc
from kd_jax.data.records import DataError

TREE = {
    'bounding_box_train': (
        '0001_c2_f0046182.jpg',
        '0001_c2_f0046302.JPG',
        '0001_c8_f0000001.jpg',
        '7140_c1_f0100000.jpg',
        'Thumbs.db',
    ),
    'query': ('0005_c2_f0046985.jpg', '0005_c5_f0051781.jpg'),
    'bounding_box_test': (
        '.DS_Store',
        '0002_c1_f0044158.jpg',  # seen by one camera: a distractor that has a number
        '0005_c2_f0046991.jpg',
        '0005_c6_f0058034.jpg',
        '7139_c8_f0054321.jpg',
    ),
}


def plant(root, **changes):
    """A tree of empty files, with the names of some folders changed."""
    for folder, names in {**TREE, **changes}.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).touch()
    return str(root)


@pytest.mark.parametrize('level', ['', 'DukeMTMC-reID'])
def test_columns(tmp_path, level):
    root = tmp_path / '0001_c1_f0000001.jpg'
    plant(root / level)
    source = dukemtmc.read(root=str(root))
    names = [TREE['bounding_box_train'][:4], TREE['query'], TREE['bounding_box_test'][1:]]
    expected = [
        ([1, 1, 1, 7140], [1, 1, 7, 0], [0, 0, 1, 2], [46182, 46302, 1, 100000]),
        # Query and gallery are numbered together.
        ([5, 5], [1, 4], [1, 2], [46985, 51781]),
        ([2, 5, 5, 7139], [0, 1, 5, 7], [0, 1, 3, 4], [44158, 46991, 58034, 54321]),
    ]
    for folder, records, files, columns in zip(TREE, source[:3], names, expected):
        assert records.paths.tolist() == [f'{folder}/{name}' for name in files]
        assert tuple(column.tolist() for column in records[1:]) == columns
        assert records.paths.tolist() == sorted(records.paths.tolist())  # the numbers are padded
        assert all((source.home / path).is_file() for path in records.paths)
    assert source.home == root / level


@pytest.mark.parametrize(
    'name',
    [
        '0001_c2_0046182.jpg',
        '0001_c9_f0046182.jpg',
        '0001_c0_f0046182.jpg',
        '0000_c2_f0046182.jpg',
        '-1_c2_f0046182.jpg',
        '0001_c2s1_f0046182.jpg',
        '0001C2T0001F001.jpg',
    ],
)
@pytest.mark.parametrize('folder', ['bounding_box_train', 'bounding_box_test'])
def test_strange_names(tmp_path, folder, name):
    root = plant(tmp_path, **{folder: (*TREE[folder], name)})
    with pytest.raises(DataError, match=f'{folder}: {name}' + r' \(1\) not named like 0005_c2_f'):
        dukemtmc.read(root=root)


def test_identity_on_both_sides(tmp_path):
    root = plant(tmp_path, bounding_box_train=('0002_c1_f0000001.jpg',))
    with pytest.raises(DataError, match=r'identities 2 \(1\) are in the training'):
        dukemtmc.read(root=root)


@pytest.mark.parametrize('folder', TREE)
def test_folder_missing(tmp_path, folder):
    plant(tmp_path, **{folder: ()})
    (tmp_path / folder).rmdir()
    with pytest.raises(DataError, match=f'{folder}: no such folder; expected bounding_box_train'):
        dukemtmc.read(root=str(tmp_path))


def test_published_counts(tmp_path, caplog):
    data.read('dukemtmc', root=plant(tmp_path))
    for counted in (
        'train has 4 images, published are 16,522',
        'train has 2 identities, published are 702',
        'train has 3 cameras, published are 8',
        'query has 2 images, published are 2,228',
        'query has 1 identities, published are 702',
        'gallery has 4 images, published are 17,661',
        'gallery has 3 identities, published are 1,110',
    ):
        assert f'dukemtmc: {counted}' in caplog.text
