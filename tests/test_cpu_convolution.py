import jax
import jax.numpy as jnp
import numpy as np
import plain_layers
import pytest
from convolutions import Case, assert_near, called, differentiated, drawn, operations, weights
from jax import lax
from jax.test_util import check_grads
from plain_layers import photos

from kd_jax.networks import cpu_convolution
from kd_jax.networks.cpu_convolution import DIMENSIONS, convolve

CHUNK = 300  # the images of most cases take several, and not always one each
CASES = {
    '1x1': Case((4, 6, 5, 3), (1, 1, 3, 5), 1, 0, 'product'),
    '1x1, stride 2': Case((4, 7, 4, 3), (1, 1, 3, 5), 2, 0, 'product'),
    '1x1 of a pixel': Case((4, 1, 1, 6), (1, 1, 6, 3), 1, 0, 'product'),
    '3x3, even': Case((6, 8, 6, 3), (3, 3, 3, 5), 1, 1, 'winograd, in chunks'),
    '3x3, odd': Case((6, 5, 7, 3), (3, 3, 3, 5), 1, 1, 'winograd, in chunks'),
    '3x3 of two images': Case((2, 5, 4, 4), (3, 3, 4, 1), 1, 1, 'winograd'),
    '3x3 of few pixels': Case((3, 2, 1, 3), (3, 3, 3, 5), 1, 1, 'winograd'),
    '3x3, stride 2, even': Case((6, 8, 6, 3), (3, 3, 3, 5), 2, 1, 'patched, in chunks'),
    '3x3, stride 2, odd': Case((6, 7, 9, 3), (3, 3, 3, 5), 2, 1, 'patched, in chunks'),
    '3x3, stride 2, few pixels': Case((3, 4, 7, 3), (3, 3, 3, 5), 2, 1, 'patches'),
    '3x3 without padding': Case((2, 6, 5, 3), (3, 3, 3, 2), 1, 0, 'patched'),
    '7x7, stride 2': Case((6, 9, 6, 3), (7, 7, 3, 5), 2, 3, 'patched, in chunks'),
    '7x7, stride 2, few pixels': Case((3, 4, 3, 3), (7, 7, 3, 5), 2, 3, 'patches'),
    'depthwise': Case((4, 6, 5, 3), (3, 3, 1, 3), 1, 1, 'depthwise', groups=3),
    'depthwise, stride 2, even': Case((4, 6, 8, 3), (3, 3, 1, 3), 2, 1, 'depthwise', groups=3),
    'depthwise, stride 2, odd': Case((4, 7, 5, 3), (3, 3, 1, 3), 2, 1, 'depthwise', groups=3),
}
# How many convolutions, products and loops there are in a convolution with both its gradients.
# 'patched' convolves for the result and for the images' gradient, but not for the kernel's.
OPERATIONS = {
    'product': (0, 3, 0),
    'winograd': (0, 48, 0),
    'winograd, in chunks': (0, 48, 1),
    'patched': (2, 1, 0),
    'patched, in chunks': (2, 1, 1),
    'patches': (0, 3, 0),
    'depthwise': (0, 0, 0),
    'xla': (3, 0, 0),
}


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    """However small; what is compiled once for several tests is so with these values."""
    monkeypatch.setattr(cpu_convolution, 'SMALL', 0)
    monkeypatch.setattr(cpu_convolution, 'CHUNK', CHUNK)


@pytest.mark.parametrize('name', CASES)
def test_as_xla(name):
    case = CASES[name]
    arguments = drawn(case)
    found = differentiated(convolve, case)
    assert operations(found, *arguments) == OPERATIONS[case.way]
    expected = differentiated(lax.conv_general_dilated, case)
    assert operations(expected, *arguments) == OPERATIONS['xla']
    assert_near(found(*arguments), expected(*arguments), 1e-5)


MANY = {
    '1x1': Case((8, 32, 16, 3), (1, 1, 3, 5), 1, 0, 'product'),
    '3x3': Case((8, 32, 16, 3), (3, 3, 3, 5), 1, 1, 'winograd, in chunks'),
    '3x3, stride 2': Case((8, 32, 16, 3), (3, 3, 3, 5), 2, 1, 'patched, in chunks'),
    'depthwise': Case((8, 64, 32, 3), (3, 3, 1, 3), 1, 1, 'depthwise', groups=3),
}


@pytest.mark.parametrize('name', MANY)
def test_bfloat16(name):
    """Of so many pixels that a sum in bfloat16 stops growing; Winograd's transforms round too."""
    case = MANY[name]
    arguments = [x + 0.5 for x in drawn(case, jnp.bfloat16)]
    found = differentiated(convolve, case)
    assert operations(found, *arguments) == OPERATIONS[case.way]
    found = found(*arguments)
    assert {x.dtype.name for x in found} == {'bfloat16'}
    exact = differentiated(lax.conv_general_dilated, case)(*map(jnp.float32, arguments))
    assert_near(found, exact, 4 * 2**-8)


