"""kd_jax.inspect: what it tells of smoke runs, and of what is no run."""

import json
import os
import re

import jax
import numpy as np
import pytest
import smoke

from kd_jax import checkpoints, inspect, lineage, networks, runs, trees
from kd_jax.runs import RunError


def leaves(run, which='last'):
    return inspect.leaves_of(checkpoints.restore_network(run, which))


def section(text, head):
    """The cells of the lines of a section, by the first of each; cells are two spaces apart."""
    (found,) = (part for part in text.split('\n\n') if part.startswith(head))
    return {first.strip(): rest for first, *rest in map(_cells, found.splitlines()[1:])}


def _cells(line):
    return re.split(r'(?<=\S)\s{2,}', line)


def test_the_tree_is_told_leaf_by_leaf():
    run = smoke.finished('supervised_carousel')
    variables = checkpoints.restore_network(run).variables
    found = section(inspect.text(run), 'name')
    kernel = np.asarray(variables['params']['layer2_0']['conv1']['kernel'], np.float64)
    shown = ['3x3x4x8', '288', f'{np.linalg.norm(kernel):.4g}', 'float32']
    assert found['layer2_0/conv1/kernel'] == shown
    var = np.asarray(variables['batch_stats']['bn1']['var'], np.float64)
    assert found['bn1/var'] == ['4', '4', f'{np.linalg.norm(var):.4g}', 'float32']
    names = {path.split('/', 1)[1] for path in trees.named(variables)}
    assert {name for name in found if '/' in name} == names


