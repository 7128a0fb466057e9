"""Embed the query and the gallery and rank them: python -m kd_jax.evaluate --run=DIR."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from absl import flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from kd_jax import (
    checkpoints,
    command,
    comparison,
    data,
    embedding,
    hosts,
    lineage,
    parallel,
    recipes,
    results,
    runs,
    scoring,
    trees,
)
from kd_jax.methods import Method
from kd_jax.runs import RunError
from kd_jax.scoring import Scored
from kd_jax.trees import Tree


def run(path: Path, config: ConfigDict, which: str = 'last') -> dict[str, Any]:
    """The summary of `scored_run`."""
    first, *others = (one.summary for one in scored_run(path, config, which))
    return first | {'also': others}


def scored_run(path: Path, config: ConfigDict, which: str = 'last') -> list[Scored]:
    """Score a run's checkpoint again, with the `data` and `evaluate` parts of `config`.

    RunError where another part of the config differs from the run's, or the size of the images.
    """
    runs.check_same(path, config, but=('data', 'evaluate', 'train', 'teachers'))
    restored = checkpoints.restore_network(path, which)
    lineage.check_size(str(path), restored.config, config)
    dataset = hosts.in_turn(lambda: data.load(**config.data))
    scoring.check(restored.config, dataset, **config.evaluate)
    logging.info('step %d of %s on\n%s', restored.step, path, data.describe(dataset))
    mesh = parallel.mesh()
    return scoring.scored(*opened(restored, mesh), dataset, mesh, **config.evaluate)


def against(config: ConfigDict, other: Path) -> ConfigDict:
    """The config by which another run is scored on the queries that `config` asks.

    Its images are read as it was trained on them and where `config` has them, and are ranked as
    there; how many shots it reads is its own. RunError where there is no such run.
    """
    found = runs.config_of(other)
    for part, own in (
        ('data', ('height', 'width', 'channels', 'resize', 'cache_dir')),
        ('evaluate', ('shots', 'shots_of', 'batch')),
    ):
        kept = {key: found[part][key] for key in own if key in found[part]}
        found[part] = ConfigDict({**config[part], **kept})
    return found


def opened(restored: checkpoints.Restored, mesh: Mesh) -> tuple[Callable, Tree]:
    """A restored network as it embeds for `score`: an `embedding.embedder` and its variables."""
    method = method_of(restored)
    variables = parallel.replicate(trees.join(student=restored.variables), mesh)
    return embedding.embedder(method, mesh), variables


def method_of(restored: checkpoints.Restored) -> Method:
    """The method of a restored network, to embed with."""
    with runs.of_this_version(restored.run):
        return recipes.method(restored.config, restored.network, placeholders(restored))


def placeholders(restored: checkpoints.Restored) -> dict:
    """In the place of each teacher the student's network: embedding asks none of them."""
    return dict.fromkeys(restored.config.teachers, restored.network)


def main() -> None:
    """The command line: --run=DIR [--against=DIR] [--config.evaluate.KEY=VALUE]."""
    flags.DEFINE_string('run', None, 'The run to score again.', required=True)
    flags.DEFINE_string('against', None, 'Another run, to be told which is better, and how surely.')
    flags.DEFINE_enum('checkpoint', 'last', checkpoints.WHICH, 'Which of their checkpoints.')
    try:
        changed = config_flags.DEFINE_config_dict('config', _config_of_flag())
    except command.NO_KEY as error:  # which reads the command line itself
        command.refuse_key(error)

    def told(_):
        config, which = changed.value, flags.FLAGS.checkpoint
        configs = {Path(flags.FLAGS.run): config}
        if flags.FLAGS.against:
            other = Path(flags.FLAGS.against)
            if other.resolve() == Path(flags.FLAGS.run).resolve():
                raise RunError(f'--against={other} is the run itself: give another')
            configs[other] = against(config, other)
        found = {path: scored_run(path, one, which) for path, one in configs.items()}
        print(text({_name(path, found): one for path, one in found.items()}))

    command.start(told)


def text(found: dict[str, list[Scored]]) -> str:
    """The table of one or two runs, intervals, and of two their difference."""
    rows = {
        name: one[0].summary | {'also': [other.summary for other in one[1:]]}
        for name, one in found.items()
    }
    parts = [results.table(rows), comparison.intervals(found)]
    if len(found) == 2:
        parts.append(comparison.differences(found))
    return '\n\n'.join(filter(None, parts))


def _name(path: Path, among: Iterable[Path]) -> str:
    """The run's directory, with those above it where another is called the same."""
    alike = [other for other in among if other.name == path.name]
    return path.name if len(alike) == 1 else str(path)


def _config_of_flag() -> ConfigDict:
    """The config of the run that the command line names, which the other flags may change."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--run', '-run', type=Path)
    run = parser.parse_known_args()[0].run
    try:
        return ConfigDict() if run is None else runs.config_of(run)
    except runs.RunError as error:
        sys.exit(f'kd_jax: {error}')


if __name__ == '__main__':
    main()
