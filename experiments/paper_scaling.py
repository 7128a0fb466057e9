"""How well a pod would be used, on paper: counted bytes, counted FLOPs and published speeds.

    python -m experiments.paper_scaling

The train step of a ResNet-50 at 256×128 in bfloat16 (method `supervised`, 64 images a chip) is
compiled for a few forced CPU devices, and the collectives are read from the program: how many, and
how many bytes each leaves with; once with BatchNorm over the whole batch, as the recipes have it,
and once over each chip's own images (`network.batch_norm=device`). All-reduces of gradients and
statistics do not grow with the number of chips; what is gathered for batch-hard mining does. Then

    seconds to compute   FLOPs of the step / (UTILISED × published peak)
    seconds to exchange  2 (n-1)/n × reduced bytes / link + (n-1)/n × gathered bytes / link
                         + collectives × latency
    efficiency           compute / (compute + exchange)

which is a lower bound for what overlaps, and leaves out what a host does.
"""

import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import supervised_folder
from kd_jax import loop, optimizers, parallel, recipes
from kd_jax.networks import cost
from kd_jax.views import Batch

UTILISED = 0.4  # of the peak, by the step itself: an assumption
IDENTITIES = 16  # a chip, of four images each
CLASSES = 751
CHIPS = 8, 64, 256
BYTES = {'f32': 4, 'bf16': 2, 's32': 4, 'u32': 4, 'pred': 1, 'u8': 1, 'f16': 2}
COLLECTIVE = re.compile(r'= (.*?) (all-reduce|all-gather)(?:-start)?\(')
ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')


class Machine(NamedTuple):
    """Published speeds of a chip and its links, and how long the smallest exchange takes.

    `peak` in bfloat16 FLOP/s; `link` in bytes/s out of a chip, among `near` chips and beyond;
    `hop` in seconds, of one of the 2 √n (torus) or log₂ n (switches) that an exchange takes.
    """

    peak: float
    link: float
    near: int
    far: float
    hop: float
    torus: bool


MACHINES = {
    # docs.cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, ICI 400 GB/s both ways, 2D torus of 256.
    'TPU v5e': Machine(197e12, 200e9, 256, 200e9, 1e-6, torus=True),
    # NVIDIA's data sheet of H100 SXM: 989 TFLOP/s dense, NVLink 900 GB/s both ways, 8 a host;
    # between hosts one 400 Gb/s adapter a GPU.
    'H100, 8 a host': Machine(989e12, 450e9, 8, 50e9, 5e-6, torus=False),
}


class Exchange(NamedTuple):
    """What the collectives of a step move on one chip: their number, and bytes of results."""

    count: int
    reduced: int
    gathered: int


def force(devices: int) -> None:
    """So many CPU devices, before JAX is used."""
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', devices)


def config_of(batch_norm: str) -> ConfigDict:
    """The re-ID recipe at full size."""
    found = supervised_folder.get_config('')
    found.network.update(dtype='bfloat16', conv='xla', batch_norm=batch_norm)
    return found


def compiled(config: ConfigDict, devices: int) -> str:
    """The program of a train step that so many devices share."""
    mesh = parallel.mesh(jax.devices()[:devices])
    method = recipes.method(config, recipes.network(config, CLASSES), {})
    tx = optimizers.create(epochs=1.0, steps_per_epoch=100, frozen=(), **config.optimizer)
    blank, sets = recipes.blank_batch(config), devices * IDENTITIES
    state = jax.eval_shape(lambda: loop.create_state(method, tx, blank, 0))
    shape, size = (sets, config.sampling.shots), size_of(config)
    kinds = (
        ((*shape, *size), jnp.uint8),
        ((sets,), jnp.int32),
        (shape, jnp.int32),
        (shape, jnp.uint32),
    )
    batch = Batch(*(jax.ShapeDtypeStruct(*kind) for kind in kinds))
    augment = recipes.augmentation(config)
    step = loop.make_train_step(method, augment, tx, mesh, seed=0, steps=100)
    return step.lower(state, {}, batch).compile().as_text()


def exchange(program: str) -> Exchange:
    """The collectives of a compiled program."""
    moved = {'all-reduce': 0, 'all-gather': 0}
    found = COLLECTIVE.findall(program)
    for shapes, kind in found:
        moved[kind] += sum(_size(*array) for array in ARRAY.findall(shapes))
    return Exchange(len(found), moved['all-reduce'], moved['all-gather'])


def _size(kind: str, dimensions: str) -> int:
    return BYTES[kind] * math.prod(int(one) for one in dimensions.split(',') if one)


def size_of(config: ConfigDict) -> tuple[int, ...]:
    """Height, width and channels of an image."""
    return tuple(config.data[key] for key in ('height', 'width', 'channels'))


def flops(config: ConfigDict) -> int:
    """Those of a chip's step: three times inference, twice the multiply-adds."""
    made = recipes.network(config, CLASSES).clone(axis_name=None)
    images = jax.ShapeDtypeStruct((4 * IDENTITIES, *size_of(config)), jnp.float32)
    variables = jax.eval_shape(made.init, jax.random.key(0), images)
    return 6 * cost.multiply_adds(made.apply, variables, images)


def seconds(machine: Machine, moved: Exchange, chips: int) -> float:
    """How long the exchanges of a step take; `moved.gathered` is that of one chip's images."""
    link = machine.link if chips <= machine.near else machine.far
    share = (chips - 1) / chips
    hops = 2 * math.sqrt(chips) if machine.torus else math.log2(chips)
    carried = 2 * share * moved.reduced + share * moved.gathered * chips
    return carried / link + moved.count * hops * machine.hop


def counted(config: ConfigDict) -> Exchange:
    """The collectives of a step, what is gathered counted for one chip's images.

    Raises ValueError where they grow otherwise with the number of chips than is assumed.
    """
    two, four = (exchange(compiled(config, devices)) for devices in (2, 4))
    if (two.count, two.reduced) != (four.count, four.reduced) or 2 * two.gathered != four.gathered:
        raise ValueError(f'collectives grow otherwise than assumed: {two}, {four}')
    return two._replace(gathered=two.gathered // 2)


def table() -> str:
    """A row for every machine, number of chips and kind of BatchNorm."""
    work = flops(config_of('global'))
    lines = [
        f'A step of 64 images a chip: {work / 1e12:.2f} TFLOP',
        '',
        '| batch_norm | collectives | MB reduced | MB a chip gathered | machine | chips '
        '| computing, ms | exchanging, ms | efficiency |',
        '|---' * 9 + '|',
    ]
    for batch_norm in ('global', 'device'):
        moved = counted(config_of(batch_norm))
        megabytes = f'{moved.reduced / 1e6:.1f} | {moved.gathered / 1e6:.2f}'
        for name, machine in MACHINES.items():
            computing = work / (UTILISED * machine.peak)
            for chips in CHIPS:
                exchanging = seconds(machine, moved, chips)
                share = computing / (computing + exchanging)
                cells = f'{1e3 * computing:.1f} | {1e3 * exchanging:.1f} | {share:.0%}'
                head = f'{batch_norm} | {moved.count} | {megabytes}'
                lines.append(f'| {head} | {name} | {chips} | {cells} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    force(4)
    print(table())
