"""Intervals and the paired test, where what they should be is known."""

import numpy as np
import pytest
from test_results import ROW, ranking

from kd_jax import comparison
from kd_jax.retrieval import confidence
from kd_jax.runs import RunError
from kd_jax.scoring import Scored


def test_intervals_are_those_of_the_mean():
    """Of many queries, 1.96 standard errors to each side."""
    values = np.random.default_rng(0).uniform(size=(900, 2))
    values[:, 1] = values[:, 1] < 0.3
    low, high = confidence.interval(values)
    error = 1.96 * values.std(axis=0, ddof=1) / 30
    np.testing.assert_allclose(low, values.mean(axis=0) - error, atol=0.12 * error.max())
    np.testing.assert_allclose(high, values.mean(axis=0) + error, atol=0.12 * error.max())


def test_intervals_cover_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(confidence, 'SAMPLES', 300)
    rng, covered = np.random.default_rng(1), 0
    for seed in range(300):
        low, high = confidence.interval(rng.beta(0.7, 0.4, (60, 1)), seed)
        covered += low[0] <= 0.7 / 1.1 <= high[0]
    assert 0.9 <= covered / 300 <= 0.98


def test_the_same_twice_and_in_any_portions(monkeypatch):
    values = np.random.default_rng(2).uniform(size=(40, 3))
    whole = confidence.interval(values), confidence.paired(values, values[::-1])
    monkeypatch.setattr(confidence, 'AT_ONCE', 40 * 7)
    parts = confidence.interval(values), confidence.paired(values, values[::-1])
    np.testing.assert_array_equal(parts[0], whole[0])
    for one, other in zip(parts[1], whole[1]):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_by_chance_alone_p_is_anything(monkeypatch):
    monkeypatch.setattr(confidence, 'FLIPS', 199)
    monkeypatch.setattr(confidence, 'SAMPLES', 50)
    rng, small = np.random.default_rng(3), 0
    for seed in range(300):
        pair = rng.uniform(size=(2, 50, 1))
        small += confidence.paired(*pair, seed).p[0] <= 0.05
    assert 4 <= small <= 28  # 15 expected


def test_of_few_queries_p_is_that_of_all_flips():
    """Seven equal gains: 2 of 128 flips are as large, a share of 1 / 64."""
    pair = np.full((7, 1), 0.75), np.full((7, 1), 0.5)
    found = confidence.paired(*pair)
    assert found.mean[0] == found.low[0] == found.high[0] == 0.25
    assert found.p[0] == pytest.approx(1 / 64, abs=0.004)
    none = confidence.paired(pair[0], pair[0])
    assert (none.mean[0], none.p[0]) == (0, 1)
    np.testing.assert_array_equal(confidence.paired(*pair[::-1]).mean, -found.mean)


def test_other_numbers_of_queries_are_no_pairs():
    with pytest.raises(ValueError, match='3 queries can not be paired with 4'):
        confidence.paired(np.zeros((3, 1)), np.zeros((4, 1)))


def test_only_valid_queries_count_by_the_quoted_precision():
    one = ranking(1, 4, 0, 11)
    for quoted, share in (('mAP', 1), ('mAP_trapezoid', 0.5)):
        values = confidence.of_queries(one, quoted, (1, 5, 10))
        assert len(values) == 3
        np.testing.assert_array_equal(values[:, 1:], [[1, 1, 1], [0, 1, 1], [0, 0, 0]])
        np.testing.assert_array_equal(values[:, 0], share * one.average_precision[one.valid])


# Tables.


def scored(*ranks, protocol='market'):
    return Scored(ROW | {'protocol': protocol}, [ranking(*ranks)])


def test_tables_of_two_runs():
    found = {'a': [scored(1, 1, 1, 2)], 'b': [scored(2, 2, 2, 3)]}
    head, first, second = comparison.intervals(found).splitlines()
    assert head.split()[-4:] == ['mAP', 'rank-1', 'rank-5', 'rank-10']
    assert first.startswith('a ')
    assert ' '.join(second.split()[2:]) == '37.5 – 50.0 0.0 – 0.0 100.0 – 100.0 100.0 – 100.0'
    head, _, means, interval, p = comparison.differences(found).splitlines()
    assert head == 'a − b'
    assert means.split() == ['market', '+41.7', '+75.0', '+0.0', '+0.0']
    assert interval.split()[-3:] == ['+0.0', '–', '+0.0']
    assert p.split()[-1] == '1.0000'


def test_draws_and_means_of_parts_have_no_intervals():
    drawn = Scored(ROW, [ranking(1, 2), ranking(2, 2)])
    assert 'can not be paired' in comparison.differences({'a': [drawn], 'b': [drawn]})
    assert comparison.intervals({'a': [drawn]}) == ''
    assert 'i2v' in comparison.intervals({'a': [drawn, scored(1, 2, protocol='i2v')]})


@pytest.mark.parametrize('other', [scored(1, 2), scored(1, 2, 3, protocol='i2v')])
def test_other_queries_are_refused(other):
    with pytest.raises(RunError, match='a and b were not asked the same queries'):
        comparison.differences({'a': [scored(1, 2, 3)], 'b': [other]})
