"""Thresholds of a file: whose images count, and what is told."""

import numpy as np
import photos
import pytest

from kd_jax import calibrate, embeddings
from kd_jax.data.records import DataError

IDENTITIES = ['anna'] * 3 + ['bert'] * 3 + ['0'] * 3 + ['', '-1', '-1']
CAMERAS = ['1', '2', '', '1', '1', '2', *'111111']


def file_of(tmp_path, identities=IDENTITIES, cameras=CAMERAS):
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float16)
    return embeddings.read(
        photos.vectors_file(tmp_path / 'a.parquet', vectors, identities, cameras)
    )


def test_pairs_that_count(tmp_path):
    """anna with bert 9, with distractors 9, bert with those 9; anna's pairs 3, bert's 2 of 3."""
    (found,) = calibrate.calibrated(file_of(tmp_path), ['0.2'], 'cosine')
    assert (found.different, found.same, found.false_matches) == (27, 5, 5)


def test_unknown_cameras_are_never_the_same(tmp_path):
    (found,) = calibrate.calibrated(file_of(tmp_path, cameras=['-1'] * 12), ['0.2'], 'cosine')
    assert found.same == 6


def test_the_table(tmp_path):
    found = calibrate.calibrated(file_of(tmp_path), ['0.2', '0.5'], 'euclidean')
    lines = calibrate.table(found, 'euclidean').splitlines()
    assert lines[0] == 'two images match where their euclidean distance is below the threshold'
    assert lines[2].split()[:1] == ['0.2']
    assert '5 of 27' in lines[2]
    assert '13 of 27' in lines[3]
    assert f'{found[0].true_matches} of 5 ({found[0].true_matches / 5:.1%})' in lines[2]
    assert np.float32(lines[2].split()[1]) == np.float32(found[0].distance)
    assert len({len(line) for line in lines[1:]}) == 1
    alone = calibrate.table([found[0]._replace(same=0, true_matches=0)], 'cosine')
    assert alone.endswith(' 0 of 0')


def test_refusals(tmp_path):
    with pytest.raises(DataError, match=r'a\.parquet has no identities: embed a table with'):
        calibrate.calibrated(file_of(tmp_path, ['-1', *[''] * 11]), ['0.1'], 'cosine')
    with pytest.raises(ValueError, match='no two images are of different identities'):
        calibrate.calibrated(file_of(tmp_path, ['anna'] * 12), ['0.1'], 'cosine')
    with pytest.raises(ValueError, match=r'--calibrate=much: give false-match rates, e\.g\.'):
        calibrate.calibrated(file_of(tmp_path), ['much'], 'cosine')
