"""The benchmark's test sets are of the sizes that they say, and its table is filled."""

from importlib import util

import numpy as np
import pytest
import smoke

from experiments import bench_retrieval, retrieval_sets
from experiments.retrieval_sets import SIZES, Size


@pytest.mark.parametrize('size', [SIZES['smoke'], Size(7, 30, 4, 2)])
def test_a_set_has_its_numbers(size, monkeypatch):
    monkeypatch.setattr(retrieval_sets, 'SLICE', 11)
    data = retrieval_sets.planted(size, 8, 0.5)
    ids, gallery_ids, cameras, gallery_cameras = data.labels
    assert (data.query.shape, data.gallery.shape) == ((size.queries, 8), (size.gallery, 8))
    assert set(ids) <= set(range(size.identities)) <= set(gallery_ids)
    assert (gallery_ids >= size.identities).sum() == size.distractors
    assert max(cameras.max(), gallery_cameras.max()) < size.cameras
    assert data.query.dtype == np.float32
    again = retrieval_sets.planted(size, 8, 0.5)
    np.testing.assert_array_equal(data.gallery, again.gallery)


def test_more_noise_is_harder():
    found = []
    for noise in (0.5, 4.0):
        data = retrieval_sets.planted(SIZES['smoke'], 16, noise)
        ranking = bench_retrieval.ours(data, None)
        found.append(ranking.mAP)
        assert bench_retrieval.difference(ranking, data) < 1e-3
        reranked = bench_retrieval.reranked(data, None, 'zhong')
        assert np.isfinite(reranked.mAP)
    assert found[0] > 0.7 > 0.4 > found[1]


def test_a_wrong_ranking_differs():
    data = retrieval_sets.planted(SIZES['smoke'], 16, 1.0)
    ranking = bench_retrieval.ours(data, None)
    wrong = ranking._replace(average_precision=ranking.average_precision * 0.9)
    assert bench_retrieval.difference(wrong, data) > 0.01


def test_the_command_line():
    (done,) = smoke.ended(
        smoke.python('-m', 'experiments.bench_retrieval', '--sets=smoke', '--width=16')
    )
    code, text, _ = done
    assert code == 0
    rows = [line.split(' | ') for line in text.splitlines()[2:]]
    assert [row[1] for row in rows] == ['product', 'kd_jax', 'argsort', 'torchreid']
    assert 0 < float(rows[1][6]) < 100
    assert float(rows[1][7].rstrip(' |')) < 1e-3
    assert util.find_spec('torchreid') or 'not installed' in rows[3][2]
