"""CUHK03, on fakes with the structure of the real files."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from kd_jax import data
from kd_jax.data import cuhk03
from kd_jax.data.records import DataError

TRAIN = '1_001_1_01.png', '1_001_2_06.png', '2_002_1_03.png', '2_002_2_10.png'
QUERY = '1_003_1_02.png', '1_003_2_07.png'
GALLERY = '1_003_1_01.png', '1_003_2_10.png'
NAMES = sorted(TRAIN + QUERY + GALLERY)
PIDS = {'1_001': 1, '1_003': 3, '2_002': 843 + 2}


def picture(name):
    """The RGB pixels of a name, of a size of its own."""
    rng = np.random.default_rng(NAMES.index(name))
    return rng.integers(0, 256, (6 + NAMES.index(name), 4, 3), np.uint8)


def plant_protocol(folder, version='labeled', **changes):
    cells = np.empty((len(NAMES), 1), object)
    cells[:, 0] = NAMES

    def rows(part):
        return np.array([[NAMES.index(name) + 1] for name in sorted(part)], np.uint16)

    columns = {
        'filelist': cells,
        'labels': np.array([[PIDS[name[:5]]] for name in NAMES], np.uint16),
        'camId': np.array([[int(name[6])] for name in NAMES], np.uint8),
        'train_idx': rows(TRAIN),
        'query_idx': rows(QUERY),
        'gallery_idx': rows(GALLERY),
    }
    columns = {key: value for key, value in {**columns, **changes}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / f'cuhk03_new_protocol_config_{version}.mat', columns)


def plant_listing(folder, version='labeled'):
    """As torchreid wrote it elsewhere: its paths, and training identities from 0."""
    labels = {1: 0, 845: 1}

    def row(name, relabel):
        pid = PIDS[name[:5]]
        path = f'/home/somebody/1_004_1_01.png/cuhk03/images_{version}/{name}'
        return [path, labels[pid] if relabel else pid, int(name[6]) - 1]

    parts = {'train': TRAIN, 'query': QUERY, 'gallery': GALLERY}
    split = {key: [row(name, key == 'train') for name in reversed(x)] for key, x in parts.items()}
    split['num_train_pids'] = 2
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'splits_new_{version}.json').write_text(json.dumps([split]))


def plant_pngs(folder, names=NAMES, version='labeled'):
    (folder / f'images_{version}').mkdir(parents=True)
    for name in names:
        Image.fromarray(picture(name)).save(folder / f'images_{version}' / name)


def plant_mat(file, names=NAMES, versions=('labeled',), persons=(3, 2), testsets=()):
    """A cuhk-03.mat with the given images, and empty cells in all other places."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, 'w') as mat:
        store = mat.create_group('#refs#')

        def cell(data, **attributes):
            data = store.create_dataset(f'cell{len(store)}', data=data)
            data.attrs.update(attributes)
            return data.ref

        def image(pair, person, column):
            name = f'{pair}_{person:03d}_{1 + column // 5}_{column + 1:02d}.png'
            if name in names:
                return cell(picture(name).T)
            return cell(np.array([0, 0], np.uint64), MATLAB_empty=np.uint8(1))

        for version in versions:
            mat.create_dataset(version, (1, len(persons)), h5py.ref_dtype)
            for pair, count in enumerate(persons):
                refs = np.empty((10, count), h5py.ref_dtype)
                for column, person in np.ndindex(refs.shape):
                    refs[column, person] = image(pair + 1, person + 1, column)
                pairs = store.create_dataset(f'pair{len(store)}', refs.shape, h5py.ref_dtype)
                pairs[...] = refs
                mat[version][0, pair] = pairs.ref
        if testsets:
            mat.create_dataset('testsets', (1, len(testsets)), h5py.ref_dtype)
            for number, rows in enumerate(testsets):
                mat['testsets'][0, number] = cell(np.array(rows, np.float64).T)


