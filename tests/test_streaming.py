"""The nearest of a gallery in blocks are those of a sort of all distances."""

import jax
import numpy as np
import pytest

from kd_jax.retrieval import streaming

DISTANCES = {
    'cosine': lambda q, g: 1 - unit(q) @ unit(g).T,
    'euclidean': lambda q, g: np.linalg.norm(q[:, None] - g[None], axis=2),
}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors(count, seed, dtype='float32', width=6):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(dtype)


def blocks_of(gallery, size):
    return (gallery[start : start + size] for start in range(0, len(gallery), size))


@pytest.mark.parametrize('metric', DISTANCES)
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('size', [7, 300])
def test_the_nearest_are_those_of_a_sort(metric, dtype, size):
    query, gallery = vectors(9, 0), vectors(300, 1, dtype)
    far = DISTANCES[metric](query.astype(np.float64), gallery.astype(np.float64))
    found = streaming.nearest(query, blocks_of(gallery, size), 11, metric=metric)
    order = np.argsort(far, axis=1)[:, :11]
    np.testing.assert_array_equal(found.index, order)
    wanted = np.take_along_axis(far, order, axis=1)
    np.testing.assert_allclose(found.distances, wanted, rtol=1e-4, atol=1e-6)


def test_a_small_gallery_is_found_whole():
    found = streaming.nearest(vectors(1, 0), [vectors(2, 1), vectors(1, 2)], 10, metric='cosine')
    assert sorted(found.index[0].tolist()) == [0, 1, 2]
    assert found.distances.shape == (1, 3)


def test_equally_near_items_keep_their_order():
    gallery = np.repeat(vectors(3, 0), 40, axis=0)
    for size in (16, 40, 120):
        found = streaming.nearest(gallery[40:41], blocks_of(gallery, size), 41, metric='cosine')
        assert found.index[0, :40].tolist() == list(range(40, 80))


def test_devices_and_blocks_of_queries_do_not_matter(monkeypatch):
    query, gallery = vectors(50, 0), vectors(2000, 1)
    one = streaming.nearest(query, blocks_of(gallery, 700), 5, metric='euclidean')
    monkeypatch.setattr(streaming, 'DISTANCE_BYTES', 4 * 700 * 8)
    options = {'metric': 'euclidean', 'devices': jax.devices()}
    four = streaming.nearest(query, blocks_of(gallery, 700), 5, **options)
    np.testing.assert_array_equal(one.index, four.index)
    np.testing.assert_allclose(one.distances, four.distances, rtol=1e-5)


def test_without_queries_or_gallery():
    with pytest.raises(ValueError, match='there are no queries'):
        streaming.nearest(vectors(0, 0), [vectors(2, 1)], 1, metric='cosine')
    with pytest.raises(ValueError, match='the gallery is empty'):
        streaming.nearest(vectors(1, 0), [], 1, metric='cosine')


def test_blocks_are_about_equal(monkeypatch):
    monkeypatch.setattr(streaming, 'GALLERY_BYTES', 4 * 8 * 100)
    assert streaming.rows_of_block(100, 8) == 100
    assert streaming.rows_of_block(101, 8) == 51
    assert streaming.rows_of_block(1, 10**6) == 1
