"""The networks of --networks, and their trained rows: for VKD's table 1 and what looks at its runs.

A network is NAME/WIDTH, or NAME in the width of the config.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from experiments import rows, vkd_rows
from kd_jax import checkpoints, data, evaluate, parallel
from kd_jax.trees import Tree

NETWORKS = flags.DEFINE_list('networks', [], 'Networks; that of the config without it.')


class Opened(NamedTuple):
    """A trained row of a seed, as it embeds for `scoring.score`, and its own options for it."""

    row: str
    seed: int
    network: tuple[Callable, Tree]
    options: ConfigDict


def chosen() -> list[vkd_rows.Network]:
    """The networks of --networks, each once; that of the config without it."""
    config = vkd_rows.config()
    given = [vkd_rows.named(text, NETWORKS.name, config) for text in NETWORKS.value]
    return list(dict.fromkeys(given)) or [vkd_rows.network_of(config)]


def check() -> None:
    """Raise the UsageError of a flag before a data set is read."""
    rows.chosen(vkd_rows.of_networks(chosen(), Path(rows.WORKDIR.value)))
    rows.numbers(rows.SEEDS, 0)


def opened(dataset: data.Dataset) -> Iterator[Opened]:
    """Every row of the chosen networks and every seed, once all are trained or found."""
    workdir = Path(rows.WORKDIR.value)
    found = rows.run(vkd_rows.of_networks(chosen(), workdir), workdir, dataset)
    for row, seeds in found.items():
        for seed in seeds:
            restored = checkpoints.restore_network(rows.run_of(row, seed, workdir))
            network = evaluate.opened(restored, parallel.mesh())
            yield Opened(row, seed, network, restored.config.evaluate)
