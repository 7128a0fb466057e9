"""What a feed costs: the time of a step on its batches over that of a step on one that is there.

    python -m experiments.bench_feed [--networks=tiny,middle] [--feeds=device,cached,stream]

The train step is that of every run, method `supervised`. JPEGs of 256×128 pixels are planted in
Market-1501's layout and read through kd_jax.data as a run reads them; caches are written before the
clock starts. All take turns, in another order every round, so that a noisy machine is noisy for
all. A turn is of twenty steps of which only the last is waited for, as in the loop nothing waits;
some before them are not timed, as batches were read ahead while others had their turns. Steps of
the mid-sized network take long, and the machine changes while twenty run: there a turn is one step,
behind which less is hidden than in the loop. Ratios are of the means of all rounds, so that a read
of many batches at once counts; the interval is by bootstrap over rounds, 95 %. `resnet50` is for
accelerators: bfloat16.

Beside it: what a feed computes for a batch when nothing else runs.
"""

import itertools
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict
from scipy import stats

from configs import supervised_folder
from experiments import bench_cache, turns
from kd_jax import assembly, command, data, loop, parallel, recipes
from kd_jax.data import pipeline
from kd_jax.runs import RunError
from kd_jax.views import Batch

NETWORKS = flags.DEFINE_list('networks', ['tiny', 'middle'], 'Of tiny, middle and resnet50.')
FEEDS = flags.DEFINE_list('feeds', ['device', 'cached', 'stream'], 'Those to measure.')
IMAGES = flags.DEFINE_integer('images', 4000, 'JPEGs that are planted.')
ROUNDS = flags.DEFINE_integer('rounds', 40, 'Turns that each feed takes.')

RESIDENT = 'a batch that is there'
UNTIMED = pipeline.AHEAD + pipeline.READERS  # steps at the start of a turn
ALONE = 100  # batches of a feed by which nobody trains, timed after as many that are not
FOREVER = 10**6


class Setting(NamedTuple):
    """A network, the size of its images, and the steps of a turn: untimed ones and timed ones."""

    network: str
    width: int
    stem: str
    size: tuple[int, int]
    untimed: int
    steps: int
    dtype: str = 'float32'


SETTINGS = {
    'tiny': Setting('resnet10', 16, 'small', (32, 32), UNTIMED, 20),
    'middle': Setting('resnet18', 32, 'small', (64, 32), 0, 1),
    'resnet50': Setting('resnet50', 64, 'imagenet', (256, 128), UNTIMED, 20, 'bfloat16'),
}


def config_of(setting: Setting, root: Path, feed: str) -> ConfigDict:
    """The config of a run on planted images."""
    config = supervised_folder.get_config('')
    config.data.root, config.data.feed = str(root), feed
    config.data.height, config.data.width = setting.size
    config.network.update(name=setting.network, width=setting.width, stem=setting.stem)
    config.network.update(dtype=setting.dtype, neck='bnneck')
    return config


class Training:
    """One state that all feeds train further, by one compiled step."""

    def __init__(self, setting: Setting, root: Path):
        config = config_of(setting, root, 'cached')
        dataset = data.load(**config.data)
        self.setting = setting
        self.images = config.sampling.identities * config.sampling.shots
        self.parts = assembly.assemble(config, dataset, {})
        self.mesh = parallel.mesh()
        method, augment, tx, *_ = self.parts
        state = loop.create_state(method, tx, recipes.blank_batch(config), seed=0)
        self.state = parallel.replicate(state, self.mesh)
        self.step = loop.make_train_step(method, augment, tx, self.mesh, seed=0, steps=FOREVER)

    def feed(self, root: Path, name: str) -> Iterator[Batch]:
        """The endless batches of a feed."""
        dataset = data.load(**config_of(self.setting, root, name).data)
        split, plan = dataset.train, self.parts.plan
        return pipeline.batches(split, plan, name, 0, FOREVER, self.mesh)

    def turn(self, batches: Iterator[Batch]) -> float:
        """Seconds a step on the next batches, until the last one ended."""
        self._steps(batches, self.setting.untimed)
        with turns.Stopwatch() as watch:
            self._steps(batches, self.setting.steps)
        return watch.seconds / self.setting.steps

    def _steps(self, batches: Iterator[Batch], count: int) -> None:
        metrics = None
        for batch in itertools.islice(batches, count):
            self.state, metrics = self.step(self.state, {}, batch)
        jax.device_get(metrics)


