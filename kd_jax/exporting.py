"""What kd_jax.export writes: a run's student as a function or as PyTorch's tensors, checked."""

import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from kd_jax import checkpoints, evaluate, export, own_images, runs, trees
from kd_jax.checkpoints import Restored
from kd_jax.data import augment
from kd_jax.export import Student
from kd_jax.networks import pretrained, state_dicts, torch_names
from kd_jax.own_images import Network
from kd_jax.runs import RunError

PLATFORMS = 'cpu', 'cuda', 'tpu'
BATCHES = 1, 8, 32  # on which a file is checked and timed
TIMES = 3  # of which the shortest counts
LIMIT = 1e-4  # the largest difference of embeddings, as a share of their largest number
# Where factors are rounded to TF32 or bfloat16: by networks of that dtype, and by accelerators.
COARSE = 2e-2
TORCH = '.safetensors'


class Checked(NamedTuple):
    """How a file embeds a batch: the difference from the run's embeddings, ms per image."""

    batch: int
    difference: float
    milliseconds: float


def run(path: Path, which: str, out: Path) -> str:
    """Write the student of a run to a new file; what it is, in some lines.

    Raises RunError for a run that is none, for a function of one that is not finished, for a file
    that exists or is of another kind, and, leaving no file, where what was written does not embed
    as the run does.
    """
    torch = out.suffix == TORCH
    if out.suffix in state_dicts.SUFFIXES and not torch:  # a function would be taken for weights
        raise RunError(f'{out}: weights are written to files {TORCH}')
    if out.exists():
        raise RunError(f'{out} exists, and is left as it is: give another --out, or remove it')
    runs.config_of(path)
    if not torch and runs.result_of(path) is None:
        raise RunError(f'{path} is not finished: train it to its end')
    restored = checkpoints.restore_network(path, which)
    network = own_images.described(restored, which)
    written = _torch if torch else _function
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f'.{os.getpid()}.{out.name}')
    try:
        lines = written(restored, network, temporary)
        head = f'{out}: step {restored.step} of {path}, {temporary.stat().st_size / 1e6:,.2f} MB'
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return '\n'.join([head, *lines])


def function_of(restored: Restored, shots: int) -> jax.export.Exported:
    """The student for PLATFORMS: uint8 images[b, h, w, c] -> float32[b, d], whatever b is.

    A network of several shots is shown each image `shots` times, as by kd_jax.embed.
    """
    variables = jax.tree.map(np.asarray, trees.join(student=restored.variables))

    def embedder(conv: str) -> Callable:
        network = restored.network.clone(conv=conv)
        method = evaluate.method_of(restored._replace(network=network))

        def one(variables, image):
            images = jnp.repeat(augment.normalise(image)[None, None], shots, axis=1)
            return method.embed(variables, images)[0]

        # Methods may ask how many sets there are: it is one. And for a batch of unknown size a CPU
        # would have XLA's own 3x3 convolutions: of a ResNet-50, 3 s of compiling instead of 20, but
        # a quarter more time for every image.
        return jax.vmap(one, (None, 0))

    # `conv='auto'` would fix what suits this machine. XLA's own convolutions suit accelerators, and
    # on a CPU are up to ten times slower than products (OSNet, MobileNetV2). The file has both,
    # over one copy of the weights, and the platform that it is compiled for decides.
    def embed(images):
        choices = {'cpu': embedder('cpu'), 'default': embedder('xla')}
        return jax.lax.platform_dependent(variables, images, **choices)

    shape = jax.export.symbolic_shape(', '.join(map(str, ('b', *_size(restored)))))
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    return jax.export.export(jax.jit(embed), platforms=PLATFORMS)(images)