def plant_layout(root, split, pixels):
    {'mat': plant_protocol, 'json': plant_listing}[split](root)
    if pixels == 'png':
        plant_pngs(root)
    else:
        plant_mat(root / pixels)


@pytest.mark.parametrize('split', ['mat', 'json'])
@pytest.mark.parametrize('pixels', ['png', 'cuhk-03.mat', 'cuhk03_release/cuhk-03.mat'])
def test_layouts_give_equal_records_and_pixels(tmp_path, split, pixels):
    plant_layout(tmp_path, split, pixels)
    source = cuhk03.read(root=str(tmp_path))
    expected = [
        (TRAIN, [1, 1, 845, 845], [0, 1, 0, 1], [0, 1, 2, 3], [1, 6, 3, 10]),
        (QUERY, [3, 3], [0, 1], [0, 1], [2, 7]),
        (GALLERY, [3, 3], [0, 1], [0, 1], [1, 10]),
    ]
    for records, (names, *columns) in zip(source[:3], expected):
        assert records.paths.tolist() == [f'images_labeled/{name}' for name in names]
        assert [column.tolist() for column in records[1:]] == columns
    for records in source[:3]:
        for path in records.paths.tolist():
            with source.open(path) as image:
                np.testing.assert_array_equal(np.asarray(image), picture(path.split('/')[1]))
    assert source.home == (tmp_path / pixels).parent


def test_images_of_one_person_and_view_are_a_tracklet():
    names = ['1_001_1_01.png', '1_001_1_02.png', '1_001_2_06.png', '1_002_1_01.png']
    train, other = cuhk03.records(Path(), 'labeled', names, ['1_001_2_10.png', '1_002_2_10.png'])
    assert train.tracklets.tolist() == [0, 0, 1, 2]
    assert other.tracklets.tolist() == [1, 3]  # numbered through both


def test_tracklets_of_query_and_gallery_are_numbered_together(tmp_path):
    gallery = np.array([[NAMES.index('1_003_2_10.png') + 1]], np.uint16)
    plant_protocol(tmp_path, gallery_idx=gallery)
    plant_pngs(tmp_path)
    source = cuhk03.read(root=str(tmp_path))
    assert source.query.tracklets.tolist() == [0, 1]
    assert source.gallery.tracklets.tolist() == [1]


def test_versions_are_kept_apart(tmp_path):
    plant_protocol(tmp_path, 'detected')
    plant_pngs(tmp_path, version='detected')
    source = cuhk03.read(root=str(tmp_path), detected=True)
    assert source.train.paths[0] == 'images_detected/1_001_1_01.png'
    with pytest.raises(DataError, match='neither cuhk03_new_protocol_config_labeled'):
        cuhk03.read(root=str(tmp_path))


def test_protocol_may_lie_beside_the_release(tmp_path):
    plant_protocol(tmp_path)
    plant_mat(tmp_path / 'cuhk03_release' / 'cuhk-03.mat')
    assert len(cuhk03.read(root=str(tmp_path / 'cuhk03_release')).train.paths) == 4


def test_incomplete_pngs_fall_back_on_the_mat(tmp_path):
    plant_protocol(tmp_path)
    plant_pngs(tmp_path, NAMES[1:])
    with pytest.raises(DataError, match=r'images_labeled: 1_001_1_01.png missing \(1 of 8\)'):
        cuhk03.read(root=str(tmp_path))
    plant_mat(tmp_path / 'cuhk-03.mat')
    source = cuhk03.read(root=str(tmp_path))
    with source.open('images_labeled/1_001_1_01.png') as image:
        np.testing.assert_array_equal(np.asarray(image), picture('1_001_1_01.png'))


def test_no_pixels_at_all(tmp_path):
    plant_protocol(tmp_path)
    with pytest.raises(DataError, match=r'\(8 of 8\), and neither .*cuhk-03.mat nor'):
        cuhk03.read(root=str(tmp_path))


def test_root_not_given():
    with pytest.raises(DataError, match=r'--config\.data\.root=DIR'):
        cuhk03.read(root='')


