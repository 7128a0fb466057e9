"""Weights from and for PyTorch: an ImageNet start, and a student's variables in torch's names."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import logging

from kd_jax import trees
from kd_jax.networks import state_dicts
from kd_jax.networks.network import Network
from kd_jax.networks.state_dicts import StateDict
from kd_jax.networks.torch_names import CLASSIFIER, NECKS, from_torch, to_torch, torch_names
from kd_jax.trees import Tree

# Classifiers of ImageNet's classes; and of identities, which DenseNet's is called too.
OF_CLASSES = r'(fc|classifier\.1)\.(weight|bias)'
OF_IDENTITIES = CLASSIFIER + r'\.(weight|bias)'
FROZEN_BIAS = 'bottleneck.bias'  # torch's BatchNorm has one in any case; in a bnneck it is zero
# Parts that a file may lack as a whole; they start as drawn then.
OPTIONAL = ('neck/(fc|neck_bn)/', r'bam\d/')


def load(network: Network, variables: Tree, path: str | Path, classifier: bool = False) -> Tree:
    """The variables of a network from a file of a torch state dict, by names alone.

    The given variables stay where the file has no say: the classifier, unless `classifier` is
    asked for; neck and BAM where the file has none; and the first convolution where it reads
    several images stacked in channels, but with `network.inflate` above 1 it becomes the file's,
    tiled over the images and divided by their number. Statistics of BatchNorm come along.

    Raises ValueError listing the tensors that are missing, surplus or of another shape.
    """
    names = torch_names(network, variables)
    given = {names[key]: to_torch(np.asarray(v)) for key, v in trees.named(variables).items()}
    read = state_dicts.read(path)
    found = {k: v for k, v in read.items() if not _is_dropped(network, k, v, classifier)}
    first = names[f'params/{network.FIRST}/kernel']
    if first in found:
        found[first] = _first(found[first], given[first], network.inflate)
    kept = _kept(names, found, given, classifier)
    _check(path, {k: v for k, v in given.items() if k not in kept}, found)
    kept |= {name for name, value in found.items() if value is given[name]}
    taken = len(found.keys() - kept)
    dropped = ', '.join(sorted(read.keys() - found.keys())) or 'none'
    drawn = _list(names, kept)
    logging.info('%s: read %d tensors; dropped: %s; as drawn: %s', path, taken, dropped, drawn)
    values = given | found
    leaves = {key: jnp.array(from_torch(values[name])) for key, name in names.items()}
    return trees.unnamed(leaves)


def export(network: Network, variables: Tree, path: str | Path, /, **facts: str) -> int:
    """Write `tensors` to a .safetensors file, with `facts` as its metadata; how many there are."""
    found = tensors(network, variables)
    state_dicts.write(path, found, facts)
    return len(found)


def tensors(network: Network, variables: Tree) -> StateDict:
    """A network's variables, the classifier's too, in torch's names and layouts.

    The classifier of identities is `classifier`, as that of ImageNet in some of torch's networks:
    leave it out there, its shape is another.
    """
    names = torch_names(network, variables)
    leaves = trees.named(variables).items()
    found = {names[key]: to_torch(np.asarray(value)) for key, value in leaves}
    if network.neck == 'bnneck':
        found[FROZEN_BIAS] = np.zeros_like(found['bottleneck.weight'])
    return found


def _is_dropped(network: Network, name: str, value: np.ndarray, classifier: bool) -> bool:
    """Classifiers, the tensors of another kind of neck, and the zeros of a frozen bias."""
    if re.fullmatch(OF_CLASSES, name):
        return True
    if re.fullmatch(OF_IDENTITIES, name):
        return not classifier
    if name == FROZEN_BIAS and network.neck == 'bnneck':
        return not value.any()
    module, own = name.rpartition('.')[0], NECKS[network.neck].values()
    return module not in own and any(module in modules.values() for modules in NECKS.values())


def _first(found: np.ndarray, given: np.ndarray, inflate: int) -> np.ndarray:
    """The first convolution for as many channels as are wanted, or as given."""
    if found.ndim != given.ndim:
        return found  # which `_check` refuses
    wanted, channels = given.shape[1], found.shape[1]
    if inflate > 1 and wanted == inflate * channels:
        return np.tile(found, (1, inflate, 1, 1)) / np.float32(inflate)
    stacked = wanted > channels and wanted % channels == 0
    same_but_for_channels = found[:, :1].shape == given[:, :1].shape
    return given if inflate == 1 and stacked and same_but_for_channels else found


def _kept(names: dict, found: StateDict, given: StateDict, classifier: bool) -> set[str]:
    """The torch names of what stays as given."""
    groups = [[n for path, n in names.items() if re.search(f'/{part}', path)] for part in OPTIONAL]
    kept = {name for group in groups if not found.keys() & set(group) for name in group}
    return kept | {n for n in given if n.startswith(f'{CLASSIFIER}.') and not classifier}


def _check(path: str | Path, wanted: StateDict, found: StateDict) -> None:
    lines = [f'  {name}: missing' for name in sorted(wanted.keys() - found.keys())]
    lines += [f'  {name}: surplus' for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        shapes = found[name].shape, wanted[name].shape
        if shapes[0] != shapes[1]:
            lines.append(f'  {name}: {shapes[0]} in the file, {shapes[1]} here')
    if lines:
        raise ValueError(f'{path} does not fit the network of this config:\n' + '\n'.join(lines))


def _list(names: dict[str, str], kept: set[str]) -> str:
    """Where tensors are, e.g. 'bam1, neck/classifier'."""
    modules = {path.split('/', 1)[1] for path, name in names.items() if name in kept}
    parts = {re.match(r'neck/\w+|\w+', module)[0] for module in modules}
    return ', '.join(sorted(parts)) or 'none'