def checked(student: Student, network: Network) -> list[Checked]:
    """A loaded student beside its run's network, on the first of the same images of noise."""
    size = (max(BATCHES), *student.size)
    images = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    wanted, found = own_images.embedded(network, images, len(images) * network.shots), []
    for batch in BATCHES:
        vectors = np.asarray(student(images[:batch]))
        seconds = []
        for _ in range(TIMES):
            began = time.perf_counter()
            student(images[:batch]).block_until_ready()
            seconds.append(time.perf_counter() - began)
        apart = difference(vectors, wanted[:batch])
        found.append(Checked(batch, apart, 1e3 * min(seconds) / batch))
    return found


def difference(found: Float[np.ndarray, 'b d'], wanted: Float[np.ndarray, 'b d']) -> float:
    """The largest difference as a share of the largest number; NaN where there is one."""
    largest = np.maximum(np.abs(wanted).max(), np.finfo(np.float32).tiny)
    return float(np.abs(found - wanted).max() / largest)


def facts_of(restored: Restored, network: Network) -> dict[str, Any]:
    """The facts of embeddings by this network, and what else is told of it."""
    parameters = trees.named(restored.variables['params'])
    kept = {name: x for name, x in parameters.items() if not name.startswith('neck/classifier/')}
    versions = {name: version(name) for name in runs.PACKAGES}
    return network.facts | {
        'size': _size(restored),
        'resize': network.data['resize'],
        'network': restored.config.network.to_dict(),
        'parameters': trees.size(kept),
        'versions': versions | {'python': platform.python_version()},
    }


def _size(restored: Restored) -> tuple[int, ...]:
    """Height, width and channels of the images."""
    return tuple(restored.config.data[key] for key in ('height', 'width', 'channels'))


def _function(restored: Restored, network: Network, file: Path) -> list[str]:
    """Write the function and check the file; what is told of it."""
    function = function_of(restored, network.shots)
    width = function.out_avals[0].shape[1]
    facts = facts_of(restored, network) | {'width': width, 'platforms': PLATFORMS}
    export.write(file, function, facts)
    found = checked(export.load(file), network)
    _check(found, restored)
    repeated = f', each image {network.shots} times' if network.shots > 1 else ''
    return [
        f'{facts["parameters"]:,} parameters, without the classifier',
        f'reads {export.images_of(facts["size"])}{repeated}; gives float32[b, {width}]; on '
        f'{", ".join(PLATFORMS)}',
        '',
        f'batch   difference from the run   ms per image ({jax.devices()[0].device_kind})',
        *(f'{b:5}   {apart:23.1e}   {spent:12.3f}' for b, apart, spent in found),
    ]


def _check(found: list[Checked], restored: Restored) -> None:
    """RunError where embeddings are not the run's, up to rounding."""
    exact = restored.config.network.dtype == 'float32' and jax.default_backend() == 'cpu'
    limit = LIMIT if exact else COARSE
    for batch, apart, _ in found:
        if not apart <= limit:  # nor where it is NaN
            raise RunError(
                f'the exported function embeds {batch} images otherwise than the run, by '
                f'{apart:.1e} of the largest number where {limit:.0e} is allowed (nan: a network '
                'that gives NaN or Inf). Nothing was written'
            )


def _torch(restored: Restored, network: Network, file: Path) -> list[str]:
    """Write the variables in PyTorch's names and read them again; what is told of them."""
    module, variables = restored.network, restored.variables
    name = restored.config.network.name
    if type(module) not in torch_names.RULES:
        raise RunError(f'{name} has no names in PyTorch: give an --out that is no {TORCH}')
    facts = facts_of(restored, network).items()
    texts = {key: fact if isinstance(fact, str) else json.dumps(fact) for key, fact in facts}
    count = pretrained.export(module, variables, file, **texts)
    blank = jax.tree.map(jnp.zeros_like, variables)
    again = pretrained.load(module, blank, file, classifier=True)
    if _bytes(again) != _bytes(variables):
        raise RunError(f'{count} tensors were not read as they were written: nothing was written')
    return [f'{count} tensors of {name}, in PyTorch’s names and layouts, read again bit for bit']


def _bytes(variables: trees.Tree) -> dict[str, bytes]:
    return {key: np.asarray(value).tobytes() for key, value in trees.named(variables).items()}
