"""The rows that VKD's experiments share: a teacher, its student, and the student's controls.

A network is given as NAME or NAME/WIDTH. Where `config.network.pretrained` has {name}, that is
the name of the network: every backbone has weights of its own.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import rows


def network_of(config: ConfigDict) -> str:
    """The network of a config, as it is given to these experiments."""
    return f'{config.network.name}/{config.network.width}'


def with_network(config: ConfigDict, network: str) -> ConfigDict:
    """The config with that network, its teacher's too where the teacher is a config."""
    name, _, width = network.partition('/')
    for one in (config, config.teachers.teacher):
        one.network.name = name
        one.network.width = int(width or one.network.width)
        one.network.pretrained = one.network.pretrained.format(name=name)
    return config


def teacher(config: ConfigDict, network: str) -> ConfigDict:
    """The teacher, a run of its own."""
    return with_network(config, network).teachers.teacher


def student(
    config: ConfigDict, network: str, taught_by: str, workdir: Path, **method
) -> ConfigDict:
    """The student of the row `taught_by`, with some of method's options changed."""
    config = with_network(config, network)
    config.method.update(method)
    return rows.taught_by(taught_by, config, workdir)


NOTHING = {'logits_weight': 0.0, 'distance_weight': 0.0}
"""No distillation: the same student from the same start, on the same views."""
