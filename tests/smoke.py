"""Smoke runs that several test files look at, each trained once; take a `copy` to change one."""

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import jax
from ml_collections import ConfigDict

from kd_jax import train

ROOT = Path(__file__).parents[1]
HOME = Path(tempfile.mkdtemp(prefix='kd_jax_tests_'))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

# What one test has compiled no other compiles again, in this process or in another.
CACHE = {'jax_compilation_cache_dir': str(HOME / 'compiled')}
CACHE |= {'jax_persistent_cache_min_compile_time_secs': 0}
for option, value in CACHE.items():
    jax.config.update(option, value)
ENVIRONMENT = os.environ | {option.upper(): str(value) for option, value in CACHE.items()}
ENVIRONMENT |= {'PYTHONPATH': str(ROOT)}


def config(name: str = 'umts_carousel') -> ConfigDict:
    """The smoke variant of a config."""
    return import_module(f'configs.{name}').get_config('smoke')


@functools.cache
def finished(name: str = 'umts_carousel') -> Path:
    """The directory of a finished smoke run, to be left as it is."""
    train.run(config(name), HOME / name)
    return HOME / name


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
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, what was printed, and what was printed to stderr without the log."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, re.sub(r'(?m)^(I\d{4}|WARNING:).*\n', '', err)
