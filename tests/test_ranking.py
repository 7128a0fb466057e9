"""Ranking of distances and of features, against plain loops."""

import subprocess
import sys
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from plain_ranking import (
    DISTANCES,
    assert_same,
    clustered,
    cosine_distances,
    euclidean_distances,
    plain_ranking,
    random_labels,
)

from kd_jax.retrieval import ranking, tiles


def test_two_definitions_of_average_precision():
    one = np.array([1]), np.array([2, 1]), np.array([0]), np.array([1, 1])
    result = ranking.rank_distances(np.array([[0.1, 0.2]]), *one)
    assert (result.mAP, result.mAP_trapezoid, result.mINP) == (0.5, 0.25, 0.5)
    assert (result.rank(1), result.rank(2), result.rank(99)) == (0, 1, 1)
    assert result.cmc.tolist() == [0, 1]


@pytest.mark.parametrize('same_camera', ['drop', 'keep'])
@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int64, np.float16, jnp.bfloat16])
@pytest.mark.parametrize('seed', range(8))
def test_ties_keep_the_order_of_the_gallery(seed, dtype, same_camera):
    rng = np.random.default_rng(seed)
    queries, gallery = rng.integers(1, 30), rng.integers(20, 60)
    distances = rng.integers(-3, 4, (queries, gallery)).astype(dtype)
    labels = random_labels(rng, queries, gallery)
    labels[0][0] = labels[1][7] = 5  # at least one valid match
    labels[2][0] = -1
    result = ranking.rank_distances(distances, *labels, same_camera=same_camera)
    expected = plain_ranking(distances.astype(float), *labels, drop=same_camera == 'drop')
    assert_same(result, expected)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_the_smallest_differences_of_distance_count(dtype):
    rng = np.random.default_rng(0)
    one = np.array(1, dtype)
    steps = one + rng.integers(-4, 5, (20, 50)).astype(dtype) * np.finfo(dtype).eps
    tiny = rng.integers(-4, 5, (20, 50)).astype(dtype) * np.finfo(dtype).smallest_subnormal
    labels = random_labels(rng, 20, 50)
    zeros = np.where(rng.random((20, 50)) < 0.5, dtype(0), dtype(-0.0))  # no difference
    for distances in (steps, tiny, -steps, zeros):
        assert distances.dtype == dtype
        assert_same(ranking.rank_distances(distances, *labels), plain_ranking(distances, *labels))


@pytest.mark.parametrize('same_camera', ['drop', 'keep'])
@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('seed', range(4))
def test_features_against_plain_loops(seed, metric, same_camera):
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, 40, 150)
    query, gallery = clustered(rng, labels[0], 24), clustered(rng, labels[1], 24)
    result = ranking.rank(query, gallery, *labels, metric=metric, same_camera=same_camera)
    distances = DISTANCES[metric](query, gallery)
    assert_same(result, plain_ranking(distances, *labels, drop=same_camera == 'drop'))


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_the_block_does_not_matter(metric):
    rng = np.random.default_rng(1)
    labels = random_labels(rng, 50, 160)
    query, gallery = clustered(rng, labels[0], 16), clustered(rng, labels[1], 16)
    gallery[80:] = gallery[:80]  # ties
    whole = ranking.rank(query, gallery, *labels, metric=metric)
    distances = DISTANCES[metric](query, gallery)
    given = ranking.rank_distances(distances, *labels)
    for block in (1, 2, 7, 49, 50):
        assert_same(ranking.rank(query, gallery, *labels, metric=metric, block=block), whole, 0)
        assert_same(ranking.rank_distances(distances, *labels, block=block), given, 0)


def test_the_block_does_not_matter_where_only_rounding_decides():
    rng = np.random.default_rng(8)
    query = rng.normal(size=(40, 64)).astype(np.float32)
    gallery = (rng.normal(size=64) + 1e-7 * rng.normal(size=(100, 64))).astype(np.float32)
    labels = random_labels(rng, 40, 100)
    whole = ranking.rank(query, gallery, *labels, metric='cosine')
    for block in (1, 7, 13):
        assert_same(ranking.rank(query, gallery, *labels, metric='cosine', block=block), whole, 0)


def test_memory_does_not_grow_with_queries_and_their_matches():
    peaks = []
    for queries in (500, 2000):
        rng = np.random.default_rng(9)
        ids = rng.integers(0, 4, queries), rng.integers(0, 4, 1000)
        cameras = np.zeros(queries, int), np.ones(1000, int)
        vectors = [clustered(rng, of, 4) for of in ids]
        tracemalloc.start()
        ranking.rank(*vectors, *ids, *cameras, metric='cosine', block=32)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1500 * 200  # what is told of a query


