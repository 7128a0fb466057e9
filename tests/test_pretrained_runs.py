"""Runs that start from a file of weights, as kd_jax.export writes them."""

import shutil

import jax
import numpy as np
import pytest
import smoke

from kd_jax import checkpoints, command, loop, recipes, train, trees
from kd_jax.networks.state_dicts import read
from kd_jax.networks.torch_names import to_torch, torch_names

CLASSIFIER = 'classifier.weight'


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """The file of a smoke run's student, exported by the command line."""
    run = smoke.finished('supervised_carousel')
    file = tmp_path_factory.mktemp('exported') / 'new' / 'file.safetensors'
    command = '-m', 'kd_jax.export', f'--run={run}', f'--out={file}'
    ((code, told, errors),) = smoke.ended(smoke.python(*command))
    assert code == 0, errors
    return file, told


@pytest.fixture
def weights(exported, tmp_path):
    """A copy of that file, which may be taken away."""
    return shutil.copy(exported[0], tmp_path / 'weights.safetensors')


class Stop(Exception):
    """Raised in the middle of a run."""


def first_state(config, run, monkeypatch):
    """The variables that the first step would begin with."""

    def make(*_, **__):
        def step(state, teachers, batch):
            raise Stop(state)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(loop, 'make_train_step', make)
        with pytest.raises(Stop) as told:
            train.run(config, run)
    return told.value.args[0].variables


def state_dict(variables, part='student'):
    """The variables of one part, in torch's names and layouts."""
    network = recipes.network(smoke.config('supervised_carousel'), classes=8)
    own = trees.part(jax.tree.map(np.asarray, variables), part)
    names, leaves = torch_names(network, own), trees.named(own)
    return {names[path]: to_torch(leaf) for path, leaf in leaves.items()}


def save_and_stop(config, run, monkeypatch):
    """Stop a run when it has saved its first checkpoint."""
    save = checkpoints.save

    def saving(*arguments):
        save(*arguments)
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, 'save', saving)
        with pytest.raises(Stop):
            train.run(config, run)


def supervised(file):
    config = smoke.config('supervised_carousel')
    config.network.pretrained = str(file)
    return config


def t_net(file):
    """UMTS whose teacher starts from the file; it is trained first."""
    config = smoke.config()
    config.teachers.teacher.network.pretrained = str(file)
    return config


def joint(file):
    """UMTS whose teacher is trained with the student."""
    config = smoke.config()
    config.teachers = {}
    config.method.joint = True
    config.network.pretrained = str(file)
    return config


# The file.


def test_the_students_last_checkpoint_is_exported(exported):
    file, told = exported
    run = smoke.finished('supervised_carousel')
    variables = checkpoints.restore_network(run).variables
    number = len(trees.named(variables)) + 1  # a BNNeck's frozen bias
    head, tensors = told.splitlines()
    assert head.startswith(f'{file}: step 8 of {run}, ')
    assert tensors.startswith(f'{number} tensors of resnet10, in PyTorch’s names')
    wanted, found = state_dict(trees.join(student=variables)), read(file)
    assert not found.pop('bottleneck.bias').any()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    assert list(file.parent.iterdir()) == [file]


# Where a run starts.


def test_a_student_starts_with_the_files_weights(weights, tmp_path, monkeypatch):
    """All but the classifier, which is what it would be without a file."""
    plain = first_state(smoke.config('supervised_carousel'), tmp_path / 'plain', monkeypatch)
    found = first_state(supervised(weights), tmp_path / 'run', monkeypatch)
    assert jax.tree.structure(found) == jax.tree.structure(plain)
    file, plain, found = read(weights), *(state_dict(v) for v in (plain, found))
    np.testing.assert_array_equal(found.pop(CLASSIFIER), plain[CLASSIFIER])
    for name, value in found.items():
        np.testing.assert_array_equal(value, file[name])
        assert not np.array_equal(value, plain[name])


def test_a_t_net_starts_as_the_mean_over_its_shots(weights, tmp_path, monkeypatch):
    """The student's file is its teacher's too, if the config names no other."""
    config = smoke.config()
    config.network.pretrained = str(weights)
    assert config.teachers.teacher.network.inflate == 2
    found = state_dict(first_state(config, tmp_path / 'run', monkeypatch))
    file = read(weights)
    first = found.pop('conv1.weight')
    np.testing.assert_array_equal(first, np.concatenate([file['conv1.weight'] / 2] * 2, axis=1))
    assert not np.array_equal(found.pop(CLASSIFIER), file[CLASSIFIER])
    for name, value in found.items():
        np.testing.assert_array_equal(value, file[name])


def test_both_networks_of_a_joint_run_start_from_the_file(weights, tmp_path, monkeypatch):
    """But not the first convolution of the teacher, which reads more channels."""
    variables = first_state(joint(weights), tmp_path / 'run', monkeypatch)
    file, student = read(weights), state_dict(variables)
    teacher = state_dict(variables, 'teacher')
    assert student['conv1.weight'].shape == (4, 3, 3, 3)
    assert teacher.pop('conv1.weight').shape == (4, 6, 3, 3)
    for found in (student, teacher):
        assert not np.array_equal(found.pop(CLASSIFIER), file[CLASSIFIER])
        for name, value in found.items():
            np.testing.assert_array_equal(value, file[name])


# What does not fit is told before a run directory is made.


@pytest.mark.parametrize('make', [supervised, t_net, joint])
def test_a_wrong_file_leaves_no_run_behind(make, weights, tmp_path):
    config = make(weights)
    (config.teachers.teacher if config.teachers else config).network.width = 8
    with pytest.raises(SystemExit) as told:
        command.told(lambda _: train.run(config, tmp_path / 'run'), [])
    lines = str(told.value).splitlines()
    assert lines[0] == f'kd_jax: {weights} does not fit the network of this config:'
    assert '  layer1.0.bn1.weight: (4,) in the file, (8,) here' in lines
    weights.unlink()
    with pytest.raises(SystemExit, match=f'^kd_jax: {weights}: no such file of weights$'):
        command.told(lambda _: train.run(config, tmp_path / 'run'), [])
    assert list(tmp_path.iterdir()) == []


# A run that goes on.


def test_a_run_needs_its_file_until_it_was_saved(weights, tmp_path, monkeypatch):
    config, run, content = supervised(weights), tmp_path / 'run', weights.read_bytes()
    first_state(config, run, monkeypatch)
    weights.unlink()
    with pytest.raises(ValueError, match=f'^{weights}: no such file of weights'):
        train.run(config, run)
    weights.write_bytes(content)
    save_and_stop(config, run, monkeypatch)
    weights.unlink()
    result = train.run(config, run)
    assert [row['step'] for row in smoke.rows(run)] == [2, 4, 4, 6, 8, 8]
    assert train.run(config, run) == result  # finished
