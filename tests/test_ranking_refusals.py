"""What cannot be ranked is told."""

import numpy as np
import pytest

from kd_jax.retrieval import ranking


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


@pytest.mark.parametrize('block', [0, -1])
def test_a_block_of_no_queries_is_refused(block):
    labels = np.ones(3, int), np.ones(5, int), np.zeros(3, int), np.ones(5, int)
    with pytest.raises(ValueError, match=f'block={block}: at least 1 query'):
        ranking.rank(np.ones((3, 2)), np.ones((5, 2)), *labels, metric='cosine', block=block)
