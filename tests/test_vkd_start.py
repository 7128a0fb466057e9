"""Where a student of VKD starts: its teacher, but for head and last stage."""

import functools

import jax
import numpy as np
import pytest
import smoke
from test_pretrained import CLASSES, drawn, file_of, imagenet, in_torch, narrow
from test_vkd import NETWORK, OPTIONS, OWN, TAUGHT, made

from kd_jax import checkpoints, keeping, parallel, recipes, train, trees
from kd_jax.methods import vkd
from kd_jax.networks import pretrained, state_dicts
from kd_jax.networks.torch_names import torch_names


def started(network, own, taught):
    """The student that starts from a teacher of the same network."""
    start = vkd.make(network, {'teacher': network}, **OPTIONS).start
    return trees.part(start(trees.join(student=own), {'teacher': taught}), 'student')


@pytest.mark.parametrize('name', CLASSES)
def test_head_and_last_stage_are_not_the_teachers(name, tmp_path):
    """The stage is ImageNet's, statistics too; the head is as drawn, not the file's.

    Of MobileNetV2 no stage, of DenseNet all but its last norm, as in VKD's code.
    """
    network, stage = narrow(name), CLASSES[name][1]
    state, taught = imagenet(network, CLASSES[name][0]), drawn(network, seed=1)
    own = pretrained.load(network, drawn(network), file_of(tmp_path, state))
    found, names = started(network, own, taught), torch_names(network, own)
    of_file = in_torch(network, found)
    sources = {'neck': trees.named(drawn(network)), 'teacher': trees.named(taught)}
    taken = set()
    for path, leaf in trees.named(found).items():
        kind, module = path.split('/', 1)
        if stage and module.startswith(stage):
            np.testing.assert_array_equal(of_file[names[path]], state[names[path]], err_msg=path)
            taken.add(kind)
        else:
            source = sources['neck' if module.startswith('neck/') else 'teacher']
            np.testing.assert_array_equal(leaf, source[path], err_msg=path)
    assert taken == ({'params', 'batch_stats'} if stage else set())


def test_a_student_may_start_from_another_run():
    networks = {'teacher': NETWORK.clone(width=8), 'start': NETWORK}
    start = vkd.make(NETWORK, networks, **OPTIONS).start
    found = start(trees.join(student=OWN), {'teacher': {}, 'start': TAUGHT})
    first = 'params/student/conv1/kernel'
    np.testing.assert_array_equal(trees.named(found)[first], TAUGHT['params']['conv1']['kernel'])


def test_a_student_of_another_network_can_not_start_from_its_teacher():
    wider = NETWORK.clone(width=8)
    given = jax.eval_shape(wider.init, jax.random.key(0), jax.numpy.zeros((1, 32, 16, 3)))
    with pytest.raises(ValueError, match=r'another network .* method\.start=scratch'):
        made().start(trees.join(student=OWN), {'teacher': given})


# In a run.


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file as of ImageNet for the networks of the smoke run, and what it says of them."""
    path = tmp_path_factory.mktemp('weights') / 'weights.safetensors'
    state = imagenet(NETWORK)
    state_dicts.write(path, state, {})
    return path, state


def config_from(path):
    """The smoke run in half an epoch, with its networks starting from a file."""
    config = smoke.config('vkd_carousel')
    config.network.pretrained = str(path)
    config.train.epochs = 0.5
    assert config.teachers.teacher.network.pretrained == str(path)
    return config


def test_a_run_starts_from_its_teacher(weights, tmp_path):
    """Its parameters stay where they start, as nothing is learned; the teacher's run too."""
    path, state = weights
    config, home = config_from(path), tmp_path / 'teachers' / 'teacher'
    config.optimizer.update(learning_rate=0.0, warmup_epochs=0.0)
    train.run(config.teachers.teacher.copy_and_resolve_references(), home)
    before = smoke.files(home)
    train.run(config, tmp_path)
    assert smoke.files(home) == before
    runs = [checkpoints.restore_network(run).variables['params'] for run in (tmp_path, home)]
    found, teacher = (in_torch(NETWORK, {'params': params}) for params in runs)
    assert set(found) == set(in_torch(NETWORK, {'params': TAUGHT['params']}))
    for name, value in found.items():
        same = [np.array_equal(value, source.get(name)) for source in (teacher, state)]
        neck, stage = name.startswith(('bottleneck', 'classifier')), name.startswith('layer4')
        assert same == [not neck and not stage, stage], name


def test_a_run_from_scratch_is_untouched_by_its_teacher(weights, tmp_path):
    config = config_from(weights[0])
    config.method.start = 'scratch'
    method = recipes.method(config, NETWORK, {'teacher': NETWORK})
    assert method.start is None
    fresh = trees.join(student=OWN)
    state = keeping.TrainState(jax.numpy.zeros((), int), fresh, ())
    begin = functools.partial(recipes.started, config, 8)
    taught = {'teacher': TAUGHT}
    with checkpoints.manager(tmp_path) as none:
        found, step, _ = keeping.restored(none, state, begin, method, taught, parallel.mesh())
    assert step == 0
    wanted = recipes.started(config, 8, fresh)
    jax.tree.map(np.testing.assert_array_equal, found.variables, wanted)