def test_empty_cell_is_named(tmp_path):
    plant_protocol(tmp_path)
    plant_mat(tmp_path / 'cuhk-03.mat', NAMES[1:])
    source = cuhk03.read(root=str(tmp_path))
    with pytest.raises(DataError, match=r'cuhk-03.mat: images_labeled/1_001_1_01.png is an empty'):
        source.open('images_labeled/1_001_1_01.png')


@pytest.mark.parametrize(
    ('versions', 'persons', 'message'),
    [
        (('detected',), (3, 2), 'cuhk-03.mat: expected an HDF5 file .* with `labeled`'),
        (('labeled',), (3,), 'cuhk-03.mat: no cell for 2_002_'),
        (('labeled',), (2, 2), 'cuhk-03.mat: no cell for 1_003_'),
    ],
)
def test_mat_without_the_cells(tmp_path, versions, persons, message):
    plant_protocol(tmp_path)
    plant_mat(tmp_path / 'cuhk-03.mat', versions=versions, persons=persons)
    with pytest.raises(DataError, match=message):
        cuhk03.read(root=str(tmp_path))


def test_mat_that_is_none(tmp_path):
    plant_protocol(tmp_path)
    (tmp_path / 'cuhk-03.mat').write_text('half a download')
    with pytest.raises(DataError, match=r'cuhk-03\.mat: expected an HDF5 file'):
        cuhk03.read(root=str(tmp_path))


@pytest.mark.parametrize(('detected', 'images'), [(False, '7,368'), (True, '7,365')])
def test_unpublished_counts_are_logged(tmp_path, caplog, detected, images):
    version = cuhk03.VERSIONS[detected]
    plant_protocol(tmp_path, version)
    plant_pngs(tmp_path, version=version)
    data.read('cuhk03', root=str(tmp_path), detected=detected)
    assert f'cuhk03: train has 4 images, published are {images}' in caplog.text
    assert 'cuhk03: gallery has 1 identities, published are 700' in caplog.text
    assert 'cameras' not in caplog.text


MARKET = {
    'bounding_box_train': ('0001_c1_01.png', '0001_c2_06.PNG', '0012_c1_003.jpg'),
    'query': ('0003_c1_02.png',),
    'bounding_box_test': ('0003_c1_01.png', '0003_c2_07.png', 'Thumbs.db'),
}


def plant_market(home, **changes):
    for folder, names in {**MARKET, **changes}.items():
        (home / folder).mkdir(parents=True)
        for name in names:
            (home / folder / name).touch()


@pytest.mark.parametrize('above', ['', 'cuhk03-np', 'cuhk03-np/detected'])
def test_market_folders(tmp_path, above):
    plant_market(tmp_path / 'cuhk03-np' / 'detected')
    plant_market(tmp_path / 'cuhk03-np' / 'labeled', bounding_box_train=['0009_c1_01.png'])
    source = cuhk03.read(root=str(tmp_path / above), detected=True)
    expected = [
        ('bounding_box_train', 3, [1, 1, 12], [0, 1, 0], [0, 1, 2], [1, 6, 3]),
        ('query', 1, [3], [0], [0], [2]),
        ('bounding_box_test', 2, [3, 3], [0, 1], [0, 1], [1, 7]),
    ]
    for records, (folder, count, *columns) in zip(source[:3], expected):
        assert records.paths.tolist() == [f'{folder}/{name}' for name in MARKET[folder][:count]]
        assert [column.tolist() for column in records[1:]] == columns
    assert source.home == tmp_path / 'cuhk03-np' / 'detected'
    assert source.expected['train'].images == 7365


def test_market_folders_of_the_other_version(tmp_path):
    plant_market(tmp_path / 'detected')
    with pytest.raises(DataError, match=r'detected: holds detected images where labeled are'):
        cuhk03.read(root=str(tmp_path / 'detected'))
    with pytest.raises(DataError, match='holds neither cuhk03_new_protocol_config_labeled'):
        cuhk03.read(root=str(tmp_path))
