import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.retrieval import ranking, tiles

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'ranking.npz')
FIELDS = ranking.Ranking._fields


def golden(case):
    return {key[len(case) + 1 :]: GOLDEN[key] for key in GOLDEN.files if key.startswith(case + '/')}


def labels_of(facts):
    return [facts[key] for key in ('q_pids', 'g_pids', 'q_camids', 'g_camids')]


def plain_scores(order, relevant):
    """Scores of one query from its sorted relevances, by the definitions, one hit at a time."""
    hits, precisions, trapezoids, ranks = 0, [], [], []
    for place, hit in enumerate(relevant[order], start=1):
        if hit:
            before = hits / (place - 1) if place > 1 else 1.0
            hits += 1
            precisions.append(hits / place)
            trapezoids.append((before + hits / place) / 2)
            ranks.append(place)
    return ranks, precisions, trapezoids


def plain_ranking(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, drop=True):
    """The evaluation of one query after the other, with a stable sort and loops."""
    rows = []
    for query in range(len(distances)):
        stay, relevant = [], np.zeros(len(gallery_ids), bool)
        for item in np.argsort(distances[query], kind='stable'):
            same_camera = query_cameras[query] == gallery_cameras[item] != -1
            same_id = query_ids[query] == gallery_ids[item]
            if gallery_ids[item] == -1 or (drop and same_id and same_camera):
                continue
            stay.append(item)
            relevant[item] = same_id
        ranks, precisions, trapezoids = plain_scores(np.array(stay, int), relevant)
        if ranks:
            means = np.mean(precisions), np.mean(trapezoids), len(ranks) / ranks[-1]
            rows.append((ranks[0], *means, True))
        else:
            rows.append((0, np.nan, np.nan, np.nan, False))
    return ranking.Ranking(*map(np.array, zip(*rows)), gallery_size=len(gallery_ids))


def assert_same(actual, expected, atol=1e-12):
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(actual, field), getattr(expected, field), rtol=0, atol=atol, err_msg=field
        )


def random_labels(rng, queries, gallery, ids=9, cameras=3):
    """Labels with junk and distractors in the gallery and unknown cameras on both sides."""
    return (
        rng.integers(1, ids, queries),
        rng.integers(-1, ids, gallery),
        rng.integers(-1, cameras, queries),
        rng.integers(-1, cameras, gallery),
    )


def cosine_distances(query, gallery):
    query, gallery = (np.asarray(x, np.float64) for x in (query, gallery))
    out = np.zeros((len(query), len(gallery)))
    for i, x in enumerate(query):
        for j, y in enumerate(gallery):
            lengths = np.sqrt((x * x).sum()) * np.sqrt((y * y).sum())
            out[i, j] = 1 - (x * y).sum() / lengths if lengths else 1
    return out


def euclidean_distances(query, gallery):
    query, gallery = (np.asarray(x, np.float64) for x in (query, gallery))
    return np.array([[np.sqrt(((x - y) ** 2).sum()) for y in gallery] for x in query])


DISTANCES = {'cosine': cosine_distances, 'euclidean': euclidean_distances}


def clustered(rng, ids, features, spread=1.0):
    centres = np.random.default_rng(99).normal(size=(ids.max() + 2, features))
    return (centres[ids] + spread * rng.normal(size=(len(ids), features))).astype(np.float32)


# The numbers of official evaluators.


def assert_vkd(result, facts):
    np.testing.assert_array_equal(result.valid, facts['valid'])
    np.testing.assert_array_equal(result.first_rank - 1, facts['per_query_first_hit'])
    trapezoid = result.average_precision_trapezoid
    np.testing.assert_allclose(trapezoid, facts['per_query_ap'], rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.mAP_trapezoid, facts['mAP'], rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.cmc, facts['cmc'], rtol=0, atol=1e-6)
    steps = [result.rank(k) for k in range(1, len(facts['cmc']) + 1)]
    np.testing.assert_allclose(steps, facts['cmc'], rtol=0, atol=1e-6)


@pytest.mark.parametrize('case', ['tiny', 'small', 'no_valid', 'perfect', 'worst'])
def test_vkd_evaluator(case):
    facts = golden('vkd/' + case)
    assert facts['distmat'].dtype == np.float64
    result = ranking.rank_distances(facts['distmat'], *labels_of(facts))
    assert_vkd(result, facts)
    assert_same(result, plain_ranking(facts['distmat'], *labels_of(facts)))


def test_vkd_evaluator_with_ties_in_the_order_it_took():
    facts = golden('vkd/ties')
    assert_vkd(ranking.rank_distances(np.argsort(facts['order'], axis=1), *labels_of(facts)), facts)
    stable = ranking.rank_distances(facts['distmat'], *labels_of(facts))
    assert_same(stable, plain_ranking(facts['distmat'], *labels_of(facts)))


