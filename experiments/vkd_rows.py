"""The rows that VKD's experiments share: a teacher, its student, and the student's controls.

Where `config.network.pretrained` has {name}, that is the name of the network: every backbone has
weights of its own.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from absl import app
from ml_collections import ConfigDict

from experiments import rows
from kd_jax.networks import BACKBONES
from kd_jax.networks.network import PUBLISHED_WIDTH

TEACHER, ALONE, STUDENT = 'teacher', 'not distilled', 'VKD'
NOTHING = {'method.logits_weight': 0.0, 'method.distance_weight': 0.0}
"""No distillation: the same student from the same start, on the same views."""


class Network(NamedTuple):
    """A backbone and its width, called NAME where it is as wide as published, else NAME/WIDTH."""

    name: str
    width: int

    def __str__(self) -> str:
        return self.name if self.width == PUBLISHED_WIDTH else f'{self.name}/{self.width}'


def config() -> ConfigDict:
    """The config that the rows change; UsageError for one that is not VKD's, or has a run in it."""
    found = rows.CONFIG.value
    if found.method.name != 'vkd':
        raise app.UsageError(f'--config: its method is {found.method.name}, not vkd')
    if not ('teacher' in found.teachers and isinstance(found.teachers.teacher, ConfigDict)):
        raise app.UsageError(
            '--config.teachers: here the teacher is a row of the table, trained from its config'
        )
    return found


def network_of(config: ConfigDict) -> Network:
    """The network of a config."""
    return Network(config.network.name, config.network.width)


def named(text: str, flag: str, config: ConfigDict) -> Network:
    """The network that a flag gives as NAME/WIDTH, or as NAME in the width of the config."""
    name, apart, width = text.partition('/')
    width = width if apart else str(config.network.width)
    if name not in BACKBONES or not width.isdecimal() or int(width) < 1:
        known = ', '.join(BACKBONES)
        raise app.UsageError(f'--{flag}: {text!r} is no NAME or NAME/WIDTH, NAME one of {known}')
    return Network(name, int(width))


def with_network(config: ConfigDict, network: Network) -> ConfigDict:
    """The config with that network, its teacher's too; DenseNet-121 with VKD's last stride."""
    for one in (config, config.teachers.teacher):
        one.network.update(network._asdict())
        one.network.pretrained = one.network.pretrained.replace('{name}', network.name)
        if network.name == 'densenet121':
            one.network.last_stride = 2  # VKD's code sets it to 1 in every network but this one
    return config


def teacher(config: ConfigDict, network: Network) -> ConfigDict:
    """The teacher, a run of its own."""
    return with_network(config, network).teachers.teacher


def student(
    config: ConfigDict,
    network: Network,
    taught_by: str,
    workdir: Path,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> ConfigDict:
    """The student of the row `taught_by`, with `changes` by their dotted keys."""
    config = with_network(config, network)
    config.update_from_flattened_dict(changes)
    return rows.taught_by(taught_by, config, workdir)


def of_networks(networks: list[Network], workdir: Path) -> dict[str, rows.Row]:
    """The rows of each network by their names, teachers before their students."""
    found = {}
    for network in networks:
        by = f'{network} {TEACHER}'
        taught = partial(student, network=network, taught_by=by, workdir=workdir)
        found[by] = partial(teacher, network=network)
        found[f'{network} {ALONE}'] = partial(taught, changes=NOTHING)
        found[f'{network} {STUDENT}'] = taught
    return found
