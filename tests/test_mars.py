"""MARS, on fakes with the structure of the real files, and on the real index if there."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from kd_jax import data
from kd_jax.data import mars
from kd_jax.data.records import JUNK, Counts, DataError, counts, select

REAL = Path(__file__).parents[2] / 'shared' / 'splits' / 'mars_info'
TRAIN = [
    *('0001C1T0001F001.jpg', '0001C1T0001F002.jpg', '0001C2T0013F119.jpg', '0001C2T0013F120.jpg'),
    '0003C6T0002F001.jpg',
]
TRAIN_ROWS = [[1, 2, 1, 1], [3, 4, 1, 2], [5, 5, 3, 6]]
TEST = [
    *('00-1C1T0001F001.jpg', '00-1C1T0001F002.jpg', '0000C2T0001F001.jpg', '0002C1T0001F001.jpg'),
    *('0002C1T0001F003.jpg', '0002C3T0004F119.jpg', '0002C3T0004F120.jpg', '1500C5T0900F920.jpg'),
]
TEST_ROWS = [[1, 2, -1, 1], [3, 3, 0, 2], [4, 5, 2, 1], [6, 7, 2, 3], [8, 8, 1500, 5]]
QUERY = [[3]]


def plant_info(root, lists=True, **changes):
    info = {'train': TRAIN, 'train_rows': TRAIN_ROWS, 'test': TEST, 'test_rows': TEST_ROWS}
    info |= {'query': QUERY, **changes}
    (root / 'info').mkdir(parents=True, exist_ok=True)
    for side in ('train', 'test'):
        rows = np.array(info[f'{side}_rows'], np.int32)
        scipy.io.savemat(root / f'info/tracks_{side}_info.mat', {f'track_{side}_info': rows})
        if lists:
            lines = ''.join(f'{name}\r\n' for name in info[side])
            (root / f'info/{side}_name.txt').write_bytes(lines.encode())
    query = np.array(info['query'], np.uint16)
    scipy.io.savemat(root / 'info/query_IDX.mat', {'query_IDX': query})


def plant(root, lists=True, **changes):
    """A tree of empty files; `changes` are other names, rows or queries."""
    plant_info(root, lists, **changes)
    for side, names in (('train', TRAIN), ('test', TEST)):
        for name in changes.get(side, names):
            (root / f'bbox_{side}' / name[:4]).mkdir(parents=True, exist_ok=True)
            (root / f'bbox_{side}' / name[:4] / name).touch()
    return str(root)


def fails(root, message):
    with pytest.raises(DataError, match=message):
        mars.read(root=root)


@pytest.mark.parametrize('lists', [True, False])
def test_columns(tmp_path, lists):
    source = mars.read(root=plant(tmp_path, lists))
    paths = {
        'train': [f'bbox_train/{name[:4]}/{name}' for name in TRAIN],
        'query': [f'bbox_test/0002/{name}' for name in TEST[3:5]],
        'gallery': [f'bbox_test/{name[:4]}/{name}' for name in TEST[2:3] + TEST[5:]],
    }
    columns = {
        'train': ([1, 1, 1, 1, 3], [0, 0, 1, 1, 5], [0, 0, 1, 1, 2], [1, 2, 119, 120, 1]),
        'query': ([2, 2], [0, 0], [2, 2], [1, 3]),
        'gallery': ([0, 2, 2, 1500], [1, 2, 2, 4], [1, 3, 3, 4], [1, 119, 120, 920]),
    }
    for split, records in source.splits().items():
        assert records.paths.tolist() == paths[split]
        assert tuple(column.tolist() for column in records[1:]) == columns[split]
        assert all(column.dtype == np.int64 for column in records[1:])


def test_opens_the_pixels_of_a_path(tmp_path):
    source = mars.read(root=plant(tmp_path))
    Image.new('RGB', (3, 5)).save(tmp_path / source.query.paths[0])
    with source.open(source.query.paths[0]) as image:
        assert image.size == (3, 5)
    assert source.home == tmp_path


def test_names_in_folders(tmp_path):
    upper = [name.replace('.jpg', '.JPG') for name in TRAIN]
    root = plant(tmp_path, lists=False, train=upper)
    for stray in ('.DS_Store', '0001/Thumbs.db', '0001/._0001C1T0001F001.jpg'):
        (tmp_path / 'bbox_train' / stray).touch()
    paths = mars.read(root=root).train.paths.tolist()
    assert paths == [f'bbox_train/{name[:4]}/{name}' for name in upper]


def test_lists_go_before_folders(tmp_path):
    root = plant(tmp_path)
    (tmp_path / 'bbox_train/0001/0001C1T0001F003.jpg').touch()
    assert len(mars.read(root=root).train.paths) == 5
    (tmp_path / 'info/train_name.txt').unlink()
    fails(root, r'tracks_train_info.mat: row 3, .* image 5, but there are 6 images')


def test_listed_image_missing(tmp_path):
    root = plant(tmp_path)
    (tmp_path / 'bbox_test/00-1/00-1C1T0001F001.jpg').unlink()
    mars.read(root=root)  # junk is not read
    (tmp_path / 'bbox_test/0002/0002C3T0004F119.jpg').unlink()
    fails(root, r'bbox_test/0002/0002C3T0004F119.jpg \(1\) missing, which .*test_name.txt lists')


@pytest.mark.parametrize('names', [TEST[:-1], [*TEST, '1500C5T0900F921.jpg']])
def test_names_and_rows_differ_in_number(tmp_path, names):
    message = f'tracks_test_info.mat: row 5, .* ends at image 8, but there are {len(names)} images'
    fails(plant(tmp_path, test=names), message)


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('query_IDX.mat', r'query_IDX.mat: expected a MATLAB file with query_IDX \('),
        ('tracks_test_info.mat', r'test_info.mat: expected a MATLAB file with track_test_info \('),
        ('tracks_train_info.mat', r'tracks_train_info.mat: expected a MATLAB file'),
    ],
)
def test_matrix_missing_or_none(tmp_path, name, file):
    root = plant(tmp_path)
    (tmp_path / 'info' / name).write_text('not a matrix')
    fails(root, file)
    (tmp_path / 'info' / name).unlink()
    fails(root, file)
    scipy.io.savemat(tmp_path / 'info' / name, {'other': QUERY})
    fails(root, file)


def test_matrix_of_other_columns(tmp_path):
    fails(plant(tmp_path, test_rows=[[1, 8, 1]]), r'test_info is \(1, 3\); expected rows of first')


def test_list_that_is_none(tmp_path):
    root = plant(tmp_path)
    (tmp_path / 'info/test_name.txt').write_bytes(b'\xff\xfe\x00')
    fails(root, r'test_name.txt: cannot be read .* expected the names of all images in bbox_test')
    (tmp_path / 'info/test_name.txt').write_bytes(b'\r\n')
    fails(root, 'test_name.txt: empty; expected the names')


@pytest.mark.parametrize('lists', [True, False])
@pytest.mark.parametrize(
    'name',
    [
        *('0001C7T0001F001.jpg', '0001C0T0001F001.jpg', '-001C1T0001F001.jpg', '0001C1T01F001.jpg'),
        *('0001C1T0001F001.png', '0001C1T0001F001.jpg.bak', 'x0001C1T0001F001.jpg'),
    ],
)
def test_strange_names(tmp_path, lists, name):
    where = 'train_name.txt' if lists else 'bbox_train'
    root = plant(tmp_path, lists, train=[*TRAIN, name])
    fails(root, rf'{where}: {name} \(1\) not named like 0001C1T')


def test_folders_missing_or_of_another_identity(tmp_path):
    root = plant(tmp_path, lists=False)
    (tmp_path / 'bbox_test/0000/0003C1T0001F001.jpg').touch()
    fails(root, r'bbox_test/0000: 0003C1T0001F001.jpg \(1\) of another identity')
    (tmp_path / 'bbox_test').rename(tmp_path / 'test')
    fails(root, 'bbox_test: no such folder; expected bbox_train, bbox_test')


@pytest.mark.parametrize(
    ('row', 'values', 'message'),
    [
        (0, [0, 2, -1, 1], r'rows 1 \(1\) do not begin'),
        (2, [3, 5, 2, 1], r'rows 3 \(1\) do not begin'),
        (2, [4, 3, 2, 1], r'rows 3, 4 \(2\) do not begin'),
        (4, [8, 9, 1500, 5], 'row 5, the last, ends at image 9, but there are 8'),
        (3, [6, 7, 3, 3], r'rows 4 \(1\) contradict the names'),
        (3, [6, 7, 2, 2], r'rows 4 \(1\) contradict the names'),
        (0, [1, 2, 1, 1], r'rows 1 \(1\) contradict the names'),
    ],
)
def test_faulty_rows(tmp_path, row, values, message):
    rows = [*TEST_ROWS[:row], values, *TEST_ROWS[row + 1 :]]
    fails(plant(tmp_path, test_rows=rows), f'tracks_test_info.mat: {message}')


@pytest.mark.parametrize('other', ['0005C1T0001', '0002C2T0001', '0002C1T0002'])
def test_rows_of_several_tracks(tmp_path, other):
    names = [*TEST[:4], f'{other}F003.jpg', *TEST[5:]]
    fails(plant(tmp_path, test=names), r'rows 3 \(1\) have images of several identities, cameras')


@pytest.mark.parametrize('names', [TRAIN[1::-1], TRAIN[:1] * 2])
def test_frames_out_of_order(tmp_path, names):
    message = r'tracks_train_info.mat: rows 1 \(1\) have frames out of order'
    fails(plant(tmp_path, train=[*names, *TRAIN[2:]]), message)


@pytest.mark.parametrize('query', [0, 6, 1, 2, 3])
def test_faulty_queries(tmp_path, query):
    root = plant(tmp_path, query=[[3, query]])
    fails(root, rf'query_IDX.mat: expected rows of .* identity; rows {query} \(1\)')


def test_identity_on_both_sides(tmp_path):
    names = [name.replace('0003', '0002') for name in TRAIN]
    root = plant(tmp_path, train=names, train_rows=[*TRAIN_ROWS[:2], [5, 5, 2, 6]])
    fails(root, r'identities 2 \(1\) are in the training images')


def test_root_not_given():
    fails('', r'--config\.data\.root=DIR')


def test_unpublished_counts_are_logged(tmp_path, caplog):
    data.read('mars', root=plant(tmp_path))
    for split, tracks in (('train', 3), ('query', 1), ('gallery', 3)):
        assert f'{split} has {tracks} tracklets, published are' in caplog.text


@pytest.mark.skipif(not REAL.is_dir(), reason='the split files are not here')
def test_real_index():
    found = {}
    for side in ('train', 'test'):
        file = REAL / f'{side}_name.txt.gz'
        names = gzip.decompress(file.read_bytes()).decode().split()
        rows = mars.matrix(REAL / f'tracks_{side}_info.mat', f'track_{side}_info')
        tracks = mars.records(REAL, rows, names, mars.numbers(file, names))
        found[side] = select(tracks, tracks.pids != JUNK)
    assert counts(found['train']) == mars.EXPECTED['train'] == Counts(509_914, 625, 6, 8_298)
    assert np.unique(found['test'].tracklets).size == 11_310
    queries = mars.matrix(REAL / 'query_IDX.mat', 'query_IDX').ravel()
    query, gallery = mars.divided(REAL, found['test'], queries)
    assert counts(query) == mars.EXPECTED['query'] == Counts(114_493, 626, 6, 1_980)
    assert counts(gallery) == mars.EXPECTED['gallery'] == Counts(543_216, 620, 6, 9_330)
    assert unmatched(query, gallery) == 140
    assert unmatched(query, found['test']) == 0


def unmatched(query, gallery):
    """How many query tracks have no gallery track of their identity by another camera."""
    (asks, answers) = (
        select(records, np.unique(records.tracklets, return_index=True)[1])
        for records in (query, gallery)
    )
    same = asks.pids[:, None] == answers.pids
    other = asks.cameras[:, None] != answers.cameras
    return int((~(same & other).any(1)).sum())
