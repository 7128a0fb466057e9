"""The files that split CUHK03: faults of theirs, and the real ones if they are there."""

from pathlib import Path

import numpy as np
import pytest
from test_cuhk03 import NAMES, plant_protocol

from kd_jax.data import cuhk03, cuhk03_splits
from kd_jax.data.records import DataError, counts

REAL = Path(__file__).parents[2] / 'shared' / 'splits' / 'cuhk03_new_protocol'
IMAGES = {'labeled': [7368, 1400, 5328], 'detected': [7365, 1400, 5332]}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'query_idx': None}, 'expected a MATLAB file with .*query_idx'),
        ({'query_idx': np.array([[0]], np.uint16)}, 'query_idx points outside filelist'),
        ({'gallery_idx': np.array([[9]], np.uint16)}, r'gallery_idx points .* \(1..8\)'),
        ({'query_idx': np.array([[1]], np.uint16)}, 'an image is listed twice'),
        ({'labels': np.arange(8, dtype=np.uint16)[:, None]}, 'labels or camId contradict'),
        ({'camId': np.full((8, 1), 2, np.uint8)}, 'labels or camId contradict'),
    ],
)
def test_faulty_protocol(tmp_path, changes, message):
    plant_protocol(tmp_path, **changes)
    with pytest.raises(DataError, match=f'cuhk03_new_protocol_config_labeled.mat: {message}'):
        cuhk03.read(root=str(tmp_path))


def test_protocol_that_is_none(tmp_path):
    (tmp_path / 'cuhk03_new_protocol_config_labeled.mat').write_text('not a matrix')
    with pytest.raises(DataError, match=r'config_labeled\.mat: expected a MATLAB file'):
        cuhk03.read(root=str(tmp_path))


@pytest.mark.parametrize('text', ['{', '[]', '[{"train": []}]', '[{"train": [1]}]', '[{}, {}]'])
def test_faulty_listing(tmp_path, text):
    (tmp_path / 'splits_new_labeled.json').write_text(text)
    with pytest.raises(DataError, match=r'labeled\.json: expected a list of one object'):
        cuhk03.read(root=str(tmp_path))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('6_001_1_01.png', 'is not pair_person_view_image.png'),
        ('1_001_1_07.png', 'is not pair_person_view_image.png'),
        ('1_001_1_01.jpg', 'is not pair_person_view_image.png'),
        ('5_050_1_01.png', r'but pair 5 has persons 1\.\.49'),
        ('1_000_1_01.png', r'but pair 1 has persons 1\.\.843'),
    ],
)
def test_faulty_names(name, message):
    with pytest.raises(DataError, match=f'where: {name!r},? {message}'):
        cuhk03.records(Path('where'), 'labeled', [name])


def test_identity_on_both_sides(tmp_path):
    gallery = np.array([[NAMES.index('2_002_2_10.png') + 1]], np.uint16)
    train = np.array([[NAMES.index('2_002_1_03.png') + 1]], np.uint16)
    plant_protocol(tmp_path, gallery_idx=gallery, train_idx=train)
    with pytest.raises(DataError, match=r'labeled.mat: identities 845 \(1\) are in the training'):
        cuhk03.read(root=str(tmp_path))


@pytest.mark.skipif(not REAL.is_dir(), reason='the split files are not here')
@pytest.mark.parametrize('version', ['labeled', 'detected'])
def test_real_protocol(version):
    file, names = cuhk03_splits.new_protocol(REAL, version)
    assert file == REAL / f'cuhk03_new_protocol_config_{version}.mat'
    (train,) = cuhk03.records(file, version, names[0])
    query, gallery = cuhk03.records(file, version, *names[1:])
    splits = {'train': train, 'query': query, 'gallery': gallery}
    for split, expected in cuhk03.EXPECTED[version].items():
        assert counts(splits[split])[:3] == expected[:3]
    assert [len(part) for part in names] == IMAGES[version]
    assert not np.intersect1d(train.pids, gallery.pids).size
    same = query.pids[:, None] == gallery.pids
    assert (same & (query.cameras[:, None] != gallery.cameras)).any(1).all()
    assert {1, 1467} <= set(train.pids) | set(gallery.pids)
