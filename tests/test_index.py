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
    assert index.recall(gallery, query, found.index, exact.index, metric) == share > 0.9
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


def test_a_gallery_may_be_another_where_no_index_was_written(tmp_path):
    gallery, file = gallery_of(tmp_path), tmp_path / 'g.usearch'
    index.opened(file, gallery, 'cosine')
    file.unlink()
    other = gallery_of(tmp_path, 'other.parquet', count=40, images='other')
    assert len(index.opened(file, other, 'cosine')) == 40
    assert len(index.opened(file, other, 'cosine')) == 40
    with pytest.raises(RunError, match=r"images: 'other' of the index, 'f00' now"):
        index.opened(file, gallery, 'cosine')


@pytest.mark.parametrize('text', ['{"config": 1}', '[]', 'no JSON'])
def test_a_file_of_something_else_is_not_written_over(tmp_path, text):
    beside = tmp_path / 'config.json'
    beside.write_text(text)
    with pytest.raises(RunError, match=r'config\.json is in the way: .* give another --index'):
        index.opened(tmp_path / 'config', gallery_of(tmp_path), 'cosine')
    assert beside.read_text() == text


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


@pytest.mark.parametrize('metric', index.METRICS)
@pytest.mark.parametrize('dtype', embeddings.DTYPES)
def test_any_of_equal_images_is_right(tmp_path, metric, dtype):
    vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(dtype)
    twice = np.concatenate([vectors, vectors])
    gallery = embeddings.read(photos.vectors_file(tmp_path / 'g.npz', twice))
    query = vectors.astype(np.float32)
    for top in (1, 3):
        file = tmp_path / f'{top}.usearch'
        _, share = search.by_index(file, gallery, query, top, metric, checked=500)
        assert share > 0.99


def test_images_that_only_rounding_tells_apart_are_equal(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    twice = np.concatenate([vectors, vectors * np.float32(3.3)])  # in the same directions
    gallery = embeddings.read(photos.vectors_file(tmp_path / 'g.npz', twice))
    one = np.arange(500)[:, None]
    for found, exact in ((one, one + 500), (one + 500, one)):
        assert index.recall(gallery, vectors, found, exact, 'cosine') == 1
    assert index.recall(gallery, vectors, one[::-1], one, 'cosine') == 0


@pytest.mark.parametrize('far', [1, 1e-30, 1e25])
def test_recall_is_the_share_that_is_as_near_as_the_nearest(tmp_path, far):
    places = np.array([9, 1, 2, 3, -1, -2, 3.01, 7, -3, 50])  # on a line, with the queries at 0
    vectors = far * np.stack([places, np.full(10, 5)], axis=1).astype(np.float32)
    gallery = embeddings.read(photos.vectors_file(tmp_path / 'g.npz', vectors))
    query = far * np.array([[0, 5], [0, 5]], np.float32)

    def recall(*found):
        exact = np.array([[1, 4, 2, 5, 3], [4, 1, 5, 2, 8]])
        return index.recall(gallery, query, np.array(found), exact, 'euclidean')

    assert recall([3, 5, 2, 4, 1], [8, 2, 5, 1, 4]) == 1
    assert recall([1, 4, 2, 5, 8], [1, 4, 2, 5, 3]) == 1
    assert recall([1, 4, 2, 5, 6], [1, 4, 2, 5, 3]) == 0.9
    assert recall([1, 4, 2, 3, 8], [6, 7, -1, -1, -1]) == 0.5
    assert recall([0, 6, 7, 9, -1], [-1] * 5) == 0
