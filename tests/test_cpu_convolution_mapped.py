import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import Case, assert_near, called, drawn, weights
from jax import lax
from jax.sharding import PartitionSpec as P
from network_options import create
from plain_layers import photos
from random_trees import random_init

from kd_jax import parallel
from kd_jax.networks import cpu_convolution, mobilenet
from kd_jax.networks.cpu_convolution import convolve


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    """However small, and in chunks."""
    monkeypatch.setattr(cpu_convolution, 'SMALL', 0)
    monkeypatch.setattr(cpu_convolution, 'CHUNK', 300)


STACK = (
    Case((8, 7, 9, 3), (3, 3, 3, 4), 2, 1, 'patched, in chunks'),
    Case((8, 4, 5, 4), (3, 3, 4, 4), 1, 1, 'winograd, in chunks'),
    Case((8, 4, 5, 4), (3, 3, 1, 4), 1, 1, 'depthwise', groups=4),
    Case((8, 4, 5, 4), (1, 1, 4, 2), 1, 0, 'product'),
    Case((8, 4, 5, 2), (7, 7, 2, 3), 2, 3, 'patches'),
)
RESULT = (8, 2, 3, 3)


@jax.jit
def through(images, kernels, cotangent):
    """All ways after each other: the result and the gradients."""

    def stack(images, kernels):
        for case, kernel in zip(STACK, kernels):
            images = called(convolve, case)(images, kernel)
        return images

    result, pull = jax.vjp(stack, images, kernels)
    return result, *pull(cotangent)


def drawn_stack(seed):
    kernels = [drawn(case)[1] * (1 + seed) for case in STACK]
    return photos(*STACK[0].images) + seed, kernels, jnp.float32(weights(RESULT)) + seed


def test_vmap():
    """Of images and kernels at once."""
    each = [drawn_stack(seed) for seed in range(2)]
    found = jax.jit(jax.vmap(through))(*jax.tree.map(lambda *x: jnp.stack(x), *each))
    expected = jax.tree.map(lambda *x: jnp.stack(x), *(through(*one) for one in each))
    assert_near(*map(jax.tree.leaves, (found, expected)), 1e-5)


def test_devices():
    def of_a_share(*arguments):
        result, of_images, of_kernels = through(*arguments)
        return result, of_images, lax.psum(of_kernels, parallel.AXIS)

    share = P(parallel.AXIS)
    mapped = jax.shard_map(
        of_a_share,
        mesh=parallel.mesh(),
        in_specs=(share, P(), share),
        out_specs=(share, share, P()),
        check_vma=False,
    )
    arguments = drawn_stack(0)
    assert parallel.mesh().size == 4
    found, expected = jax.jit(mapped)(*arguments), through(*arguments)
    assert_near(*map(jax.tree.leaves, (found, expected)), 1e-5)


TABLE = [mobilenet.Row(stage, 2, 16 * stage, 1, min(stage, 2)) for stage in (1, 2, 3, 4)]
NETWORKS = {
    'resnet10': {'bam': True, 'bottleneck': True},
    'mobilenet_v2': {'table': tuple(TABLE)},
}


@pytest.mark.parametrize('name', NETWORKS)
def test_networks(name):
    """'auto' is 'cpu' on CPU, and computes what 'xla' does."""
    images = photos(2, 32, 16, 3)
    networks = {
        kind: create(name, conv=kind).clone(**NETWORKS[name]) for kind in ('auto', 'cpu', 'xla')
    }
    variables = random_init(networks['xla'].init, images)
    texts = {k: jax.jit(n.apply).lower(variables, images).as_text() for k, n in networks.items()}
    assert texts['auto'] == texts['cpu']
    counts = {kind: text.count('stablehlo.convolution') for kind, text in texts.items()}
    found, expected = (jax.jit(networks[k].apply)(variables, images) for k in ('cpu', 'xla'))
    assert counts['cpu'] < counts['xla'] / 3
    assert_near(*map(jax.tree.leaves, (found, expected)), 1e-4)


def test_auto_elsewhere(monkeypatch):
    """As on a machine whose default backend is a GPU; nothing is compiled."""
    images = photos(1, 16, 16, 3)
    networks = {kind: create(conv=kind) for kind in ('auto', 'xla')}
    variables = random_init(networks['xla'].init, images)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    auto, xla = (str(jax.make_jaxpr(n.apply)(variables, images)) for n in networks.values())
    assert auto == xla


def test_a_network_is_exported_for_batches_of_any_size():
    network = create(conv='cpu')
    images = photos(3, 32, 16, 3)
    variables = random_init(network.init, images)
    (batch,) = jax.export.symbolic_shape('b')
    spec = jax.ShapeDtypeStruct((batch, 32, 16, 3), jnp.float32)
    embed = jax.jit(lambda x: network.apply(variables, x).embedding)
    exported = jax.export.export(embed)(spec)
    np.testing.assert_allclose(exported.call(images), embed(images), rtol=1e-5, atol=1e-5)
