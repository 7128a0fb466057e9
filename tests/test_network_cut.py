"""A network in two halves, and a network of a part of the image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_options import create
from random_trees import random_init
from test_backbones import CUT

from kd_jax import trees, views
from kd_jax.networks.network import HEAD

SPLITS = (2, 3, 4, HEAD)
NETWORKS = {'resnet10': {}, **CUT}


def images():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(4, 32, 16, 3)), jnp.float32)


@functools.cache
def made(name):
    """A network and random variables."""
    network = create(name, conv='xla').clone(**NETWORKS[name])
    return network, random_init(network.init, images())


def in_halves(run, train, split, variables, x):
    """What `run`, a function of method and arguments, gives of two halves put together."""
    maps, changed = run('trunk', variables, x, train=train, split=split)
    tail = {**variables, **changed}
    found, changed = run('tail', tail, maps[-1], train=train, split=split)
    assert len(maps) == split - 1
    return found._replace(stages=maps + found.stages), changed


def compiled(network):
    """Each half compiled for itself."""

    def run(method, *arguments, **options):
        apply = functools.partial(network.apply, method=method, mutable=['batch_stats'], **options)
        return jax.jit(apply)(*arguments)

    return run


def assert_bitwise(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize('train', [False, True])
def test_two_halves_are_the_whole(train):
    """Bit by bit: outputs, and statistics, of which all have moved in training."""
    network, variables = made('resnet10')
    run = compiled(network)
    whole = run('__call__', variables, images(), train=train)
    for split in SPLITS:
        assert_bitwise(in_halves(run, train, split, variables, images()), whole)
    before, after = (trees.named(tree['batch_stats']) for tree in (variables, whole[1]))
    assert {bool((before[path] != after[path]).any()) for path in before} == {train}


@pytest.mark.parametrize('name', [*CUT, 'bfloat16'])
def test_two_halves_compute_what_the_whole_does(name):
    """In training, of every backbone: the very same operations, one after the other."""
    network, variables = made('resnet10' if name == 'bfloat16' else name)
    network = network.clone(dtype='bfloat16') if name == 'bfloat16' else network

    def run(method, *arguments, **options):
        return network.apply(*arguments, method=method, mutable=['batch_stats'], **options)

    def steps(function):
        return str(jax.make_jaxpr(function)(variables, images()))

    whole = steps(functools.partial(run, '__call__', train=True))
    for split in SPLITS:
        assert steps(functools.partial(in_halves, run, True, split)) == whole


def test_two_halves_of_a_network_that_reads_sets():
    """The mean over a set is behind stage 4, and so of the tail."""
    network, variables = made('resnet10')
    run = compiled(network)
    whole = run('__call__', variables, images(), sets=2)[0]
    maps, _ = run('trunk', variables, images(), train=False, split=4)
    found, _ = run('tail', variables, maps[-1], train=False, split=4, sets=2)
    assert found.logits.shape == (2, 5)
    assert_bitwise(found[1:], whole[1:])


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('name', NETWORKS)
def test_each_half_has_its_variables_and_no_others(name, split):
    """Of the names, shapes and types that they have in the whole network."""
    network, variables = made(name)

    def started(half, x):
        options = {'train': False, 'split': split, 'method': half}
        init = functools.partial(network.init_with_output, **options)
        found, variables = jax.eval_shape(init, jax.random.key(0), x)
        return found, trees.named(variables)

    maps, trunk = started('trunk', images())
    _, tail = started('tail', maps[-1])
    assert not trunk.keys() & tail.keys()
    assert {name: leaf.shape for name, leaf in (trunk | tail).items()} == {
        name: leaf.shape for name, leaf in trees.named(variables).items()
    }
    assert f'params/{network.FIRST}/kernel' in trunk
    behind = {path for path in tail if path.split('/')[1] != 'neck'}
    assert bool(behind) == (split != HEAD)


# Parts of an image.

PART, SIZE = (0.25, 0.5), (12, 10)  # rows 8 to 16 of 32


@functools.cache
def of_part():
    """Outputs of a network of a part, from images."""
    network = create('resnet10', conv='xla', part=PART, part_size=SIZE)
    return jax.jit(functools.partial(network.apply, made('resnet10')[1]))


def test_a_network_of_a_part_is_one_of_images_of_that_part():
    """It has the same variables."""
    network, variables = made('resnet10')
    cut = views.part_of(images(), PART, SIZE)
    assert cut.shape == (4, *SIZE, 3)
    found, wanted = of_part()(images()), jax.jit(network.apply)(variables, cut)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, wanted)
    shapes = jax.eval_shape(create('resnet10', part=PART).init, jax.random.key(0), images())
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)


@pytest.mark.parametrize(
    ('rows', 'read'),
    [(slice(0, 7), False), (slice(17, 32), False), (slice(8, 10), True), (slice(14, 16), True)],
)
def test_a_network_of_a_part_reads_its_rows_alone(rows, read):
    """And those next to them, which its pixels at the border lie between."""
    changed = of_part()(images().at[:, rows].add(100.0))
    same = [np.array_equal(*pair) for pair in zip(changed[1:], of_part()(images())[1:])]
    assert same == [not read] * 3


@pytest.mark.parametrize(
    'part', [(0.5,), (0.0, 0.5, 1.0), (0.5, 0.5), (0.6, 0.4), (-0.1, 0.5), (0.5, 1.1)]
)
def test_parts_that_are_none(part):
    with pytest.raises(ValueError, match=r'network\.part=.*: two shares of the height'):
        create(part=part)


def test_a_part_may_be_a_list():
    """As JSON makes of it; a network is hashed."""
    listed = create(part=list(PART), part_size=list(SIZE))
    assert hash(listed) == hash(create(part=PART, part_size=SIZE))


@pytest.mark.parametrize('size', [(), (8,), (8, 8, 3), (0, 8), (8, -1)])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match=r'network\.part_size=.*: a height and a width'):
        create(part=PART, part_size=size)
