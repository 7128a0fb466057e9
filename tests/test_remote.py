import os

import pytest
from etils import epath
from preparing import use_bucket

from kd_jax.data import remote
from kd_jax.data.records import DataError


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    use_bucket(monkeypatch, tmp_path / 'cloud')
    folder = epath.Path('gs://bucket/data')
    folder.mkdir(parents=True)
    (folder / 'a').write_bytes(b'1234')
    (folder / 'b').write_bytes(b'12')
    return folder


def test_is_remote(tmp_path):
    assert remote.is_remote(epath.Path('gs://bucket/data'))
    assert not remote.is_remote(epath.Path(tmp_path))
    assert not remote.is_remote('data')


def test_fetched_once(tmp_path, bucket, caplog):
    caplog.set_level('INFO')
    cache = remote.fetched(bucket, {'a': 4, 'b': 2}, tmp_path / 'here' / 'cache')
    assert (cache / 'a').read_bytes() == b'1234'
    assert sorted(os.listdir(cache)) == ['a', 'b']
    assert 'from gs://bucket/data' in caplog.text
    (bucket / 'a').unlink()
    (cache / 'b').unlink()
    assert remote.fetched(bucket, {'a': 4, 'b': 2}, cache) == cache
    assert sorted(os.listdir(cache)) == ['a', 'b']


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        ({'a': 5}, r'gs://bucket/data/a: has 4 bytes, not 5; prepare it again'),
        ({'none': 5}, r'gs://bucket/data/none: cannot be copied .*No such file'),
    ],
)
def test_nothing_half_is_taken(tmp_path, bucket, sizes, message):
    with pytest.raises(DataError, match=message):
        remote.fetched(bucket, sizes, tmp_path / 'cache')
    assert os.listdir(tmp_path / 'cache') == []