def test_modules_stages_and_all_are_summed():
    run = smoke.finished('supervised_carousel')
    variables = checkpoints.restore_network(run).variables
    text = inspect.text(run)
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables['params'])])
    norm = np.linalg.norm(values.astype(np.float64))
    counts = [trees.size(variables[kind]) for kind in inspect.KINDS]
    found = section(text, 'bn1')  # stages, below the tree
    assert found['total'] == [*(f'{n:,}' for n in counts), f'{norm:.4g}', 'float32']
    of_stage = trees.size(variables['params']['layer2_0'])
    assert found['layer2'][0] == section(text, 'name')['layer2_0'][0] == f'{of_stage:,}'
    assert [*found] == ['conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'neck', 'total']


def test_blocks_are_told_in_their_order():
    """Also where there are ten and more of them, as in MobileNet and DenseNet."""
    leaf = np.ones(2, np.float32)
    names = [f'features{number}' for number in (1, 2, 10, 11)]
    text = inspect.tree({f'params/{name}/a': leaf for name in reversed(names)})
    assert [*section(text, 'features1 ')] == [*names[1:], 'total']


def test_numbers_that_are_no_float32_are_told():
    found = {'params/a/half': np.full(4, 3, jax.numpy.bfloat16), 'params/a/nan': np.array(np.nan)}
    rows = section(inspect.tree(found), 'name')
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
    text = inspect.tree({path: np.ones(x.shape, x.dtype) for path, x in shapes.items()})
    assert max(map(len, text.splitlines())) <= 100
    stages = section(text, 'bn1')
    assert [*stages] == ['conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'neck', 'total']
    assert stages['total'][:2] == ['24,947,776', '57,216']


def test_a_t_net_shares_all_shapes_but_of_its_first_convolution():
    run = smoke.finished('umts_carousel')
    student, teacher = leaves(run), leaves(run / 'teachers/teacher')
    text = inspect.text(run)
    assert f'b: teachers.teacher, {run}/teachers/teacher, step 8' in text
    assert section(text, 'of other shapes') == {'conv1/kernel': ['3x3x3x4', '3x3x6x4']}
    found = section(text, 'of one name')
    assert found['total'][:2] == [str(len(student) - 1), '0']
    path = 'params/neck/neck_bn/scale', 'params/neck/classifier/kernel'
    apart = [np.concatenate([tree[one].ravel() for one in path]) for tree in (student, teacher)]
    ratio = np.linalg.norm(apart[0] - apart[1]) / np.linalg.norm(apart[0])
    assert float(found['neck'][2]) == pytest.approx(ratio, rel=5e-3)
    assert 'only in' not in text


def test_a_student_is_near_the_teacher_that_it_started_from():
    """All but its last stage and neck, which start afresh, and have come less far in 8 steps."""
    found = section(inspect.text(smoke.finished('vkd_carousel')), 'of one name')
    unlike = section(inspect.text(smoke.finished('umts_carousel')), 'of one name')
    for module in ('layer1_0', 'layer2_0', 'layer3_0'):
        assert 0 < float(found[module][2]) < 0.1
        assert float(unlike[module][2]) > 0.5


def test_every_teacher_is_told_of():
    """Of several; and none where there is none."""
    run = smoke.finished('factorized_carousel')
    names = lineage.teachers(runs.config_of(run), run)
    assert len(names) > 1
    assert inspect.text(run).count('a: the student') == len(names)
    assert 'a: the student' not in inspect.text(smoke.finished('supervised_carousel'))


def test_a_teacher_that_is_gone_hides_nothing_else(tmp_path):
    run = smoke.copy(smoke.finished('umts_carousel'), tmp_path / 'run')
    (run / 'teachers').rename(run / 'away')
    text = inspect.text(run)
    assert f'a teacher cannot be read: {run}/teachers/teacher is no run' in text
    assert section(text, 'at export')['heads']


def test_what_is_equal_is_named_by_the_largest_module():
    leaf = np.arange(3.0)
    one = {f'params/{name}': leaf for name in ('a/x/k', 'a/x/b', 'a/y/k', 'b/x/k', 'c/k', 'd/k')}
    other = one | {'params/a/y/k': leaf + 1, 'params/c/k': np.ones(4), 'params/e/x/k': leaf}
    del other['params/d/k']
    both = inspect.matched(one, other)
    text = inspect.compared(both)
    assert 'equal: a/x/*, b/*\n' in text
    assert text.endswith('only in a: d/*\n\nonly in b: e/*')
    assert section(text, 'of other shapes') == {'c/k': ['3', '4']}
    assert section(text, 'of one name')['total'][:2] == ['4', '3']


def test_networks_with_nothing_in_common():
    one, other = ({f'params/{name}/k': np.ones(2)} for name in 'ab')
    text = inspect.compared(inspect.matched(one, other))
    assert section(text, 'of one name') == {'total': ['0', '0']}
    assert 'only in a: a/*\n\nonly in b: b/*' in text


@pytest.mark.parametrize(
    ('a', 'b', 'expected'), [([3, 4], [3, 3], 0.2), ([0, 0], [0, 0], 0), ([0, 0], [0, 1], np.inf)]
)
def test_distance(a, b, expected):
    assert inspect.distance([(np.array(a), np.array(b))]) == pytest.approx(expected)


def test_two_runs_differ_in_config_and_values(tmp_path):
    run = smoke.finished('supervised_carousel')
    smoke.planted(tmp_path / 'planted')
    text = inspect.text(run, tmp_path / 'planted')
    assert f'a: {run}, step 8\nb: {tmp_path}/planted, step 8' in text
    fingerprint = f"'{runs.fingerprint_of(run)}' -> ''"
    assert section(text, 'settings that differ') == {'fingerprint': [fingerprint]}
    equal = section(text, 'of one name')['total'][1]
    pair = leaves(run), leaves(tmp_path / 'planted')
    same = [np.array_equal(a, b) for a, b in zip(*(tree.values() for tree in pair))]
    assert int(equal) == sum(same) < len(same)


def test_config_keys_that_differ():
    text = inspect.text(smoke.finished('vkd_carousel'), smoke.finished('supervised_carousel'))
    found = section(text, 'settings that differ')
    assert found['config.method.name'] == ["'vkd' -> 'supervised'"]
    assert found['config.teachers.teacher'] == ['{...} -> (absent)']
    assert not [key for key in found if key.startswith('config.network')]


def test_a_copy_differs_in_nothing(tmp_path):
    run = smoke.finished('supervised_carousel')
    text = inspect.text(run, smoke.copy(run, tmp_path / 'copy'))
    assert 'no settings differ' in text
    total = section(text, 'of one name')['total']
    assert total == [total[0], total[0], '0', '0']


def test_subtrees_and_values_that_differ():
    one = {'a': 1, 'b': {'c': 1.0, 'd': (1, 2)}, 'e': {'f': 1}}
    other = {'a': 1, 'b': {'c': 1, 'd': (1, 3)}, 'e': 'runs/f', 'g': None}
    assert list(inspect.differing(one, other)) == [
        ('b.d', (1, 2), (1, 3)),
        ('e', {'f': 1}, 'runs/f'),
        ('g', inspect.ABSENT, None),
    ]


@pytest.mark.parametrize(
    ('name', 'parts'),
    [
        ('supervised_carousel', set()),
        ('umts_carousel', {'heads'}),
        ('ksl_carousel', {'branch1', 'branch2'}),
    ],
)
def test_what_is_dropped_at_export(name, parts):
    """Counted by the metadata as orbax restores it."""
    run = smoke.finished(name)
    with checkpoints.manager(run, create=False) as saved:
        items = saved.restore(saved.latest_step())
    rest, moments = (items['training'][name] for name in ('variables', 'optimizer'))
    expected = {part: trees.size(trees.part(rest, part)) for part in parts}
    expected |= {'optimizer': sum(leaf.size for leaf in jax.tree.leaves(moments)), 'step': 1}
    found = section(inspect.text(run), 'at export')
    kept = f'{trees.size(items["student"]):,}', f'{4 * trees.size(items["student"]):,}'
    assert tuple(found.pop('kept: the student')) == kept
    total = found.pop('dropped in all')
    assert found == {part: [f'{n:,}', f'{4 * n:,}'] for part, n in expected.items()}
    assert total == [f'{sum(expected.values()):,}', f'{4 * sum(expected.values()):,}']


def test_the_best_checkpoint(tmp_path):
    variables = smoke.planted(tmp_path)
    for which, step in (('last', 8), ('best', 4)):
        text = inspect.text(tmp_path, which=which)
        assert text.startswith(f'{tmp_path}: supervised, resnet10, step {step}, not finished\n')
        kernel = np.asarray(variables[step]['params']['conv1']['kernel'], float)
        assert section(text, 'name')['conv1/kernel'][2] == f'{np.linalg.norm(kernel):.4g}'


def test_runs_that_are_none(tmp_path):
    with pytest.raises(RunError, match=f'{tmp_path} is no run: it has no config.json'):
        inspect.text(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps({'model': 'other'}))
    with pytest.raises(RunError, match='is no run of kd_jax'):
        inspect.text(tmp_path)
    begun = tmp_path / 'begun'
    runs.start(begun, smoke.config('supervised_carousel'), {'classes': 8, 'data': ''})
    with pytest.raises(RunError, match=f'{begun} has no checkpoint: train it first'):
        inspect.text(begun)
    with pytest.raises(RunError, match=f'{begun} has no checkpoint: train it first'):
        inspect.text(smoke.finished('supervised_carousel'), begun)


def test_the_command_line(tmp_path):
    """Two runs; a run against itself; no run; another checkpoint than there are."""
    run, command = smoke.finished('supervised_carousel'), ('-m', 'kd_jax.inspect')
    planted = tmp_path / 'planted'
    smoke.planted(planted)
    os.symlink(run, tmp_path / 'itself')
    told, itself, none, which = smoke.ended(
        smoke.python(*command, f'--run={planted}', f'--against={run}', '--checkpoint=best'),
        smoke.python(*command, f'--run={run}', f'--against={tmp_path}/itself'),
        smoke.python(*command, f'--run={tmp_path}/nowhere'),
        smoke.python(*command, f'--run={run}', '--checkpoint=first'),
    )
    assert told[:2] == (0, inspect.text(planted, run, 'best') + '\n')
    message = f'kd_jax: --against={tmp_path}/itself is the run itself: give another\n'
    assert itself == (1, '', message)
    assert none == (1, '', f'kd_jax: {tmp_path}/nowhere is no run: it has no config.json\n')
    assert which[0] == 1
    assert '<last|best>' in which[2]
