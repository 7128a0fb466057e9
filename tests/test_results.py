import numpy as np
import pytest

from kd_jax import results
from kd_jax.retrieval.ranking import Ranking

ROW = {'mAP': 0.5, 'mAP_trapezoid': 0.375, 'mINP': 0.25, 'rank-1': 0.125, 'rank-5': 1.0}
ROW |= {
    'rank-10': 0.0625,
    'valid_queries': 23,
    'queries': 24,
    'shots': 1,
    'shots_of': 'identity',
    'repeated': 0.0,
}
ROW |= {'protocol': 'market', 'quoted': 'mAP', 'same_camera': 'drop', 'also': []}
ROW['refined'] = ''


def ranking(*ranks):
    """Queries with one match each, at those ranks; 0 is a query without."""
    first, valid = np.array(ranks), np.array(ranks) > 0
    score = np.where(valid, 1 / np.maximum(first, 1), np.nan)
    return Ranking(first, score, score / 2, score, valid, 20)


def test_the_numbers_of_one_ranking():
    found = results.summary([ranking(1, 2, 0, 6)])
    precision = (1 + 1 / 2 + 1 / 6) / 3
    expected = {'mAP': precision, 'mAP_trapezoid': precision / 2, 'mINP': precision}
    expected |= {'rank-1': 1 / 3, 'rank-5': 2 / 3, 'rank-10': 1.0}
    assert found == pytest.approx(expected | {'valid_queries': 3, 'queries': 4})


def test_the_numbers_of_draws():
    """Their mean, and their sample standard deviation."""
    drawn = [ranking(1, 1), ranking(1, 2), ranking(4, 2)]
    found = results.summary(drawn) | results.deviations(drawn)
    assert found['rank-1'] == pytest.approx(0.5)
    assert found['rank-1_std'] == pytest.approx(0.5)
    assert found['mAP'] == pytest.approx(np.mean([1, 0.75, 0.375]))
    assert found['mAP_std'] == pytest.approx(np.std([1, 0.75, 0.375], ddof=1))
    assert (found['queries'], found['valid_queries']) == (4 + 2, 6)
    drawn = results.summary(drawn, drawn=True)
    assert (drawn['queries'], drawn['valid_queries']) == (2, 2)


def test_a_query_that_is_ranked_last_has_no_match():
    last = ranking(1, 21)  # of 20
    assert results.summary([last])['valid_queries'] == 1


def test_a_table_has_a_row_for_every_network():
    head, first, second = results.table({'a': ROW, 'b': ROW | {'mAP': 1.0}}).splitlines()
    columns = ['protocol', 'mAP', 'mINP', 'rank-1', 'rank-5', 'rank-10', 'valid', 'queries']
    assert head.split() == columns
    assert first.split() == ['a', 'market', '50.0', '25.0', '12.5', '100.0', '6.2', '23/24']
    assert second.split() == ['b', 'market', '100.0', '25.0', '12.5', '100.0', '6.2', '23/24']
    assert 'upper bound' not in results.table({'a': ROW})
    old = {key: value for key, value in ROW.items() if key != 'refined'}
    assert results.table({'a': old}) == results.table({'a': ROW})
    refined = results.table({'a': ROW | {'refined': 're-ranked by zhong'}})
    assert refined.splitlines()[-1] == 'market: re-ranked by zhong'


def test_a_table_marks_several_shots_as_an_upper_bound():
    lines = results.table({'teacher': ROW | {'shots': 4}, 'student': ROW}).splitlines()
    assert lines[1].startswith('teacher (4 shots*) ')
    assert lines[2].startswith('student ')
    assert '*' not in lines[2]
    assert lines[3].startswith('*')
    assert 'true identity' in lines[3]
    assert lines[3].endswith('an upper bound')


def test_a_table_tells_of_shots_that_come_twice():
    text = results.table({'teacher': ROW | {'shots': 4, 'repeated': 0.25}})
    assert (
        text.splitlines()[-1]
        == '  of identities with few images some shots come twice: 25.0 % of sets'
    )


def test_a_table_tells_where_the_own_camera_may_answer():
    kept = ROW | {'same_camera': 'keep'}
    other = kept | {'protocol': 'vehicleid 800'}
    lines = results.table({'a': kept | {'also': [other]}}).splitlines()
    assert lines[-1] == 'market: matches by the query’s own camera are not left out'


def test_a_table_tells_of_an_image_shown_several_times():
    text = results.table({'teacher': ROW | {'shots': 4, 'shots_of': 'image'}})
    assert text.splitlines()[1].startswith('teacher (4 times itself) ')
    assert 'upper bound' not in text


def test_a_table_quotes_the_precision_of_the_protocol():
    """And says so of those that are not the mean of precisions."""
    other = ROW | {'protocol': 'mars i2v', 'quoted': 'mAP_trapezoid'}
    lines = results.table({'a': ROW | {'also': [other]}}).splitlines()
    assert lines[1].split()[:3] == ['a', 'market', '50.0']
    assert lines[2].split()[:4] == ['a', 'mars', 'i2v', '37.5']
    assert lines[3].startswith('mAP of mars i2v: the trapezoid rule')
    starts = {line.index('50.0') + 4 for line in lines[1:2]}
    assert starts == {lines[2].index('37.5') + 4, lines[0].index('mAP') + 3}


def test_a_table_shows_the_spread_over_draws():
    drawn = ROW | {f'{name}_std': 0.01 for name in ('mAP', 'mINP', 'rank-1', 'rank-5', 'rank-10')}
    lines = results.table({'a': drawn | {'protocol': 'vehicleid 800'}}).splitlines()
    assert lines[1].split()[:4] == ['a', 'vehicleid', '800', '50.0']
    assert lines[2].split() == ['±', 'over', 'draws', *['1.0'] * 5]
    assert lines[2].index('1.0') + 3 == lines[1].index('50.0') + 4
