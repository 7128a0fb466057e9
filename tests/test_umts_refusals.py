"""UMTS: values, teachers and keys that can not be, and where a student starts."""

import jax
import numpy as np
import pytest
import umts_networks
from network_options import create
from umts_networks import OBJECTIVE, OPTIONS, make, t_net

from kd_jax import trees
from kd_jax.methods import supervised, umts


@pytest.fixture(scope='module')
def batch():
    return umts_networks.batch()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'stages': (1, 6)}, r'method\.stages=\(1, 6\): .*\(1, 2, 3, 4, 5\)'),
        ({'stages': (2, 2)}, r'method\.stages=\(2, 2\)'),
        ({'stages': ()}, r'method\.stages=\(\)'),
        ({'weights': (0.1,)}, r'method\.weights and method\.reductions .* 5 stages'),
        ({'reductions': (1,) * 6}, r'method\.weights and method\.reductions .* 5 stages'),
        ({'teacher_head': 'x'}, r"method\.teacher_head='x': choose one of trained, frozen$"),
        ({'teacher_reads': 'x'}, r"method\.teacher_reads='x': .*singles, mean, stacked$"),
        ({'feature': 'x'}, r"method\.feature='x': choose one of embedding, neck$"),
        ({'joint': True, 'teacher_reads': 'mean'}, r'method\.joint=True .*stacked'),
    ],
)
def test_values_that_can_not_be(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_teachers_that_do_not_fit():
    for given in ({}, {'mentor': t_net()}, {'teacher': t_net(), 'mentor': t_net()}):
        with pytest.raises(ValueError, match=r'needs config\.teachers\.teacher'):
            umts.make(create(), given, **OPTIONS)
    with pytest.raises(ValueError, match=r'joint=True .*give no teachers'):
        umts.make(create(), {'teacher': t_net()}, **(OPTIONS | {'joint': True}))


def test_a_misspelt_key_is_named():
    with pytest.raises(TypeError, match='head_affine'):
        make(head_affine=True)


def test_students_of_one_seed_start_alike_and_their_teacher_elsewhere(batch):
    key = jax.random.key(3, impl='rbg')
    options = {'feature': 'embedding', **OBJECTIVE}
    alone = supervised.make(create(), {}, reads='singles', **options).init(key, batch)
    stack = supervised.make(create(), {}, reads='stacked', **options).init(key, batch)
    taught = make().init(key, batch)
    start = trees.named(trees.part(alone, 'student')['params'])
    for name, leaf in trees.named(trees.part(taught, 'student')['params']).items():
        np.testing.assert_array_equal(leaf, start[name])
    kernel = trees.named(trees.part(stack, 'student')['params'])['layer1_0/conv1/kernel']
    assert (kernel != start['layer1_0/conv1/kernel']).any()