def test_winograd_against_loops():
    case = CASES['3x3 of two images']
    images, kernel = drawn(case)
    result = plain_layers.conv(images, kernel)

    def gradient(of, other):
        """Of a sum that is linear in each of its values: what each alone contributes."""
        ones = np.eye(of.size).reshape(-1, *of.shape)
        return np.reshape([(weights(result.shape) * other(one)).sum() for one in ones], of.shape)

    of_images = gradient(images, lambda x: plain_layers.conv(x, kernel))
    of_kernel = gradient(kernel, lambda k: plain_layers.conv(images, k))
    found = differentiated(convolve, case)(images, kernel)
    assert_near(found, (result, of_images, of_kernel), 1e-5)


@pytest.mark.parametrize('name', ['3x3, odd', '3x3, stride 2, odd'])
def test_slopes(name):
    with jax.enable_x64():
        case = CASES[name]
        arguments = drawn(case, jnp.float64)
        function = jax.jit(called(convolve, case))
        check_grads(function, arguments, order=1, modes=['rev'], atol=1e-6, rtol=1e-6)


# Which way a convolution goes.


ALIKE = ((1, 1), (1, 1))
LEFT = {
    'grouped': ((2, 6, 6, 4), (3, 3, 2, 6), (1, 1), ALIKE, {'feature_group_count': 2}),
    'depthwise twice': ((2, 6, 6, 2), (3, 3, 1, 4), (1, 1), ALIKE, {'feature_group_count': 2}),
    'dilated': ((2, 9, 9, 2), (3, 3, 2, 3), (1, 1), ((4, 4), (4, 4)), {'rhs_dilation': (4, 4)}),
    'dilated 1x1': ((2, 6, 6, 2), (1, 1, 2, 3), (1, 1), [(0, 0)] * 2, {'rhs_dilation': (2, 2)}),
    'dilated images': ((2, 6, 6, 2), (3, 3, 2, 3), (1, 1), ALIKE, {'lhs_dilation': (2, 2)}),
    'oblong': ((2, 6, 6, 2), (1, 3, 2, 3), (1, 1), ((0, 0), (1, 1)), {}),
    'oblong, padded alike': ((2, 6, 6, 2), (3, 1, 2, 3), (1, 1), ALIKE, {}),
    'oblong strides': ((2, 6, 6, 2), (3, 3, 2, 3), (2, 1), ALIKE, {}),
    'padded below': ((2, 6, 6, 2), (3, 3, 2, 3), (2, 2), ((0, 1), (0, 1)), {}),
    'padded by name': ((2, 6, 6, 2), (3, 3, 2, 3), (2, 2), 'SAME', {}),
    'padded unlike': ((2, 6, 6, 2), (3, 3, 2, 3), (1, 1), ((1, 1), (2, 2)), {}),
}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', LEFT)
def test_what_is_left_to_xla(name, dtype):
    """The very same program."""
    images, kernel, strides, padding, options = LEFT[name]
    arguments = jnp.zeros(images, dtype), jnp.zeros(kernel, dtype)
    found, expected = (
        jax.make_jaxpr(
            lambda x, k, f=f: f(x, k, strides, padding, dimension_numbers=DIMENSIONS, **options)
        )(*arguments)
        for f in (convolve, lax.conv_general_dilated)
    )
    assert str(found) == str(expected)
    assert 'conv_general_dilated[' in str(found)


@pytest.mark.parametrize(
    ('size', 'multiply_adds', 'way'),
    [
        ((4, 6), 2 * 4 * 6 * 9 * 15, 'winograd'),
        ((4, 6), 2 * 4 * 6 * 9 * 15 + 1, 'xla'),
        ((3, 3), 2**26, 'xla'),
        ((2, 4), 2**26, 'winograd'),  # few pixels
    ],
)
def test_small_convolutions(size, multiply_adds, way, monkeypatch):
    monkeypatch.setattr(cpu_convolution, 'SMALL', multiply_adds)
    case = Case((2, *size, 3), (3, 3, 3, 5), 1, 1, way)
    function = differentiated.__wrapped__(convolve, case)  # not for the tests above
    assert operations(function, *drawn(case)) == OPERATIONS[way]


@pytest.mark.parametrize(
    ('batch', 'chunk', 'sizes'),
    [(6, 60, {6}), (6, 59, {3}), (6, 20, {2}), (6, 19, {1}), (6, 1, {1}), (7, 60, {1})],
)
def test_chunks_divide_the_batch(batch, chunk, sizes, monkeypatch):
    """Images of 10 values."""
    monkeypatch.setattr(cpu_convolution, 'CHUNK', chunk)
    images, gradient = photos(batch, 1, 2, 5), photos(batch, 3)
    seen = set()

    def products(x, g):
        seen.add(len(x))
        return [x.sum((1, 2)).T @ g, {'count': jnp.float32(len(x))}]

    total, count = cpu_convolution.in_chunks(products, images, gradient)
    assert seen == sizes
    assert count['count'] == batch
    np.testing.assert_allclose(total, images.sum((1, 2)).T @ gradient, rtol=1e-5, atol=1e-5)
