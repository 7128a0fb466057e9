import jax
import jax.numpy as jnp
import pytest

from kd_jax import trees

VARIABLES = {
    'params': {
        'student': {'conv1': {'kernel': jnp.ones((3, 2))}, 'bn1': {'scale': jnp.zeros(4)}},
        'heads': {'stage1': {'w': jnp.ones(5)}, 'stage10': {'w': jnp.ones(6)}},
    },
    'batch_stats': {'student': {'bn1': {'mean': jnp.ones(4)}}},
}


def test_part_is_as_its_network_has_it():
    student = trees.part(VARIABLES, 'student')
    assert set(student) == {'params', 'batch_stats'}
    assert student['params'] is VARIABLES['params']['student']
    assert set(trees.part(VARIABLES, 'heads')) == {'params'}
    assert trees.part(VARIABLES, 'nobody') == {}


def test_join_undoes_part():
    parts = {name: trees.part(VARIABLES, name) for name in ('student', 'heads')}
    joined = trees.join(**parts)
    assert jax.tree.structure(joined) == jax.tree.structure(VARIABLES)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, joined, VARIABLES))


def test_join_of_nothing():
    assert trees.join() == {}


def test_size_counts_values():
    assert trees.size(VARIABLES) == 6 + 4 + 5 + 6 + 4
    assert trees.size({}) == 0


def test_named():
    names = trees.named(VARIABLES['params'])
    assert set(names) == {
        'student/conv1/kernel',
        'student/bn1/scale',
        'heads/stage1/w',
        'heads/stage10/w',
    }
    assert names['heads/stage10/w'].shape == (6,)


def test_under_marks_what_starts_with_a_prefix():
    marked = trees.under(VARIABLES['params'], ('heads/stage1/', 'student/bn'))
    assert marked == {
        'student': {'conv1': {'kernel': False}, 'bn1': {'scale': True}},
        'heads': {'stage1': {'w': True}, 'stage10': {'w': False}},
    }
    nothing = trees.under(VARIABLES['params'], ())
    assert not any(jax.tree.leaves(nothing))


def test_unnamed_undoes_named():
    again = trees.unnamed(trees.named(VARIABLES))
    assert jax.tree.structure(again) == jax.tree.structure(VARIABLES)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, again, VARIABLES))
    assert trees.unnamed({}) == {}


def test_replaced_takes_what_starts_with_a_prefix():
    source = jax.tree.map(lambda leaf: leaf + 7, VARIABLES)
    prefixes = ('params/heads/stage1/', 'batch_stats/student/')
    found = trees.named(trees.replaced(VARIABLES, source, prefixes))
    old, new = trees.named(VARIABLES), trees.named(source)
    fresh = {'params/heads/stage1/w', 'batch_stats/student/bn1/mean'}
    assert list(found) == list(old)
    assert all(leaf is (new if name in fresh else old)[name] for name, leaf in found.items())


def test_replaced_by_nothing_or_everything():
    source = jax.tree.map(lambda leaf: leaf + 7, VARIABLES)
    for prefixes, wanted in (((), VARIABLES), (('none/',), VARIABLES), (('',), source)):
        found = trees.replaced(VARIABLES, source, prefixes)
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        assert jax.tree.all(jax.tree.map(lambda a, b: a is b, found, wanted))


def test_replaced_takes_no_more_than_the_tree_has():
    """A source may be of more parts; a leaf that it lacks is named."""
    own = trees.part(VARIABLES, 'student')
    larger = jax.tree.map(lambda leaf: leaf + 7, own)
    larger['params']['bn2'] = {'scale': jnp.zeros(4)}
    found = trees.replaced(own, larger, ('params/bn',))
    assert set(trees.named(found)) == set(trees.named(own))
    del larger['params']['bn1']
    with pytest.raises(KeyError, match='params/bn1/scale'):
        trees.replaced(own, larger, ('params/bn',))