def test_vkd_evaluator_on_video():
    facts, labels = golden('vkd/mars_like/v2v'), labels_of(golden('vkd/mars_like'))
    features = golden('vkd/mars_like')['vid_qf'], golden('vkd/mars_like')['vid_gf']
    assert_vkd(ranking.rank(*features, *labels, metric='cosine'), facts)
    assert_vkd(ranking.rank_distances(facts['distmat'], *labels), facts)


def assert_market(result, facts):
    valid, cmc = result.valid, facts['torchreid_py_cmc']
    np.testing.assert_array_equal(valid, ~np.isnan(facts['layumi_trapezoid_AP']))
    pairs = {
        'fastreid_py_AP': result.average_precision[valid],
        'fastreid_py_INP': result.inverse_negative_penalty[valid],
        'layumi_trapezoid_AP': result.average_precision_trapezoid,
        'torchreid_py_mAP': result.mAP,
        'fastreid_py_mAP': result.mAP,
        'fastreid_py_mINP': result.mINP,
        'layumi_trapezoid_mAP_valid': result.mAP_trapezoid,
        'torchreid_py_cmc': result.cmc[: len(cmc)],
    }
    for key, value in pairs.items():
        np.testing.assert_allclose(value, facts[key], rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.parametrize('case', ['nomatch', 'tiny'])
def test_market_evaluators(case):
    facts = golden('market/' + case)
    assert facts['distmat'].dtype == np.float32
    assert_market(ranking.rank_distances(facts['distmat'], *labels_of(facts)), facts)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_market_evaluators_from_features(metric):
    facts = golden('market/feat')  # of length one, so both metrics rank alike
    assert_market(ranking.rank(facts['q'], facts['g'], *labels_of(facts), metric=metric), facts)


# Against plain loops.


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


@pytest.mark.parametrize('block', [0, -1])
def test_a_block_of_no_queries_is_refused(block):
    labels = np.ones(3, int), np.ones(5, int), np.zeros(3, int), np.ones(5, int)
    with pytest.raises(ValueError, match=f'block={block}: at least 1 query'):
        ranking.rank(np.ones((3, 2)), np.ones((5, 2)), *labels, metric='cosine', block=block)


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


# Junk, distractors, cameras.


def ranks_in_order(query, gallery, **kwargs):
    """First rank and INP of one query (id, camera) over a gallery already in order."""
    (ids, cameras), n = zip(*gallery), len(gallery)
    labels = np.array(query[:1]), np.array(ids), np.array(query[1:]), np.array(cameras)
    result = ranking.rank_distances(np.arange(n, dtype=np.float32)[None], *labels, **kwargs)
    return int(result.first_rank[0]), float(result.inverse_negative_penalty[0])


def test_distractors_count_and_junk_does_not():
    assert ranks_in_order((5, 0), [(0, 1), (-1, 1), (0, 0), (5, 1)]) == (3, 1 / 3)
    assert ranks_in_order((5, 0), [(-1, 0), (-1, 1), (5, 1), (-1, 2), (5, 2)]) == (1, 1)


def test_same_camera():
    gallery = [(5, 0), (6, 0), (5, 0), (5, 1), (5, 0), (5, 2)]
    assert ranks_in_order((5, 0), gallery) == (2, 2 / 3)
    assert ranks_in_order((5, 0), gallery, same_camera='keep') == (1, 5 / 6)


def test_unknown_cameras_are_never_the_same():
    gallery = [(5, -1), (6, -1), (5, 0), (5, -1)]
    assert ranks_in_order((5, -1), gallery) == (1, 3 / 4)
    assert ranks_in_order((5, 0), gallery) == (1, 2 / 3)


def test_junk_is_no_match_of_a_junk_query():
    labels = np.array([-1, 1]), np.array([-1, 1]), np.array([0, 0]), np.array([1, 1])
    result = ranking.rank_distances(np.zeros((2, 2), np.float32), *labels)
    assert result.valid.tolist() == [False, True]


def test_the_curve_never_falls_when_junk_leaves_a_short_gallery():
    gallery_ids = np.array([1, 1, 1, 1, 2, -1])
    labels = np.array([1, 2, 1]), gallery_ids, np.array([0, 1, 1]), np.array([0, 0, 0, 1, 0, 0])
    distances = np.random.default_rng(0).normal(size=(3, 6))
    result = ranking.rank_distances(distances, *labels)
    assert_same(result, plain_ranking(distances, *labels))
    assert len(result.cmc) == 6
    assert (np.diff(result.cmc) >= 0).all()
    assert result.cmc[-1] == result.rank(6) == 1


def test_means_are_over_the_valid_queries():
    labels = np.array([1, 9, 2]), np.array([2, 1]), np.array([0, 0, 0]), np.array([1, 1])
    result = ranking.rank_distances(np.array([[1.0, 2.0]] * 3), *labels)
    assert result.valid.tolist() == [True, False, True]
    assert np.isnan(result.average_precision).tolist() == [False, True, False]
    assert np.isnan(result.average_precision_trapezoid[1])
    assert np.isnan(result.inverse_negative_penalty[1])
    assert (result.mAP, result.mAP_trapezoid, result.mINP) == (0.75, 0.625, 0.75)
    assert (result.rank(1), result.cmc.tolist()) == (0.5, [0.5, 1.0])


# Errors say what is wrong.


def call(query=(3, 4), gallery=(5, 4), q=3, g=5, **kwargs):
    arrays = [np.ones(shape, np.float32) for shape in (query, gallery)]
    lengths = {'query_ids': q, 'gallery_ids': g, 'query_cameras': q, 'gallery_cameras': g}
    labels = {name: np.full(n, 'gallery' in name, int) for name, n in lengths.items()}
    labels['query_ids'] = labels['query_ids'] + 1
    metric = kwargs.pop('metric', 'cosine')
    same_camera = kwargs.pop('same_camera', 'drop')
    labels.update({k: np.asarray(v) for k, v in kwargs.items()})
    return ranking.rank(*arrays, **labels, metric=metric, same_camera=same_camera)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'metric': 'dot'}, "metric is one of cosine, euclidean, not 'dot'"),
        ({'same_camera': 'no'}, "same_camera is one of drop, keep, not 'no'"),
        ({'gallery': (5, 7)}, 'query has 4 features, gallery 7'),
        ({'query_ids': [1, 1]}, 'query_ids holds 2 values where 3 are to be ranked'),
        ({'gallery_ids': [1]}, 'gallery_ids holds 1 values where 5'),
        ({'query_cameras': [1]}, 'query_cameras holds 1 values where 3'),
        ({'gallery_cameras': [1] * 6}, 'gallery_cameras holds 6 values where 5'),
        ({'query': (0, 4), 'q': 0}, r'query is empty: shape \(0, 4\)'),
        ({'gallery': (0, 4), 'g': 0}, r'gallery is empty: shape \(0, 4\)'),
        (
            {'query_ids': [1, 7, 8], 'gallery_cameras': [0] * 5},
            'none of 3 queries has a valid match: 2 have no such identity in the gallery, '
            '1 only under their own camera',
        ),
        ({'gallery_ids': [-1] * 5}, 'none of 3 queries has a valid match: 3 have no such'),
    ],
)
def test_input_that_does_not_fit(kwargs, message):
    call()
    with pytest.raises(ValueError, match=message):
        call(**kwargs)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite(bad):
    good, labels = np.ones((4, 3), np.float32), [np.ones(4, int), np.ones(4, int)]
    labels += [np.zeros(4, int), np.ones(4, int)]
    broken = good.copy()
    broken[1, 2] = broken[3, 0] = bad
    with pytest.raises(ValueError, match='query: NaN or Inf in 2 of 4 rows, first 1'):
        ranking.rank(broken, good, *labels, metric='cosine')
    with pytest.raises(ValueError, match='gallery: NaN or Inf in 2 of 4 rows, first 1'):
        ranking.rank(good, broken, *labels, metric='euclidean')
    with pytest.raises(ValueError, match='distances: NaN or Inf in 2 of 4 rows, first 1'):
        ranking.rank_distances(broken, *[x[:n] for x, n in zip(labels, (4, 3, 4, 3))])


def test_distances_that_do_not_fit_the_labels():
    labels = [np.ones(2, int), np.ones(3, int), np.zeros(2, int), np.ones(3, int)]
    with pytest.raises(ValueError, match='gallery_ids holds 3 values where 4'):
        ranking.rank_distances(np.zeros((2, 4)), *labels)
    with pytest.raises(ValueError, match=r'distances is empty: shape \(0, 3\)'):
        ranking.rank_distances(np.zeros((0, 3)), *labels)


@pytest.mark.parametrize('k', [0, -1])
def test_rank_k_starts_at_one(k):
    with pytest.raises(ValueError, match=f'rank-k starts at k=1, not {k}'):
        call().rank(k)


def test_tensorflow_is_not_imported():
    code = 'import sys, kd_jax.retrieval.ranking; sys.exit("tensorflow" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
