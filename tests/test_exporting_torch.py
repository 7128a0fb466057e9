"""kd_jax.exporting: the variables of a student, in PyTorch's names."""

import json

import jax
import numpy as np
import photos
import pytest
import smoke
from safetensors import safe_open

from kd_jax import checkpoints, exporting
from kd_jax.networks import pretrained, state_dicts, torch_names
from kd_jax.runs import RunError


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.npz'])
def test_weights_in_other_files(tmp_path, suffix):
    out = tmp_path / f'a{suffix}'
    with pytest.raises(RunError, match=f'{out}: weights are written to files .safetensors'):
        exporting.run(smoke.finished(), 'last', out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('part', ['.', 'teachers/teacher'])
def test_tensors_are_read_again_bit_for_bit(tmp_path, part):
    file, run = tmp_path / 'a.safetensors', smoke.finished() / part
    told = exporting.run(run, 'last', file)
    restored = checkpoints.restore_network(run)
    blank = jax.tree.map(np.zeros_like, restored.variables)
    found = pretrained.load(restored.network, blank, file, classifier=True)
    jax.tree.map(np.testing.assert_array_equal, found, restored.variables)
    with safe_open(file, 'np') as opened:
        names, metadata = list(opened.keys()), opened.metadata()
    assert 'layer1.0.conv1.weight' in names
    assert told.splitlines()[1].startswith(f'{len(names)} tensors of resnet10, in PyTorch’s names')
    assert (metadata['step'], metadata['run']) == ('8', str(run))
    assert json.loads(metadata['network'])['name'] == 'resnet10'
    assert list(tmp_path.iterdir()) == [file]


def test_tensors_of_a_run_that_is_not_finished(tmp_path):
    """Of the checkpoint that was asked for, while the run goes on."""
    found = {which: tmp_path / f'{which}.safetensors' for which in checkpoints.WHICH}
    for which, file in found.items():
        exporting.run(photos.run(), which, file)
    kernels = [state_dicts.read(file)['conv1.weight'] for file in found.values()]
    wanted = [
        checkpoints.restore_network(photos.run(), which).variables['params']['conv1']['kernel']
        for which in found
    ]
    for kernel, one in zip(kernels, wanted):
        np.testing.assert_array_equal(kernel, torch_names.to_torch(np.asarray(one)))
    assert not np.array_equal(*kernels)


def test_a_network_without_names_in_pytorch_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_names, 'RULES', {})
    with pytest.raises(RunError, match='resnet10 has no names in PyTorch'):
        exporting.run(smoke.finished(), 'last', tmp_path / 'a.safetensors')
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_are_read_otherwise_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, 'load', lambda network, blank, *_, **__: blank)
    with pytest.raises(RunError, match='65 tensors were not read as they were written'):
        exporting.run(smoke.finished(), 'last', tmp_path / 'a.safetensors')
    assert list(tmp_path.iterdir()) == []
