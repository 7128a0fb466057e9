"""Files of PyTorch state dicts: .safetensors, .npz and, where torch is installed, .pth."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from kd_jax.networks import dialects

StateDict = dict[str, np.ndarray]

SUFFIXES = ('.safetensors', '.npz', '.pth', '.pt')
# What the readers of .safetensors and .npz raise; TypeError for a single array, as of np.save.
BROKEN = (SafetensorError, zipfile.BadZipFile, zlib.error, ValueError, TypeError, OSError, EOFError)
WRAPPER = 'state_dict'  # in which training scripts put the weights, beside epoch and optimizer


def read(path: str | Path) -> StateDict:
    """The tensors of a file as float32, in torchvision's or torchreid's names.

    Counters of BatchNorm are left out. Raises ValueError naming the file where it is missing, can
    not be read, or holds no tensors.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f'{path}: weights are read from files {", ".join(SUFFIXES)}')
    if not path.is_file():
        raise ValueError(f'{path}: no such file of weights')
    tensors = _with_torch(path) if path.suffix in ('.pth', '.pt') else _opened(path)
    kept = {k: v for k, v in tensors.items() if not k.endswith('num_batches_tracked')}
    if not kept:
        raise ValueError(f'{path} holds no tensors, at its top or under {WRAPPER!r}')
    try:
        names = dialects.renamed(kept)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    if len(set(names.values())) < len(names):
        twice = sorted(k for k, n in names.items() if list(names.values()).count(n) > 1)
        raise ValueError(f'{path} holds tensors twice: {", ".join(twice[:4])}')
    return {names[key]: value for key, value in kept.items()}


def write(path: str | Path, tensors: StateDict, metadata: dict[str, str]) -> None:
    """A whole .safetensors file or none; ValueError for another suffix."""
    path = Path(path)
    if path.suffix != '.safetensors':
        raise ValueError(f'{path}: weights are written to files .safetensors')
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}')
    try:
        temporary.write_bytes(save(tensors, metadata={'format': 'pt', **metadata}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _opened(path: Path) -> StateDict:
    try:
        if path.suffix == '.safetensors':
            return _as_float32(load_file(path))
        with open(path, 'rb') as file, np.load(file, allow_pickle=False) as arrays:
            return _as_float32(dict(arrays))
    except (KeyError, AttributeError) as error:  # a dtype that NumPy lacks, such as F8_E4M3
        raise ValueError(f'{path} holds {error}: convert it to float32') from None
    except BROKEN as error:
        raise ValueError(f'{path} is no {path.suffix} of tensors: {error}') from None


def _as_float32(tensors: StateDict) -> StateDict:
    return {key: np.asarray(value, np.float32) for key, value in tensors.items()}


def _with_torch(path: Path) -> StateDict:
    """Tensors alone: a pickle that would run code is refused."""
    try:
        import torch
    except ImportError:
        raise ValueError(
            f'{path} needs torch to be read: install it, or convert the file where torch is with '
            "safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'FILE.safetensors')"
        ) from None
    try:
        found = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # of an unpickler in bytes of anything
        reason = str(error).partition('\n')[0]
        raise ValueError(f'{path} can not be read as tensors alone: {reason}') from None
    found = found.get(WRAPPER, found) if isinstance(found, dict) else {}
    leaves = found.items() if isinstance(found, dict) else ()
    tensors = {str(key): leaf for key, leaf in leaves if isinstance(leaf, torch.Tensor)}
    return {key: tensor.detach().float().numpy() for key, tensor in tensors.items()}
