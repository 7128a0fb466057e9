"""Query expansion and re-ranking as options of a protocol."""

import numpy as np
import pytest
from test_protocols import records
from test_rerank import people

from kd_jax.retrieval import expansion, items, pairs, protocols, ranking, refinement, rerank

RERANKED = {'variant': 'zhong', 'k1': 9, 'k2': 3, 'weight': 0.3}
EXPANDED = {'count': 4, 'alpha': 3.0, 'rounds': 1}
OFF = {'reranked': RERANKED | {'variant': 'none'}, 'expanded': EXPANDED | {'count': 0}}


def case(seed=0):
    rng = np.random.default_rng(seed)
    query, gallery = people(seed)
    ids = rng.integers(0, 9, 15), rng.integers(-1, 9, 90)
    return (query, gallery), (*ids, np.zeros(15, int), rng.integers(0, 3, 90))


def ranked(sides, labels, **options):
    return refinement.ranked(*sides, *labels, metric='cosine', same_camera='drop', **options)


def same(one, other):
    for field, values in one._asdict().items():
        np.testing.assert_array_equal(values, getattr(other, field), err_msg=field)


def test_off_is_the_ranking_alone():
    sides, labels = case()
    plain = ranking.rank(*sides, *labels, metric='cosine')
    same(ranked(sides, labels), plain)
    same(ranked(sides, labels, **OFF), plain)


@pytest.mark.parametrize('expands', [False, True])
@pytest.mark.parametrize('reranks', [False, True])
def test_expanded_then_reranked_without_junk_images(reranks, expands):
    sides, labels = case(1)
    options = OFF | ({'reranked': RERANKED} if reranks else {})
    options |= {'expanded': EXPANDED} if expands else {}
    junk = lambda rows, columns: (rows + columns) % 7 == 0  # noqa: E731, by all items' numbers
    kept = np.flatnonzero(labels[1] != pairs.JUNK)
    assert len(kept) < 90
    query, gallery = sides[0], sides[1][kept]
    if expands:
        query, gallery = expansion.expanded(query, gallery, **EXPANDED)
    labels_kept = labels[0], labels[1][kept], labels[2], labels[3][kept]
    rule = {'junk': lambda rows, columns: junk(rows, kept[columns])}
    if reranks:
        of_rows = rerank.distances(query, gallery, metric='cosine', **RERANKED)
        expected = ranking.rank_rows(of_rows, (15, len(kept)), *labels_kept, **rule)
    else:
        expected = ranking.rank(query, gallery, *labels_kept, metric='cosine', **rule)
    found = ranked(sides, labels, junk=junk, **options)
    np.testing.assert_array_equal(found.first_rank, expected.first_rank)
    np.testing.assert_array_equal(found.average_precision, expected.average_precision)


def test_items_of_several_features_are_refused():
    sides, labels = case(3)
    with pytest.raises(ValueError, match='can be neither expanded nor re-ranked'):
        ranked(sides, labels, reranked=RERANKED, groups=np.arange(90))


def test_the_curve_is_as_long_as_without():
    sides, labels = case(4)
    assert len(ranked(sides, labels, reranked=RERANKED).cmc) == len(ranked(sides, labels).cmc) == 90


def test_vectors_that_are_not_finite():
    (query, gallery), labels = case(2)
    query[4] = np.nan
    for option in ({'reranked': RERANKED}, {'expanded': EXPANDED}):
        with pytest.raises(ValueError, match='query: NaN or Inf in 1 of 15 rows, first 4'):
            ranked((query, gallery), labels, **OFF | option)


def checked(name, **refined):
    query, gallery = records([1, 2], [0, 1]), records([1, 2, 1, -1, -1], [1, 0, 2, 3, 4])
    test = items.together(query, gallery)
    rule = {'metric': 'cosine', 'same_camera': 'drop', 'frames': 1}
    protocols.check(name, test, **rule, **OFF | refined)


def test_too_many_neighbours_are_refused_early():
    checked('market', reranked=RERANKED | {'k1': 4})
    with pytest.raises(ValueError, match=r'evaluate\.reranked\.k1 asks for 6 neighbours of 5'):
        checked('market', reranked=RERANKED | {'k1': 5})
    with pytest.raises(ValueError, match=r'evaluate\.expanded\.count asks for 6 .* of 5 images'):
        checked('market', expanded=EXPANDED | {'count': 6})
    with pytest.raises(ValueError, match='not count=-1'):
        checked('market', expanded=EXPANDED | {'count': -1})
    with pytest.raises(ValueError, match='one of zhong'):
        checked('market', reranked=RERANKED | {'variant': 'k-reciprocal'})


@pytest.mark.parametrize(
    'name', [name for name, one in protocols.PROTOCOLS.items() if not one.refines]
)
def test_protocols_that_rank_something_else_refuse(name):
    assert name in ('veri_track', 'vehicleid', 'cuhk03_classic', 'atrw')
    with pytest.raises(ValueError, match=r'neither evaluate\.reranked nor .* they do market, veri'):
        checked(name, reranked=RERANKED)


def test_what_was_done_in_words():
    assert refinement.described(**OFF) == ''
    assert refinement.described(RERANKED, EXPANDED) == (
        'expanded by 4 neighbours, alpha 3, re-ranked by zhong, k1=9, k2=3, λ=0.3'
    )
    assert refinement.described(None, EXPANDED | {'rounds': 2}).endswith('alpha 3, 2 times')
