"""Query expansion against what fast-reid computed, and against a plain loop."""

import numpy as np
import pytest
from test_ranking import cosine_distances
from test_rerank import GOLDEN, people

from kd_jax.retrieval import expansion


def test_vectors_of_fast_reid():
    found = expansion.expanded(GOLDEN['q'], GOLDEN['g'], count=5, alpha=3.0, rounds=1)
    for vectors, key in zip(found, ('aqe_q', 'aqe_g')):
        np.testing.assert_allclose(vectors, GOLDEN[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize(('count', 'alpha'), [(1, 0.0), (4, 0.0), (6, 2.5), (105, 1.0)])
def test_against_a_loop(count, alpha, monkeypatch):
    monkeypatch.setattr(expansion, 'ROWS', 13)
    sides = people(0)
    expected = np.concatenate(sides).astype(float)
    for _ in range(2):
        cosines = 1 - cosine_distances(expected, expected)
        means = []
        for row in cosines:
            near = np.argsort(-row, kind='stable')[:count]
            weights = [abs(cosine) ** alpha if cosine > 0 else 0 for cosine in row[near]]
            means.append(np.array(weights) @ expected[near] / count)
        expected = np.array(means)
    found = expansion.expanded(*sides, count=count, alpha=alpha, rounds=2)
    assert [len(side) for side in found] == [15, 90]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('rule', [{'count': 0}, {'alpha': -1.0}, {'rounds': 0}, {'count': 106}])
def test_what_can_not_be(rule):
    with pytest.raises(ValueError, match=r'expansion needs|asked of 105 images'):
        expansion.expanded(*people(1), **{'count': 3, 'alpha': 3.0, 'rounds': 1} | rule)
