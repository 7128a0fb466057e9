"""Files of embeddings: what is written is read, and what cannot be searched is refused."""

import zipfile

import numpy as np
import photos
import pyarrow
import pyarrow.parquet
import pytest

from kd_jax import embeddings
from kd_jax.data.records import DataError

NAMES = 'a.parquet', 'a.npz'


def vectors(count=12, width=4, dtype='float32'):
    return np.random.default_rng(0).normal(size=(count, width)).astype(dtype)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', embeddings.DTYPES)
def test_what_is_written_is_read(tmp_path, name, dtype):
    given = vectors(dtype=dtype)
    identities = ['anna', '', '7', *'123456789']
    file = photos.vectors_file(tmp_path / name, given, identities, ['x'] * 12, step=3)
    found = embeddings.read(file)
    assert found.size == 12
    assert found.facts['step'] == 3
    assert found.images.column('identity').to_pylist() == identities
    assert found.images.column('path').to_pylist()[1] == '1.png'
    assert found.vectors().dtype == dtype
    np.testing.assert_array_equal(found.vectors(), given)
    blocks = list(found.blocks(7))
    assert [len(block) for block in blocks] == [7, 5]
    np.testing.assert_array_equal(np.concatenate(blocks), given)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('name', NAMES)
def test_the_same_content_is_the_same_file(tmp_path, name):
    one, two = (tmp_path / folder / name for folder in 'ab')
    for file in (one, two):
        file.parent.mkdir()
        photos.vectors_file(file, vectors())
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (np.nan, r'NaN or Inf in the embeddings of 8\.png \(1\); embed'),
        (-np.inf, r'NaN or Inf in the embeddings of 8\.png \(1\); embed'),
        (0, r'only zeros in the embeddings of 8\.png \(1\); embed'),
    ],
)
def test_vectors_that_cannot_be_compared(tmp_path, name, value, message):
    given = vectors()
    given[8] = value
    file = photos.vectors_file(tmp_path / name, given)
    with pytest.raises(DataError, match=message):
        list(embeddings.read(file).blocks(5))


@pytest.mark.parametrize('name', NAMES)
def test_files_that_are_refused_when_opened(tmp_path, name):
    def refused(message, given, **more):
        file = photos.vectors_file(tmp_path / name, given, **more)
        with pytest.raises(DataError, match=message):
            embeddings.read(file)

    refused('no embeddings in it', vectors(0))
    refused(r'5\.png \(1\) twice', vectors(), paths=[f'{min(k, 5)}.png' for k in range(12)])


def test_a_width_that_is_not_the_facts(tmp_path):
    npz = photos.vectors_file(tmp_path / 'a.npz', vectors(), width=9)
    parquet = photos.vectors_file(tmp_path / 'a.parquet', vectors())
    table = pyarrow.parquet.read_table(parquet)
    other = table.schema.metadata[b'kd_jax'].replace(b'"width": 4', b'"width": 9')
    pyarrow.parquet.write_table(table.replace_schema_metadata({'kd_jax': other}), parquet)
    for file in (npz, parquet):
        with pytest.raises(DataError, match='embeddings of width 4, where its facts say 9'):
            embeddings.read(file)


def test_files_of_something_else(tmp_path):
    with pytest.raises(DataError, match='no such file'):
        embeddings.read(tmp_path / 'none.npz')
    with pytest.raises(DataError, match=r'kept in files called \.parquet or \.npz'):
        embeddings.read(tmp_path / 'a.csv')
    for name in NAMES:
        (tmp_path / name).write_bytes(b'something else')
        with pytest.raises(DataError, match='no file of embeddings'):
            embeddings.read(tmp_path / name)
    pyarrow.parquet.write_table(pyarrow.table({'path': ['a']}), tmp_path / 'a.parquet')
    np.savez(tmp_path / 'a.npz', path=['a'])
    for name in NAMES:
        with pytest.raises(DataError, match='no file of embeddings'):
            embeddings.read(tmp_path / name)


def test_a_file_of_another_version_is_named(tmp_path):
    file = tmp_path / 'a.npz'
    images = embeddings.labels(['a'], [''], [''])
    embeddings.write(file, {'width': 4, 'metric': 'cosine'}, images, [vectors(1)])
    with pytest.raises(DataError, match=r'no checkpoint, count, dtype, .* among its facts'):
        embeddings.read(file)


def test_a_file_cut_off(tmp_path):
    """At its end it cannot be opened; within, it is seen when the damage is reached."""
    file = photos.vectors_file(tmp_path / 'a.parquet', vectors(2000, 64))
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(DataError, match='no file of embeddings'):
        embeddings.read(file)
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + b'\0' * 200_000 + whole[middle + 200_000 :])
    with pytest.raises(DataError, match=r'cannot be read|only zeros'):
        list(embeddings.read(file).blocks(100))
    npz = photos.vectors_file(tmp_path / 'a.npz', vectors(2000, 64))
    npz.write_bytes(npz.read_bytes()[:-5000])
    with pytest.raises(DataError, match='no file of embeddings'):
        embeddings.read(npz)
    assert not zipfile.is_zipfile(npz)


def test_what_cannot_be_compared_is_named(tmp_path):
    gallery = embeddings.read(photos.vectors_file(tmp_path / 'g.npz', vectors()))
    embeddings.check_same(gallery, gallery.facts | {'step': 9, 'dtype': 'float16'}, 'q.npz')
    other = gallery.facts | {'width': 8, 'run': 'runs/b', 'step': 5}
    message = r'q\.npz has width 8, by step 5 of runs/b, but .*g\.npz has width 4, by step 8 of '
    with pytest.raises(DataError, match=message):
        embeddings.check_same(gallery, other, 'q.npz')
    with pytest.raises(DataError, match=r'weights cde, .*weights abc'):
        embeddings.check_same(gallery, gallery.facts | {'weights': 'cde'}, 'q.npz')
    with pytest.raises(DataError, match='image 64'):
        embeddings.check_same(gallery, {**photos.FACTS, 'image': '64'}, 'runs/b')


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def parts():
        yield vectors()
        raise OSError('disk full')

    images = embeddings.labels(*[['a'] * 24] * 3)
    facts = {'dtype': 'float32', 'width': 4}
    for name in NAMES:
        with pytest.raises(OSError, match='disk full'):
            embeddings.write(tmp_path / name, facts, images, parts())
    assert not list(tmp_path.iterdir())
