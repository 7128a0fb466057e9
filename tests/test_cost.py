import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from jax import lax
from network_options import create

from kd_jax.networks import __main__ as table
from kd_jax.networks import cost


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_a_product_of_matrices():
    assert cost.multiply_adds(jnp.matmul, shape(3, 4), shape(4, 5)) == 3 * 4 * 5
    assert cost.multiply_adds(jnp.matmul, shape(2, 3, 4), shape(2, 4, 5)) == 2 * 3 * 4 * 5


@pytest.mark.parametrize(('groups', 'stride'), [(1, 1), (1, 2), (6, 1)])
def test_a_convolution(groups, stride):
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=groups,
        )

    pixels = (8 // stride) * (4 // stride)
    counted = cost.multiply_adds(convolve, shape(2, 8, 4, 6), shape(3, 3, 6 // groups, 12))
    assert counted == 2 * pixels * 12 * 9 * (6 // groups)


def test_what_is_within_other_functions_counts_and_what_is_elementwise_does_not():
    product = jax.jit(lambda x, y: jnp.tanh(x @ y) + 1)
    assert cost.multiply_adds(lambda x, y: 2 * product(x, y), shape(3, 4), shape(4, 5)) == 60


def test_parameters_of_a_backbone_are_those_of_no_neck():
    network = create('resnet10', neck='fc_bn_relu', neck_width=7)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    whole = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    fc, norm, classifier = 32 * 7 + 7, 2 * 7, 7 * 5 + 5
    assert cost.backbone_parameters(variables) == whole - fc - norm - classifier


@pytest.mark.parametrize('name', ['resnet50', 'osnet_x1_0', 'densenet121', 'mobilenet_v2'])
def test_the_readme_has_the_rows_of_the_table(name):
    assert table.row(name, 1) in (smoke.ROOT / 'README.md').read_text().splitlines()


def test_a_row_of_the_table(monkeypatch):
    """ResNet-50 at last stride 2 and 224×224 has the 4.09 G multiply-adds that are published."""
    monkeypatch.setattr(table, 'HEIGHT', 224)
    monkeypatch.setattr(table, 'WIDTH', 224)
    row = table.row('resnet50', 2)
    name, parameters, work, *stages = row.split()
    assert (name, parameters) == ('resnet50', '23,508,032')
    published = 4_089_184_256 - 2048 * 1000  # torchvision's, less the classifier
    np.testing.assert_allclose(int(work.replace(',', '')), published, rtol=1e-3)
    assert stages == ['56x56x256', '28x28x512', '14x14x1024', '7x7x2048']
