"""The known networks as a table: python -m kd_jax.networks."""

import argparse

import jax
import jax.numpy as jnp

from kd_jax import networks
from kd_jax.networks import cost

HEIGHT, WIDTH = 256, 128
OPTIONS = {'width': 64, 'stem': 'imagenet', 'last_block_relu': 'all', 'neck': 'bnneck'}
OPTIONS |= {'neck_width': 512, 'inflate': 1, 'dtype': 'float32', 'conv': 'xla'}


def main() -> None:
    """Print a row for every network."""
    parser = argparse.ArgumentParser(prog='python -m kd_jax.networks', description=__doc__)
    parser.add_argument('--last_stride', type=int, default=1, choices=networks.WORDS['last_stride'])
    last_stride = parser.parse_args().last_stride
    print(f'Backbones alone, at {HEIGHT}x{WIDTH} pixels and last stride {last_stride}.')
    print(f'{"":14}{"parameters":>12}{"multiply-adds":>16}   height x width x channels of stages')
    for name in networks.BACKBONES:
        print(row(name, last_stride))


def row(name: str, last_stride: int) -> str:
    """One line of the table."""
    network = networks.create(
        name, classes=1, last_stride=last_stride, batch_norm='device', **OPTIONS
    )
    image = jax.ShapeDtypeStruct((1, HEIGHT, WIDTH, 3), jnp.float32)
    outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), image)
    parameters = cost.backbone_parameters(variables)
    # The classifier of one identity hardly counts.
    work = cost.multiply_adds(network.apply, variables, image)
    stages = ('x'.join(map(str, stage.shape[1:])) for stage in outputs.stages)
    return f'{name:14}{parameters:12,}{work:16,}   {"  ".join(stages)}'


if __name__ == '__main__':
    main()
