"""What protocols refuse, before there are any features."""

import pytest
from test_protocols import TRACKS, records

from kd_jax.retrieval import items, protocols


def check(name, query, gallery, tracklets=False, **options):
    options = {'metric': 'cosine', 'same_camera': 'drop', 'frames': 8} | options
    return protocols.check(name, items.together(query, gallery, tracklets), **options)


def test_names():
    assert protocols.names('i2v, v2v') == ['i2v', 'v2v']
    with pytest.raises(ValueError, match=r"protocol='marks': choose of market, .*atrw"):
        protocols.names('market,marks')


@pytest.mark.parametrize('name', ['vehicleid', 'cuhk03_classic', 'atrw'])
def test_a_pool_is_needed(name):
    told = f'{name} takes queries and gallery from one pool, .*: .* one of market, '
    with pytest.raises(ValueError, match=told):
        check(name, records([1]), records([1]), same_camera='keep')


@pytest.mark.parametrize('name', ['market', 'i2v', 'mars', 'veri_track'])
def test_a_pool_is_refused(name):
    pool = records([1, 1], [0, 1], [0, 1])
    with pytest.raises(ValueError, match=f'{name} takes queries and gallery apart, .* vehicleid'):
        check(name, pool, pool)


@pytest.mark.parametrize('name', ['vehicleid', 'atrw'])
def test_without_a_rule_on_cameras(name):
    pool = records([1, 1])
    with pytest.raises(ValueError, match=r'set evaluate\.same_camera=keep'):
        check(name, pool, pool)
    check('vehicleid', pool, pool, same_camera='keep')


@pytest.mark.parametrize('name', ['i2v', 'v2v', 'mars', 'veri_track'])
def test_tracklets_are_needed(name):
    with pytest.raises(ValueError, match=r'ranks tracklets, but no (query|gallery) image has a'):
        check(name, records([1], [0]), records([1], [1]))


def test_the_side_without_tracklets_is_named():
    query, gallery = records([1], [0]), records([1], [1], [4])
    with pytest.raises(ValueError, match='v2v ranks tracklets, but no query image has a known one'):
        check('v2v', query, gallery)
    with pytest.raises(ValueError, match='i2v ranks tracklets, but no gallery image has a known'):
        check('i2v', gallery, query)


def test_only_tracklets_join_the_gallery():
    """Images whose tracklets the gallery shows would put them there twice."""
    query, gallery = records([1], [0], [3]), records([1, 1], [1, 0], [4, 3])
    with pytest.raises(ValueError, match='mars is for data sets that consist of tracklets'):
        check('mars', query, gallery)
    check('mars', query, gallery, tracklets=True)


def test_matches_are_needed():
    with pytest.raises(ValueError, match='1 have no such identity in the gallery, 1 only under'):
        check('market', records([1, 2], [0, 0]), records([1], [0]))
    pool = records([1, 2, 3])
    with pytest.raises(ValueError, match='none of 3 queries has a valid match'):
        check('vehicleid', pool, pool, same_camera='keep')


def test_other_refusals():
    query, gallery, _ = TRACKS
    with pytest.raises(ValueError, match=r'evaluate\.frames=0'):
        check('i2v', query, gallery, frames=0)
    with pytest.raises(ValueError, match='metric is one of'):
        check('i2v', query, gallery, metric='l2')
    with pytest.raises(ValueError, match='same_camera is one of'):
        check('market', query, gallery, same_camera='on')
    with pytest.raises(ValueError, match=r'evaluate\.shots must be 1'):
        check('v2v', query, gallery, images=True)
    check('market', query, gallery, images=True)
    check('v2v', query, gallery, tracklets=True)
