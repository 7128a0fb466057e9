"""What it costs to share a batch by several devices, measured on a CPU and on paper for pods.

    python -m experiments.bench_scaling [--devices=1,2,4,8] [--processes=2]

Measured: the same steps on the same batches of one global size by 1 to 8 forced CPU devices, by
two processes of one device, and by two of half as many each as the most, whose metrics must be
those of one device. As the cores are the same, time beyond one device's is the cost of cutting the
work up and of the collectives, which between processes go through a socket (gloo).

On paper (experiments/paper_scaling.py): the bytes of the collectives of a ResNet-50's step are
counted in the compiled program; with published speeds they give the efficiency of a pod.
"""

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
from absl import flags

from configs import supervised_carousel
from experiments import paper_scaling
from kd_jax import assembly, command, data, hosts, loop, parallel, recipes
from kd_jax.data import pipeline

DEVICES = flags.DEFINE_list('devices', ['1', '2', '4', '8'], 'Forced CPU devices of one process.')
PROCESSES = flags.DEFINE_integer('processes', 2, 'That share the most of them; 1 for none.')
PAPER = flags.DEFINE_bool('paper', True, 'Also the table for pods (experiments.paper_scaling).')
ROUNDS = flags.DEFINE_integer('rounds', 3, 'Times that every one is started, in turns.')

CHILD = 'KD_JAX_SCALING'  # what a child process measures, as JSON
STEPS, WARM = 6, 2
GRADIENT = 'gradient_norm'


def steps(devices: list[jax.Device]) -> dict[str, Any]:
    """Seconds a step on those devices, and the metrics of each."""
    config = supervised_carousel.get_config('')
    config.sampling.identities = 16
    config.optimizer.update(name='sgd', learning_rate=1e-3)  # Adam enlarges what rounding differs
    dataset = data.load(**config.data)
    method, augment, tx, plan, course, _ = assembly.assemble(config, dataset, {})
    mesh = parallel.mesh(devices)
    state = loop.create_state(method, tx, recipes.blank_batch(config), seed=0)
    state = parallel.replicate(state, mesh)
    step = loop.make_train_step(method, augment, tx, mesh, seed=0, steps=course.steps)
    feed = pipeline.batches(dataset.train, plan, 'device', 0, WARM + STEPS, mesh)
    batches, found, seconds = list(feed), [], []
    for batch in batches:
        began = time.perf_counter()
        state, metrics = step(state, {}, batch)
        found.append({name: float(value) for name, value in jax.device_get(metrics).items()})
        seconds.append(time.perf_counter() - began)
    return {'seconds': statistics.median(seconds[WARM:]), 'metrics': found}


def child() -> None:
    """Measure as one process of some, and print it."""
    asked = json.loads(os.environ[CHILD])
    paper_scaling.force(asked['devices'])
    if asked['processes'] > 1:
        hosts.join(f'localhost:{asked["port"]}', asked['processes'], asked['process'])
    print('FOUND', json.dumps(steps(jax.devices())))


def measured(devices: int, processes: int) -> dict[str, Any]:
    """What processes of so many devices each find, as the first tells it."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        shared = {'devices': devices, 'processes': processes, 'port': free.getsockname()[1]}
    started = [
        subprocess.Popen(
            [sys.executable, '-m', 'experiments.bench_scaling'],
            env=os.environ | {CHILD: json.dumps({**shared, 'process': number})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        texts = [process.communicate(timeout=900) for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        sys.exit(texts[0][1] + texts[-1][1])
    line = next(line for line in texts[0][0].splitlines() if line.startswith('FOUND'))
    return json.loads(line.removeprefix('FOUND'))


def apart(found: list[dict], wanted: list[dict]) -> tuple[float, float]:
    """The largest difference of losses and of the gradient's norm, as shares of those above 1.

    A gradient has edges, as of ReLUs and of which image is the hardest; a loss has none.
    """
    differences: dict[bool, float] = {True: 0.0, False: 0.0}
    for row, other in zip(found, wanted):
        for name, value in other.items():
            share = abs(row[name] - value) / max(1.0, abs(value))
            differences[name == GRADIENT] = max(differences[name == GRADIENT], share)
    return differences[False], differences[True]


def kinds() -> list[tuple[int, int]]:
    """What is measured: how many devices each of how many processes has."""
    alone, processes = [int(count) for count in DEVICES.value], PROCESSES.value
    shares = sorted({1, max(alone) // processes or 1}) if processes > 1 else []
    return [(devices, 1) for devices in alone] + [(devices, processes) for devices in shares]


def table() -> str:
    """A row for every number of devices and processes."""
    rounds = [{kind: measured(*kind) for kind in kinds()} for _ in range(ROUNDS.value)]
    one = kinds()[0]
    lines = [
        '| processes × devices | ms a step | over one device '
        '| losses differ by | gradient norm by |',
        '|---' * 5 + '|',
    ]
    for kind in kinds():
        ratios = sorted(found[kind]['seconds'] / found[one]['seconds'] for found in rounds)
        taken = 1e3 * statistics.median(found[kind]['seconds'] for found in rounds)
        differ = apart(rounds[0][kind]['metrics'], rounds[0][one]['metrics'])
        cells = ' | '.join(f'{number:.1e}' for number in differ)
        spread = f'{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})'
        lines.append(f'| {kind[1]} × {kind[0]} | {taken:.1f} | {spread} | {cells} |')
    return '\n'.join(lines)


def main(_: list) -> None:
    """Print both tables."""
    paper_scaling.force(4)
    print(
        f'{os.cpu_count()} cores, jax {jax.__version__}, numpy {np.__version__}, '
        f'Python {platform.python_version()}'
    )
    print(table(), flush=True)
    if PAPER.value:
        print(paper_scaling.table())


if __name__ == '__main__':
    child() if CHILD in os.environ else command.start(main)
