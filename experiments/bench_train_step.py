"""The speed of a network's training and inference step, beside torch's where that is installed.

python -m experiments.bench_train_step --network=resnet50 --batch=16

The train step is the one of every run, for method `supervised` with the re-ID recipe's objective
and Adam, on a batch that lies on the device already. Torch has the same network, weights,
objective and optimizer, channels_last; with bfloat16 under autocast; on a GPU compiled too. All
take turns, so that a noisy machine is noisy for all. TensorFlow is not needed.
"""

import os
import platform
from typing import Any

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # leaves a GPU's memory to torch

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import bench_torch, turns
from experiments.turns import Contender
from kd_jax import command, loop, networks, optimizers, parallel, trees
from kd_jax.methods import supervised
from kd_jax.networks import Network, cost
from kd_jax.views import Batch

NETWORK = flags.DEFINE_string('network', 'resnet50', 'One of `python -m kd_jax.networks`.')
LAYERS = flags.DEFINE_integer('layer_width', 64, 'network.width of a config.')
STEM = flags.DEFINE_enum('stem', 'imagenet', networks.WORDS['stem'], 'network.stem of a config.')
HEIGHT = flags.DEFINE_integer('height', 256, 'Of the images.')
WIDTH = flags.DEFINE_integer('width', 128, 'Of the images.')
BATCH = flags.DEFINE_integer('batch', 16, 'Images a step, a multiple of 4.')
DTYPE = flags.DEFINE_enum('dtype', 'float32', networks.WORDS['dtype'], 'Of the stages.')
CONV = flags.DEFINE_enum('conv', 'auto', networks.WORDS['conv'], 'network.conv of a config.')
ROUNDS = flags.DEFINE_integer('rounds', 7, 'Turns that each side takes.')
SECONDS = flags.DEFINE_float('seconds', 2.0, 'How long a turn takes, about.')

CLASSES, SHOTS = 751, 4
flags.register_validator('batch', lambda n: n > 0 and n % SHOTS == 0, f'give a multiple of {SHOTS}')
OBJECTIVE = {'label_smoothing': 0.1, 'margin': 0.3}
OPTIMIZER = {'name': 'adam', 'learning_rate': 8e-4, 'weight_decay': 5e-4, 'warmup': 'linear'}
OPTIMIZER |= {'warmup_epochs': 0.0, 'warmup_start': 8e-4, 'schedule': 'step', 'boundaries': ()}
OPTIMIZER |= {'factor': 0.5, 'final': 0.01, 'epochs': 1.0, 'steps_per_epoch': 10**6}


def network() -> Network:
    """The network that the flags describe."""
    return networks.create(
        NETWORK.value,
        classes=CLASSES,
        width=LAYERS.value,
        stem=STEM.value,
        last_stride=1,
        last_block_relu='all',
        neck='bnneck',
        neck_width=512,
        inflate=1,
        dtype=DTYPE.value,
        conv=CONV.value,
        batch_norm='global',
        axis_name=parallel.AXIS,
    )


def batch() -> Batch:
    """Identities of four images each: noise, as if normalised."""
    sets = BATCH.value // SHOTS
    shape = sets, SHOTS, HEIGHT.value, WIDTH.value, 3
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    numbers = np.zeros((sets, SHOTS), np.int32)
    return Batch(images, np.arange(sets, dtype=np.int32), numbers, numbers)


def ours(made: Network, data: Batch) -> tuple[list[Contender], Any]:
    """Our training and inference, and the network's variables that they start from."""
    mesh, axis = parallel.mesh(jax.devices()[:1]), parallel.AXIS
    options = {'reads': 'singles', 'feature': 'embedding', 'axis_name': axis, **OBJECTIVE}
    method = supervised.make(made, {}, **options)
    tx = optimizers.create(**OPTIMIZER)
    state = loop.create_state(method, tx, data, seed=0)
    start = jax.tree.map(np.array, trees.part(state.variables, 'student'))
    step = loop.make_train_step(method, lambda b: (b, b), tx, mesh, seed=0, steps=10**6)
    sets, shots, *size = data.images.shape
    images = parallel.shard(data.images.reshape(sets * shots, 1, *size), mesh)
    inputs = [parallel.replicate(state, mesh), {}, parallel.shard(data, mesh)]
    return [
        _compiled('training', step, inputs, updates=True),
        _compiled(
            'inference', parallel.spread(method.embed, mesh), [trees.join(student=start), images]
        ),
    ], start


