"""Tables of own images: which numbers identities, cameras, tracklets and frames become."""

import numpy as np
import pytest
from test_manifest import HEADS, SMALL, plant, read

from kd_jax.data import manifest
from kd_jax.data.records import DataError


def test_whole_numbers_are_kept(tmp_path):
    rows = [(*row, '', '10', '') for row in SMALL]
    source = manifest.read(root=plant(tmp_path, rows, HEADS))
    assert source.train.pids.tolist() == [7, 30]
    assert source.query.pids.tolist() == source.gallery.pids.tolist() == [4]
    assert source.train.tracklets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ('cameras', 'expected'),
    [
        (('3.0', '', '11', '2'), [1, -1, 2, 0]),
        (('30', '-1', '4', '30'), [1, -1, 0, 1]),
        (('007', '08', '007', '10'), [0, 1, 0, 2]),
        (('3', 'c', '11', '-1'), [1, 2, 0, -1]),  # as text
    ],
)
def test_cameras_are_numbered_from_0(tmp_path, cameras, expected):
    rows = [(*row, camera) for row, camera in zip(SMALL, cameras)]
    source = manifest.read(root=plant(tmp_path, rows, (*HEADS[:3], 'camera')))
    assert np.concatenate([records.cameras for records in source[:3]]).tolist() == expected


@pytest.mark.parametrize('column', ['camera', 'tracklet'])
@pytest.mark.parametrize(('one', 'other'), [('01', '1'), ('-0', '0'), ('-01', '-1')])
def test_two_spellings_of_a_number(tmp_path, column, one, other):
    rows = [(*row, text) for row, text in zip(SMALL, (one, '5', '6', other))]
    with pytest.raises(DataError, match=rf'own\.csv: {column} {one} and {other} \(1\): one numb'):
        manifest.read(root=plant(tmp_path, rows, (*HEADS[:3], column)))


def test_two_spellings_of_an_identity_and_of_a_frame(tmp_path):
    rows = [(*row, frame) for row, frame in zip(SMALL, ('09', '9', '010', '2'))]
    source = manifest.read(root=plant(tmp_path, rows, (*HEADS[:3], 'frame')))
    assert source.train.frames.tolist() == [9, 9]
    message = r'identity 007 and 07 and 7, 04 and 4 \(2\): one number spelt in two ways; choose one'
    with pytest.raises(DataError, match=rf'own\.csv: {message}'):
        read(tmp_path, *((f'{x}.jpg', 'train', x) for x in ('07', '007')), ('8', 'gallery', '04'))


def test_numbered_tracklets_are_in_the_order_of_numbers(tmp_path):
    rows = [
        (*row, '10' if row[0] == '5.jpg' else '9') for row in (*SMALL, ('5.jpg', *SMALL[0][1:]))
    ]
    source = manifest.read(root=plant(tmp_path, rows, (*HEADS[:3], 'tracklet')))
    assert source.train.paths.tolist() == ['1.jpg', '5.jpg', '2.jpg']


def test_identities_are_text_if_one_is(tmp_path):
    source = read(tmp_path, ('5.jpg', 'gallery', '007'), ('6.jpg', 'gallery', 'x'))
    assert source.train.pids.tolist() == [4, 2]  # sorted: 007, 30, 4, 7, x
    assert source.gallery.pids.tolist() == [3, 1, 5]


def test_text_that_looks_like_numbers(tmp_path):
    rows = [('007', 'train', '1e5'), ('8', 'train', '2e5')]
    rows += [('9', 'query', 'NA'), ('10', 'gallery', 'NA')]
    source = manifest.read(root=plant(tmp_path, rows, HEADS[:3]))
    assert source.train.paths.tolist() == ['007', '8']
    assert source.train.pids.tolist() + source.query.pids.tolist() == [1, 2, 3]