def take(training: Training, feeds: dict[str, Iterator[Batch]], rounds: int) -> turns.Times:
    """Seconds a step on every feed, a turn each in every round, after two to compile the step."""
    times: turns.Times = {name: [] for name in feeds}
    rng = np.random.default_rng(0)
    training.turn(feeds[RESIDENT])
    training.turn(feeds[RESIDENT])  # on a state that a step returned
    for count in range(rounds):
        logging.log_every_n_seconds(logging.INFO, 'round %d of %d', 30, count + 1, rounds)
        for name in rng.permutation(list(feeds)).tolist():
            times[name].append(training.turn(feeds[name]))
    return times


def slower(times: turns.Times, feed: str) -> str:
    """The mean of a feed's times over that of a batch that is there, and its interval."""
    own, resident = np.array(times[feed]), np.array(times[RESIDENT])
    if len(own) == 1:
        return f'{_ratio(own, resident):.3f}'
    samples = {'paired': True, 'batch': 500, 'method': 'percentile', 'rng': 0}
    low, high = stats.bootstrap((own, resident), _ratio, **samples).confidence_interval
    return f'{_ratio(own, resident):.3f} ({low:.3f} to {high:.3f})'


def _ratio(own: np.ndarray, resident: np.ndarray, axis: int = -1) -> np.ndarray:
    return own.mean(axis) / resident.mean(axis)


def alone(batches: Iterator[Batch]) -> float:
    """CPU milliseconds of a batch, all threads together."""
    for _ in range(2):
        began = time.process_time()
        for batch in itertools.islice(batches, ALONE):
            jax.block_until_ready(batch)
    return 1e3 * (time.process_time() - began) / ALONE


def measured(name: str, root: Path) -> str:
    """The rows of a table for a network."""
    setting = SETTINGS[name]
    training = Training(setting, root)
    costs = {feed: alone(training.feed(root, feed)) for feed in FEEDS.value}
    feeds = {RESIDENT: itertools.repeat(next(training.feed(root, 'device')))}
    feeds |= {feed: training.feed(root, feed) for feed in FEEDS.value}
    times = take(training, feeds, ROUNDS.value)
    step = 1e3 * np.mean(times[RESIDENT])
    label = f'{setting.network}, width {setting.width}, {setting.size[0]}×{setting.size[1]}'
    lines = [f'| {label}, {training.images} images | {RESIDENT} | {step:.1f} | 1 | |']
    for feed, cost in costs.items():
        taken = 1e3 * np.mean(times[feed])
        lines.append(f'| | `{feed}` | {taken:.1f} | {slower(times, feed)} | {cost:.2f} |')
    return '\n'.join(lines)


def main(_: list) -> None:
    """Print a Markdown table."""
    unknown = [n for n in NETWORKS.value if n not in SETTINGS]
    unknown += [feed for feed in FEEDS.value if feed not in data.FEEDS]
    if unknown:
        raise RunError(f'{", ".join(unknown)}: networks {", ".join(SETTINGS)}, feeds {data.FEEDS}')
    with tempfile.TemporaryDirectory() as folder:
        bench_cache.plant(Path(folder), IMAGES.value)
        device = jax.devices()[0]
        print(
            f'{device.device_kind}, {len(jax.devices())} devices, {os.cpu_count()} cores, '
            f'jax {jax.__version__}, Python {platform.python_version()}'
        )
        print('| a step of | on | ms | over a batch that is there | CPU ms a batch, alone |')
        print('|---' * 5 + '|')
        for name in NETWORKS.value:
            print(measured(name, Path(folder)), flush=True)


if __name__ == '__main__':
    command.start(main)