def _compiled(name: str, function: Any, inputs: list, updates: bool = False) -> Contender:
    """A contender that hands its first result to itself where it `updates` a state."""
    with turns.Stopwatch() as watch:
        compiled = function.lower(*inputs).compile()
    memory = compiled.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    peak += memory.output_size_in_bytes - memory.alias_size_in_bytes

    def step():
        found = compiled(*inputs)
        if updates:
            inputs[0], found = found
        return jax.device_get(found)

    return Contender(name, step, watch.seconds, peak)


def flops(made: Network, data: Batch) -> dict[str, int]:
    """Twice the multiply-adds of inference; three times that for training, as is the custom."""
    plain = made.clone(conv='xla', axis_name=None)
    images = jax.ShapeDtypeStruct((BATCH.value, *data.images.shape[2:]), jnp.float32)
    variables = jax.eval_shape(plain.init, jax.random.key(0), images)
    inference = 2 * cost.multiply_adds(plain.apply, variables, images)
    return {'training': 3 * inference, 'inference': inference}


def product() -> tuple[Contender, int]:
    """A product of square matrices, as the measure of what the device can do, and its FLOPs."""
    rows = 2048 if jax.default_backend() == 'cpu' else 8192
    matrix = jax.random.normal(jax.random.key(0), (rows, rows), DTYPE.value)
    step = jax.jit(lambda x: (x @ x)[0, 0])
    return Contender('product', lambda: float(step(matrix))), 2 * rows**3


def table(found: list[Contender], times: turns.Times, work: dict[str, int], speed: float) -> str:
    """A row for every contender."""
    head = ('images/s', 'ms a step', 'compiled in', 'peak memory', 'of a product')
    lines = [f'{"":26}' + ''.join(f'{h:>14}' for h in head)]
    for name, _, seconds, peak in found:
        taken = turns.median(times[name])
        cells = [f'{BATCH.value / taken:.1f}', f'{1e3 * taken:.1f}']
        cells.append('–' if seconds is None else f'{seconds:.1f} s')
        cells.append('–' if peak is None else f'{peak / 2**20:,.0f} MiB')
        cells.append(f'{work[name.split()[-1]] / taken / speed:.0%}')
        lines.append(f'{name:26}' + ''.join(f'{cell:>14}' for cell in cells))
    return '\n'.join(lines)


def ratios(found: list[Contender], times: turns.Times) -> list[str]:
    """Our speed over each of torch's, as the median, least and most of all rounds."""
    lines = []
    for name in (c.name for c in found if c.name.startswith('torch')):
        middle, least, most = turns.ratio(times, name.split()[-1], name)
        lines.append(f'{name}: ours is {middle:.2f} times as fast ({least:.2f} to {most:.2f})')
    return lines


def main(_: list) -> None:
    """Print what was measured."""
    made, data = network(), batch()
    found, start = ours(made, data)
    flat = data.images.reshape(-1, *data.images.shape[2:])
    theirs, embedding = bench_torch.contenders(
        made, start, flat, np.repeat(data.labels, SHOTS), OBJECTIVE, OPTIMIZER
    )
    if embedding is not None:
        own = found[1].step()
        error = np.abs(own - embedding).max() / np.abs(own).max()
        print(f"torch's embedding differs from ours by {error:.1e} of the largest value")
    measure, of_measure = product()
    times = turns.take([*found, *theirs, measure], ROUNDS.value, SECONDS.value)
    device = jax.devices()[0]
    print(
        f'{NETWORK.value}, width {LAYERS.value}, {STEM.value} stem, {HEIGHT.value}x{WIDTH.value}, '
        f'batch {BATCH.value}, {DTYPE.value}, conv {CONV.value}; {device.device_kind} '
        f'({os.cpu_count()} cores), jax {jax.__version__}, python {platform.python_version()}'
        + (f', torch {bench_torch.torch.__version__}' if theirs else ', no torch')
    )
    speed = of_measure / turns.median(times['product'])
    print(table([*found, *theirs], times, flops(made, data), speed))
    print(f'a product of matrices reaches {speed / 1e12:.2f} TFLOP/s')
    print('\n'.join(ratios([*found, *theirs], times)))


if __name__ == '__main__':
    command.start(main)
