"""kd_jax.leaf_table: the variables of smoke runs and of networks, leaf by leaf."""

import jax
import numpy as np
import smoke
from sections import section

from kd_jax import checkpoints, leaf_table, networks, trees


def told():
    """What is told of a smoke run, and its variables."""
    restored = checkpoints.restore_network(smoke.finished('supervised_carousel'))
    return leaf_table.text(leaf_table.leaves_of(restored)), restored.variables


def test_the_tree_is_told_leaf_by_leaf():
    text, variables = told()
    found = section(text, 'name')
    kernel = np.asarray(variables['params']['layer2_0']['conv1']['kernel'], np.float64)
    shown = ['3x3x4x8', '288', f'{np.linalg.norm(kernel):.4g}', 'float32']
    assert found['layer2_0/conv1/kernel'] == shown
    var = np.asarray(variables['batch_stats']['bn1']['var'], np.float64)
    assert found['bn1/var'] == ['4', '4', f'{np.linalg.norm(var):.4g}', 'float32']
    names = {path.split('/', 1)[1] for path in trees.named(variables)}
    assert {name for name in found if '/' in name} == names


def test_modules_stages_and_all_are_summed():
    text, variables = told()
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables['params'])])
    norm = np.linalg.norm(values.astype(np.float64))
    counts = [trees.size(variables[kind]) for kind in leaf_table.KINDS]
    found = section(text, 'bn1')  # stages, below the tree
    assert found['total'] == [*(f'{n:,}' for n in counts), f'{norm:.4g}', 'float32']
    of_stage = trees.size(variables['params']['layer2_0'])
    assert found['layer2'][0] == section(text, 'name')['layer2_0'][0] == f'{of_stage:,}'
    assert [*found] == ['conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'neck', 'total']


def test_blocks_are_told_in_their_order():
    """Also where there are ten and more of them, as in MobileNet and DenseNet."""
    leaf = np.ones(2, np.float32)
    names = [f'features{number}' for number in (1, 2, 10, 11)]
    text = leaf_table.text({f'params/{name}/a': leaf for name in reversed(names)})
    assert [*section(text, 'features1 ')] == [*names[1:], 'total']


def test_numbers_that_are_no_float32_are_told():
    found = {'params/a/half': np.full(4, 3, jax.numpy.bfloat16), 'params/a/nan': np.array(np.nan)}
    rows = section(leaf_table.text(found), 'name')
    assert rows['a/half'] == ['4', '4', '6', 'bfloat16']
    assert rows['a/nan'] == ['scalar', '1', 'nan', 'float64']
    assert rows['a'] == ['5', 'nan', 'bfloat16 float64']


def test_the_tree_of_a_resnet50_is_readable():
    options = {'width': 64, 'stem': 'imagenet', 'last_block_relu': 'all', 'neck': 'bnneck'}
    options |= {'neck_width': 512, 'inflate': 1, 'dtype': 'float32', 'conv': 'xla'}
    network = networks.create(
        'resnet50', classes=702, last_stride=1, batch_norm='device', **options
    )
    image = jax.ShapeDtypeStruct((1, 256, 128, 3), 'float32')
    shapes = trees.named(jax.eval_shape(network.init, jax.random.key(0), image))
    text = leaf_table.text({path: np.ones(x.shape, x.dtype) for path, x in shapes.items()})
    assert max(map(len, text.splitlines())) <= 100
    stages = section(text, 'bn1')
    assert [*stages] == ['conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'neck', 'total']
    assert stages['total'][:2] == ['24,947,776', '57,216']
