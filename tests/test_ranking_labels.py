"""Which of a gallery count: junk, distractors, cameras, and queries without a match."""

import numpy as np
from plain_ranking import assert_same, plain_ranking

from kd_jax.retrieval import ranking


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
