"""Smoke runs that several test files look at, each trained once; take a `copy` to change one."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import jax
from filelock import FileLock
from ml_collections import ConfigDict

from kd_jax import checkpoints, recipes, runs, train

ROOT = Path(__file__).parents[1]
HOME = Path(os.environ['KD_JAX_TESTS']) / 'runs'  # of all workers of a session
HOME.mkdir(exist_ok=True)


def config(name: str = 'umts_carousel') -> ConfigDict:
    """The smoke variant of a config."""
    return import_module(f'configs.{name}').get_config('smoke')


@functools.cache
def finished(name: str = 'umts_carousel') -> Path:
    """The directory of a finished smoke run, to be left as it is."""
    return once(name, functools.partial(train.run, config(name)))


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A directory that is made by the first worker to ask for it, to be left as it is."""
    done = HOME / f'{name}.done'
    with FileLock(HOME / f'{name}.lock'):
        if not done.exists():
            make(HOME / name)
            done.touch()
    return HOME / name


def planted(run: Path) -> dict[int, dict]:
    """A run with two checkpoints of untrained networks, 4 the best and 8 the last.

    Returns the student's variables of both.
    """
    locked = config('supervised_carousel')
    runs.start(run, locked, {'classes': 8, 'data': ''})
    network = recipes.network(locked, classes=8)
    init = jax.jit(network.init)
    found = {step: init(jax.random.key(step), recipes.blank_input(locked)) for step in (4, 8)}
    with checkpoints.manager(run) as saved:
        for step, accuracy in ((4, 0.9), (8, 0.1)):
            items = {'student': found[step], 'training': {'step': step}}
            checkpoints.save(saved, step, items, accuracy)
    return found


def copy(run: Path, where: Path) -> Path:
    """A copy of a run, its files as old as they were."""
    return Path(shutil.copytree(run, where))


def files(directory: Path) -> dict[str, bytes]:
    """The content of every file in a directory."""
    paths = (path for path in sorted(directory.rglob('*')) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def written(directory: Path) -> dict[str, int]:
    """When every file of a directory was written."""
    paths = sorted(directory.rglob('*'))
    return {str(path.relative_to(directory)): path.stat().st_mtime_ns for path in paths}


def result(run: Path) -> dict:
    """What result.json says."""
    return json.loads((run / 'result.json').read_text())


def rows(run: Path) -> list[dict]:
    """What metrics.jsonl says."""
    return [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]


def python(*arguments: str | Path) -> subprocess.Popen:
    """Start Python as a user does, in the root of the repository."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each, once all have ended."""
    printed = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, printed)]
