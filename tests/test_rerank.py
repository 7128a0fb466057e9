"""Re-ranking against what three codebases computed, and against the paper by plain loops."""

import contextlib
import logging
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
from test_ranking import clustered, cosine_distances

from kd_jax.retrieval import neighbours, ranking, rerank

GOLDEN = dict(np.load(Path(__file__).parent / 'golden' / 'rerank.npz'))
SIDES = GOLDEN['q'], GOLDEN['g']
LABELS = [GOLDEN[key] for key in ('q_pids', 'g_pids', 'q_camids', 'g_camids')]
RULE = {'variant': 'zhong', 'k1': 20, 'k2': 6, 'weight': 0.3}


def all_rows(query, gallery, metric='cosine', devices=None, **rule):
    """The re-ranked distances of all queries."""
    of_rows = rerank.distances(query, gallery, metric=metric, devices=devices, **RULE | rule)
    return of_rows(np.arange(len(query)))


# What others computed. All vectors have length 1, so both metrics order and re-rank alike.


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize(
    ('key', 'rule'),
    [('zhong', {}), ('fastreid_jaccard', {'variant': 'fastreid', 'weight': 0.0})],
)
def test_distances_of_others(key, rule, metric):
    np.testing.assert_allclose(all_rows(*SIDES, metric, **rule), GOLDEN[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ('rule', 'precision', 'rank_1', 'apart'),
    [
        (('zhong', 20, 6, 0.3), 0.350534, 30, 0.0),
        (('zhong', 5, 1, 0.5), 0.271755, 19, 0.42),
        (('strong_baseline', 20, 6, 0.3), 0.347579, 29, 0.079),
        (('strong_baseline', 50, 15, 0.3), 0.326883, 29, 0.26),  # of TransReID
        (('fastreid', 20, 6, 0.3), 0.328454, 30, 0.72),
    ],
)
def test_scores_of_others(rule, precision, rank_1, apart):
    """`apart` is the largest difference to what torchreid's function gives."""
    rule = dict(zip(('variant', 'k1', 'k2', 'weight'), rule))
    of_rows = rerank.distances(*SIDES, metric='euclidean', **rule)
    found = ranking.rank_rows(of_rows, (60, 340), *LABELS)
    assert found.mAP == pytest.approx(precision, abs=1e-6)
    assert found.rank(1) == pytest.approx(rank_1 / 60)
    difference = np.abs(of_rows(np.arange(60)) - GOLDEN['zhong']).max()
    assert difference == pytest.approx(apart, abs=0.006)


# By the paper's equations, one image after the other, in float64.


def plain_reranked(query, gallery, k1, k2, weight):
    """Eq. 3, 5, 7, 11, 10 and 12 of Zhong et al. on dense matrices."""
    everyone = np.concatenate([query, gallery]).astype(float)
    original = (2 * cosine_distances(everyone, everyone)) ** 2
    original /= original.max(axis=1, keepdims=True)
    order = np.argsort(original, axis=1, kind='stable')

    def reciprocal(image, k):
        return {near for near in order[image, : k + 1] if image in order[near, : k + 1]}

    vectors = np.zeros_like(original)
    for image in range(len(everyone)):
        own = reciprocal(image, k1)
        expanded = set(own)
        for near in own:
            others = reciprocal(near, round(k1 / 2))
            if 3 * len(others & own) > 2 * len(others):
                expanded |= others
        members = sorted(expanded)
        vectors[image, members] = np.exp(-original[image, members])
        vectors[image] /= vectors[image].sum()
    vectors = np.stack([vectors[order[image, :k2]].mean(axis=0) for image in range(len(order))])
    found = np.zeros((len(query), len(gallery)))
    for one in range(len(query)):
        for other in range(len(gallery)):
            both = vectors[one], vectors[len(query) + other]
            jaccard = 1 - np.minimum(*both).sum() / np.maximum(*both).sum()
            found[one, other] = (1 - weight) * jaccard
    return found + weight * original[: len(query), len(query) :]


@pytest.mark.parametrize(
    ('k1', 'k2', 'weight'), [(20, 6, 0.3), (1, 1, 0.0), (7, 3, 0.9), (40, 45, 0.5), (3, 1, 1.0)]
)
@pytest.mark.parametrize('seed', range(2))
def test_against_plain_loops(seed, k1, k2, weight):
    query, gallery = people(seed)
    found = all_rows(query, gallery, k1=k1, k2=k2, weight=weight)
    expected = plain_reranked(query, gallery, k1, k2, weight)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


def people(seed, queries=15, images=90):
    """Vectors of some identities, of different lengths."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 9, queries + images)
    vectors = clustered(rng, ids, 24) * rng.uniform(0.1, 10, (len(ids), 1)).astype(np.float32)
    return vectors[:queries], vectors[queries:]


# The same whatever is done at a time, and wherever.


@pytest.mark.parametrize('variant', rerank.VARIANTS)
def test_blocks_do_not_matter(variant, monkeypatch):
    sides = people(2, 40, 300)
    whole = all_rows(*sides, variant=variant)
    monkeypatch.setattr(neighbours, 'BLOCK_BYTES', 4 * 340 * 7)
    monkeypatch.setattr(rerank, 'ROWS', 11)
    monkeypatch.setattr(rerank, 'OVERLAPS', 300 * 3)
    np.testing.assert_allclose(all_rows(*sides, variant=variant), whole, rtol=0, atol=1e-6)
    some = rerank.distances(*sides, metric='cosine', **RULE | {'variant': variant})
    rows = np.array([7, 7, 31])
    np.testing.assert_allclose(some(rows), whole[rows], rtol=0, atol=1e-6)


def test_one_device_and_four():
    sides = people(3, 60, 700)
    four = all_rows(*sides, devices=jax.devices())
    np.testing.assert_array_equal(all_rows(*sides), four)


def test_neighbours_that_a_device_finds(monkeypatch):
    """As on an accelerator: of equally near ones too."""
    query, gallery = people(4, 30, 200)
    gallery[50:60] = gallery[40:50]
    among = neighbours.space(query, gallery, 'cosine')
    host = neighbours.nearest(among, 12)
    monkeypatch.setattr('kd_jax.retrieval.tiles._is_host', lambda device: False)
    device = neighbours.nearest(among, 12)
    for one, other in zip(host, device):
        np.testing.assert_array_equal(one, other)
    assert (host.index[:, 0] == np.arange(230)).sum() >= 220  # itself, but for the twins


@pytest.mark.parametrize(
    ('gallery', 'metric', 'message'),
    [
        (np.ones((40, 3), np.float32), 'cosine', 'query has 4 features, gallery 3'),
        (np.full((40, 4), np.nan, np.float32), 'cosine', 'gallery: NaN or Inf in 40 of 40 rows'),
        (np.ones((40, 4), np.float32), 'x', "metric is one of cosine, euclidean, not 'x'"),
    ],
)
def test_vectors_that_can_not_be_reranked(gallery, metric, message):
    with pytest.raises(ValueError, match=message):
        rerank.distances(np.ones((9, 4), np.float32), gallery, metric=metric, **RULE)


def test_no_matrix_of_all_pairs_is_made(monkeypatch):
    monkeypatch.setattr(neighbours, 'BLOCK_BYTES', 2**22)  # less than all pairs of so few
    rng = np.random.default_rng(5)
    ids = rng.integers(0, 400, 4000)
    vectors = clustered(rng, ids, 16)
    labels = ids[:200], ids[200:], np.zeros(200, int), np.ones(3800, int)
    tracemalloc.start()
    of_rows = rerank.distances(vectors[:200], vectors[200:], metric='cosine', **RULE)
    ranking.rank_rows(of_rows, (200, 3800), *labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4000 * 4000 * 4


def test_an_accelerator_reranks_as_the_host(monkeypatch):
    """By as few compiled programs for many images as for some."""
    sides = people(8, 30, 200)
    host = all_rows(*sides)
    monkeypatch.setattr('kd_jax.retrieval.tiles._is_host', lambda device: False)
    monkeypatch.setattr(rerank, 'ROWS', 9)
    with jax.log_compiles(), patched_log() as lines:
        np.testing.assert_allclose(all_rows(*sides), host, rtol=0, atol=1e-6)
    assert len([line for line in lines if line.startswith('Compiling')]) < 20


@contextlib.contextmanager
def patched_log():
    """The messages that JAX logs meanwhile."""
    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger('jax')
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


# Extremes.


def test_images_that_are_equal_or_nought_stay_finite():
    query, gallery = people(6)
    gallery[5:40] = gallery[5]
    gallery[60:64] = 0
    query[3] = 0
    for variant in rerank.VARIANTS:
        assert np.isfinite(all_rows(query, gallery, variant=variant)).all()
    assert np.isfinite(all_rows(query * 0, gallery * 0)).all()


@pytest.mark.parametrize(
    ('rule', 'message'),
    [
        ({'variant': 'zhang'}, 'one of zhong, strong_baseline, fastreid'),
        ({'k1': 0}, 'k1 and k2 of 1 or more .* k1=0'),
        ({'k2': 0}, 'k2=0'),
        ({'weight': 1.5}, 'weight=1.5'),
        ({'k1': 105}, '106 neighbours asked of 105 images'),
    ],
)
def test_what_can_not_be(rule, message):
    with pytest.raises(ValueError, match=message):
        all_rows(*people(7), **rule)
