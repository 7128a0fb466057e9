"""kd_jax.inspect: what it tells of smoke runs, and of what is no run."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
import smoke
from sections import section

from kd_jax import checkpoints, inspect, leaf_table, lineage, runs, trees
from kd_jax.runs import RunError


def leaves(run, which='last'):
    return leaf_table.leaves_of(checkpoints.restore_network(run, which))


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


@pytest.mark.parametrize('given', [False, True], ids=['trained first', 'named by a path'])
def test_one_of_several_teachers_is_gone(tmp_path, given):
    """The other is told of as before, however the config names the one that is gone."""
    run = smoke.copy(smoke.finished('factorized_carousel'), tmp_path / 'run')
    gone, rest = run / 'teachers' / 'part0', 'a: the student\nb: teachers.part1'
    _, expected = inspect.text(run).split(rest)
    if given:
        locked = json.loads((run / 'config.json').read_text())
        locked['config']['teachers']['part0'] = str(gone)
        runs.write_json(run / 'config.json', locked)
    shutil.rmtree(gone)
    message = f'a teacher cannot be read: {gone} is no run: it has no config.json'
    assert inspect.text(run).endswith(f'\n\n{message}\n\n{rest}{expected}')


def test_a_teacher_that_is_gone_hides_nothing_else(tmp_path):
    run = smoke.copy(smoke.finished('umts_carousel'), tmp_path / 'run')
    (run / 'teachers').rename(run / 'away')
    text = inspect.text(run)
    assert f'a teacher cannot be read: {run}/teachers/teacher is no run' in text
    assert section(text, 'at export')['heads']


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
    student = trees.named(items['student'])
    of_classes = sum(leaf.size for path, leaf in student.items() if '/classifier/' in path)
    assert of_classes
    expected |= {'classifier (kept in .safetensors)': of_classes}
    expected |= {'optimizer': sum(leaf.size for leaf in jax.tree.leaves(moments)), 'step': 1}
    found = section(inspect.text(run), 'at export')
    size = trees.size(items['student']) - of_classes
    kept = f'{size:,}', f'{4 * size:,}'
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


def test_another_run_without_a_checkpoint(tmp_path):
    runs.start(tmp_path, smoke.config('supervised_carousel'), {'classes': 8, 'data': ''})
    with pytest.raises(RunError, match=f'{tmp_path} has no checkpoint: train it first'):
        inspect.text(smoke.finished('supervised_carousel'), tmp_path)


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
