import jax
import jax.numpy as jnp

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
