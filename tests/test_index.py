"""The approximate index of a gallery: built once, of one gallery only, and it finds most."""

import sys

import numpy as np
import photos
import pytest
import smoke

from kd_jax import embeddings, index, search
from kd_jax.runs import RunError


def gallery_of(tmp_path, name='g.parquet', count=500, **options):
    dtype = options.pop('dtype', 'float32')
    vectors = np.random.default_rng(0).normal(size=(count, 16)).astype(dtype)
    return embeddings.read(photos.vectors_file(tmp_path / name, vectors, **options))


@pytest.mark.parametrize('metric', index.METRICS)
@pytest.mark.parametrize('dtype', embeddings.DTYPES)
def test_most_of_the_nearest_are_found(tmp_path, metric, dtype):
    gallery = gallery_of(tmp_path, dtype=dtype)
    query = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
    file = tmp_path / 'deep' / 'g.usearch'
    found, share = search.by_index(file, gallery, query, 10, metric, checked=20)
    exact = search.exact(gallery, query, 10, metric)
    assert index.recall(found.index, exact.index) == share > 0.9
    assert found.index.shape == (20, 10)
    same = found.index == exact.index
    tolerance = 1e-5 if dtype == 'float32' else 0.02
    np.testing.assert_allclose(found.distances[same], exact.distances[same], atol=tolerance)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert sorted(path.name for path in file.parent.iterdir()) == ['g.usearch', 'g.usearch.json']


def test_one_query_and_a_small_gallery(tmp_path):
    gallery = gallery_of(tmp_path, count=6)
    query = gallery.vectors()[3:4]
    file = tmp_path / 'g.usearch'
    found, share = search.by_index(file, gallery, query, 10, 'cosine', checked=5)
    assert found.index.shape == (1, 6)
    assert found.index[0, 0] == 3
    assert share == 1
    assert np.isnan(search.by_index(file, gallery, query, 10, 'cosine', checked=0)[1])


def test_it_is_built_once(tmp_path):
    gallery, file = gallery_of(tmp_path), tmp_path / 'g.usearch'
    index.opened(file, gallery, 'cosine')
    written = smoke.written(tmp_path)
    assert len(index.opened(file, gallery, 'cosine')) == 500
    assert smoke.written(tmp_path) == written
    file.unlink()  # as if killed before it was written
    index.opened(file, gallery, 'cosine')
    assert file.exists()


def test_what_is_of_something_else(tmp_path):
    gallery, file = gallery_of(tmp_path), tmp_path / 'g.usearch'
    index.opened(file, gallery, 'cosine')
    with pytest.raises(RunError, match=r"metric: 'cosine' of the index, 'euclidean' now"):
        index.opened(file, gallery, 'euclidean')
    other = gallery_of(tmp_path, 'other.parquet', images='other')
    with pytest.raises(
        RunError, match=r"index of another gallery(?s:.*)images: 'f00' of the index"
    ):
        index.opened(file, other, 'cosine')
    with pytest.raises(RunError, match='is in the way: it is no index of kd_jax'):
        index.opened(gallery.file, gallery, 'cosine')
    file.write_bytes(b'damaged')
    with pytest.raises(RunError, match=r'is damaged.*: remove it'):
        index.opened(file, gallery, 'cosine')


def test_without_usearch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'usearch.index', None)
    with pytest.raises(RunError, match=r"--index needs usearch: pip install 'usearch=="):
        index.opened(tmp_path / 'g.usearch', gallery_of(tmp_path), 'cosine')


def test_the_version_is_that_of_the_extra():
    wanted = f'"{index.INSTALL.split(chr(39))[1]}"'
    assert f'index = [{wanted}]' in (smoke.ROOT / 'pyproject.toml').read_text()
    assert wanted.strip('"') in (smoke.ROOT / 'tests/requirements.txt').read_text().splitlines()


def test_recall_is_the_share_of_the_nearest_that_were_found():
    exact = np.array([[1, 2, 3], [4, 5, 6]])
    assert index.recall(exact[:, ::-1], exact) == 1
    assert index.recall(np.array([[1, 9, 2], [-1, -1, 6]]), exact) == 0.5