def test_all_blocks_share_one_compiled_program(monkeypatch):
    monkeypatch.setattr(tiles, '_is_host', lambda device: False)
    rng = np.random.default_rng(2)
    labels = random_labels(rng, 53, 111)
    query, gallery = clustered(rng, labels[0], 5), clustered(rng, labels[1], 5)
    before = tiles._distances._cache_size()
    ranking.rank(query, gallery, *labels, metric='cosine', block=10)
    assert tiles._distances._cache_size() == before + 1


def test_equal_features_tie():
    rng = np.random.default_rng(3)
    kinds = rng.normal(size=(6, 33)).astype(np.float32)
    query, gallery = kinds[rng.integers(0, 6, 30)], kinds[rng.integers(0, 6, 200)]
    labels = random_labels(rng, 30, 200)
    for metric, distances in DISTANCES.items():
        result = ranking.rank(query, gallery, *labels, metric=metric)
        assert_same(result, plain_ranking(distances(query, gallery).round(9), *labels))


def test_zero_vectors_have_similarity_zero():
    query = np.array([[0, 0], [1, 0]], np.float32)
    gallery = np.array([[-1, 0], [0, 0], [1, 0], [2, 0]], np.float32)
    labels = np.array([1, 2]), np.array([1, 2, 3, 1]), np.array([0, 0]), np.array([1, 1, 1, 1])
    result = ranking.rank(query, gallery, *labels, metric='cosine')
    assert result.first_rank.tolist() == [1, 3]  # all tie; after [1, 0] and [2, 0]
    assert result.inverse_negative_penalty.tolist() == [0.5, 1 / 3]
    for metric in DISTANCES:
        nothing = ranking.rank(query * 0, gallery * 0, *labels, metric=metric)
        assert nothing.first_rank.tolist() == [1, 2]


@pytest.mark.parametrize('scale', [2.0**-140, 2.0**-100, 2.0**100, 2.0**124])
@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_huge_and_tiny_features(metric, scale):
    rng = np.random.default_rng(4)
    labels = random_labels(rng, 20, 80)
    query, gallery = (clustered(rng, ids, 8).astype(np.float16) for ids in labels[:2])
    query, gallery = query.astype(np.float32), gallery.astype(np.float32)
    scaled = query * np.float32(scale), gallery * np.float32(scale)
    assert np.isfinite(scaled[0]).all()
    expected = plain_ranking(DISTANCES[metric](*(x.astype(float) / scale for x in scaled)), *labels)
    assert_same(ranking.rank(*scaled, *labels, metric=metric), expected)


def test_cosine_with_rows_of_very_different_length():
    rng = np.random.default_rng(5)
    labels = random_labels(rng, 20, 80)
    query, gallery = clustered(rng, labels[0], 8), clustered(rng, labels[1], 8)
    expected = plain_ranking(cosine_distances(query, gallery), *labels)
    query *= (10.0 ** rng.integers(-30, 30, (20, 1))).astype(np.float32)
    gallery *= (10.0 ** rng.integers(-30, 30, (80, 1))).astype(np.float32)
    assert_same(ranking.rank(query, gallery, *labels, metric='cosine'), expected)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_euclidean_far_from_the_origin(dtype):
    rng = np.random.default_rng(6)
    labels = random_labels(rng, 40, 150)
    query, gallery = (clustered(rng, ids, 24).astype(dtype) + 3000 for ids in labels[:2])
    result = ranking.rank(query, gallery, *labels, metric='euclidean')
    assert_same(result, plain_ranking(euclidean_distances(query, gallery), *labels))


def test_jax_arrays_and_half_precision():
    rng = np.random.default_rng(7)
    labels = random_labels(rng, 30, 90)
    query, gallery = (clustered(rng, ids, 24) for ids in labels[:2])
    query, gallery = (jnp.asarray(x, jnp.bfloat16) for x in (query, gallery))
    result = ranking.rank(query, gallery, *map(jnp.asarray, labels), metric='cosine')
    assert_same(result, plain_ranking(cosine_distances(query, gallery), *labels))


def test_tensorflow_is_not_imported():
    code = 'import sys, kd_jax.retrieval.ranking; sys.exit("tensorflow" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
