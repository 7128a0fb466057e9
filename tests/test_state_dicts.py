import io
import json
import struct
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

from kd_jax.networks import state_dicts

TENSORS = {
    'conv1.weight': np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
    'bn1.weight': np.array([1, 2], np.float32),
}


def npz(compressed=False, **arrays):
    """The bytes of a .npz."""
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy(array):
    """The bytes of a .npy, of a single array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def of_dtype(name, size):
    """The bytes of a .safetensors with one tensor of a dtype that NumPy need not have."""
    facts = {'a': {'dtype': name, 'shape': [2], 'data_offsets': [0, 2 * size]}}
    header = json.dumps(facts).encode()
    return struct.pack('<Q', len(header)) + header + b'\x80\x3f' * size


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz'])
@pytest.mark.parametrize('dtype', [np.float32, np.float16, np.float64])
def test_tensors_are_read_as_float32(tmp_path, suffix, dtype):
    path = tmp_path / f'weights{suffix}'
    values = {name: value.astype(dtype) for name, value in TENSORS.items()}
    path.write_bytes(save(values) if suffix == '.safetensors' else npz(**values))
    assert_same(state_dicts.read(path), TENSORS)
    assert_same(state_dicts.read(str(path)), TENSORS)


def test_counters_are_left_out(tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_file(TENSORS | {'bn1.num_batches_tracked': np.array(7)}, path)
    assert_same(state_dicts.read(path), TENSORS)


def test_names_are_torchvisions(tmp_path):
    path = tmp_path / 'weights.npz'
    np.savez(path, **{f'module.{name}': value for name, value in TENSORS.items()})
    assert_same(state_dicts.read(path), TENSORS)


WHOLE = save(TENSORS)
ARCHIVE = npz(compressed=True, a=np.random.default_rng(0).normal(size=2000))
BROKEN = {
    'cut.safetensors': (WHOLE[:-20], 'is no .safetensors of tensors: .*not fully covered'),
    'header.safetensors': (WHOLE[:5], 'is no .safetensors of tensors: .*header too small'),
    'empty.safetensors': (b'', 'is no .safetensors of tensors: .*header too small'),
    'page.safetensors': (b'<html>' * 9, 'is no .safetensors of tensors: .*header too large'),
    'none.safetensors': (save({}), 'holds no tensors'),
    'counter.safetensors': (save({'bn1.num_batches_tracked': np.array(7)}), 'holds no tensors'),
    'float8.safetensors': (of_dtype('F8_E4M3', 1), 'holds .*float8.*: convert it to float32'),
    'cut.npz': (npz(**TENSORS)[:400], 'is no .npz of tensors: File is not a zip file'),
    'crc.npz': (ARCHIVE[:900] + bytes(90) + ARCHIVE[990:], 'is no .npz of tensors: '),
    'empty.npz': (b'', 'is no .npz of tensors: No data left in file'),
    'page.npz': (b'<html>' * 9, 'is no .npz of tensors: '),
    'objects.npz': (npz(a=np.array([{}], object)), 'is no .npz of tensors: Object arrays'),
    'words.npz': (npz(a=np.array(['x'])), 'is no .npz of tensors: could not convert string'),
    'single.npz': (npy(np.ones(3)), 'is no .npz of tensors: '),
    'none.npz': (npz(), 'holds no tensors'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_a_file_that_can_not_be_read_is_named(tmp_path, name):
    path, (content, message) = tmp_path / name, BROKEN[name]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'^{path} {message}'):
        state_dicts.read(path)


@pytest.mark.parametrize('name', ['weights', 'weights.bin', 'weights.ckpt', 'weights.npy'])
def test_other_suffixes(tmp_path, name):
    (tmp_path / name).write_bytes(WHOLE)
    with pytest.raises(ValueError, match=rf'{name}: weights are read from files \.safetensors, '):
        state_dicts.read(tmp_path / name)


@pytest.mark.parametrize('suffix', state_dicts.SUFFIXES)
def test_a_file_that_is_missing(tmp_path, suffix):
    path = tmp_path / f'weights{suffix}'
    with pytest.raises(ValueError, match=f'^{path}: no such file of weights'):
        state_dicts.read(path)
    path.mkdir()
    with pytest.raises(ValueError, match=f'^{path}: no such file of weights'):
        state_dicts.read(path)


def test_a_network_that_is_another_is_named_with_its_file(tmp_path):
    path = tmp_path / 'weights.npz'
    np.savez(path, **{'mobilenet_v2.conv_stem.first_conv.convolution.weight': np.ones(1)})
    with pytest.raises(ValueError, match=f"^{path}: transformers' MobileNetV2 .* do not fit"):
        state_dicts.read(path)


@pytest.mark.parametrize('suffix', ['.pth', '.pt'])
def test_without_torch_it_is_told_what_to_do(tmp_path, monkeypatch, suffix):
    path = tmp_path / f'weights{suffix}'
    path.write_bytes(b'')
    monkeypatch.setitem(sys.modules, 'torch', None)
    message = f'^{path} needs torch.*: install it, or convert .*safetensors.torch.save_file'
    with pytest.raises(ValueError, match=message):
        state_dicts.read(path)


@pytest.mark.parametrize('wrapped', [False, True])
def test_with_torch(tmp_path, wrapped):
    """As `torch.save` leaves them, in a training script's checkpoint too."""
    torch = pytest.importorskip('torch')
    tensors = {name: torch.nn.Parameter(torch.tensor(v).half()) for name, v in TENSORS.items()}
    saved = {'epoch': 3, 'state_dict': tensors} if wrapped else tensors
    torch.save(saved, tmp_path / 'weights.pth')
    assert_same(state_dicts.read(tmp_path / 'weights.pth'), TENSORS)


def test_with_torch_what_is_no_state_dict(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'weights.pt'
    for content in (b'', b'hello world'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'^{path} can not be read as tensors alone'):
            state_dicts.read(path)
    torch.save(torch.nn.Linear(2, 2), path)  # a pickle that runs code
    with pytest.raises(ValueError, match=f'^{path} can not be read as tensors alone'):
        state_dicts.read(path)
    for content in (torch.ones(2), {'state_dict': 3}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=f'^{path} holds no tensors'):
            state_dicts.read(path)


def test_written_files_are_read_again(tmp_path):
    """Into a new folder, over an older file, without a trace of how."""
    path = tmp_path / 'new' / 'weights.safetensors'
    state_dicts.write(path, {'a.weight': np.zeros(2, np.float32)}, {})
    state_dicts.write(str(path), TENSORS, {'step': '8'})
    assert_same(state_dicts.read(path), TENSORS)
    assert list(path.parent.iterdir()) == [path]
    with safe_open(path, 'np') as file:
        assert file.metadata() == {'format': 'pt', 'step': '8'}  # 'pt' is what torch asks for


@pytest.mark.parametrize('name', ['weights.npz', 'weights.pth', 'weights'])
def test_only_safetensors_are_written(tmp_path, name):
    path = tmp_path / 'new' / name
    with pytest.raises(ValueError, match=rf'^{path}: weights are written to files \.safetensors'):
        state_dicts.write(path, TENSORS, {})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_is_there_twice(tmp_path):
    path = tmp_path / 'weights.npz'
    np.savez(path, **{'conv1.weight': np.zeros(2), 'module.conv1.weight': np.ones(2)})
    told = 'holds tensors twice: conv1.weight, module.conv1.weight'
    with pytest.raises(ValueError, match=told):
        state_dicts.read(path)
