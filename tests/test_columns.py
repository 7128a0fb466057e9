import numpy as np
import pytest
from etils import epath

from kd_jax.data import columns
from kd_jax.data.records import DataError, from_rows

SPLITS = {
    'train': from_rows([('a/é.jpg', 1, 0, 0, 5), ('a/2.jpg', 1, 0, 0, -1), ('b#x', 7, -1, 1, 0)]),
    'test_800': from_rows([('c.jpg', 0, -1, -1, -1)]),
}
NUMBERS = {'train': np.array([0, 0, 1]), 'test_800': np.array([0])}


@pytest.fixture
def file(tmp_path):
    file = epath.Path(tmp_path / 'records.npz')
    columns.save(file, SPLITS, NUMBERS)
    return file


def test_come_back_as_they_were(file):
    splits, numbers = columns.load(file, {'train': 2, 'test_800': 1})
    assert list(splits) == list(SPLITS)
    for split, records in SPLITS.items():
        np.testing.assert_array_equal(numbers[split], NUMBERS[split])
        for found, expected in zip(splits[split], records):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('counts', [{'train': 3, 'test_800': 1}, {'train': 2}])
def test_other_numbers_of_examples(file, counts):
    with pytest.raises(DataError, match=r'records\.npz: does not agree with the files beside it'):
        columns.load(file, counts)


@pytest.mark.parametrize('content', [b'', b'not a zip', b'\x93NUMPY'])
def test_no_such_file(file, content):
    file.write_bytes(content)
    with pytest.raises(DataError, match=r'records\.npz: cannot be read .* prepare it again'):
        columns.load(file, {'train': 2})
