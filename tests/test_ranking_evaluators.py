"""Ranking gives the numbers of official evaluators."""

from pathlib import Path

import numpy as np
import pytest
from plain_ranking import assert_same, plain_ranking

from kd_jax.retrieval import ranking

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'ranking.npz')


def golden(case):
    return {key[len(case) + 1 :]: GOLDEN[key] for key in GOLDEN.files if key.startswith(case + '/')}


def labels_of(facts):
    return [facts[key] for key in ('q_pids', 'g_pids', 'q_camids', 'g_camids')]


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
