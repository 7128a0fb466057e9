"""An experiment as its command line runs it, in the process of the tests."""

import contextlib
import io
import sys
import warnings
from pathlib import Path
from types import ModuleType
from unittest import mock

import smoke
from absl import flags
from absl.testing import flagsaver


def experiment(module: ModuleType, workdir: Path, *arguments: str, config: str) -> str:
    """What it prints, on the smoke variant of a config, for seed 0 unless told otherwise."""
    path = smoke.ROOT / f'configs/{config}.py:smoke'
    command = ['x', f'--workdir={workdir}', '--seeds=0', f'--config={path}', *arguments]
    with (
        flagsaver.flagsaver(),
        mock.patch.object(sys, 'argv', command),  # where ml_collections looks for --config.KEY
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', r'the load_module\(\)')  # of ml_collections
            flags.FLAGS(command)
        module.main(None)
    return printed.getvalue()


def cells(printed, ranking):
    """The cells of the table of a ranking by the name of their row."""
    table = next(part for part in printed.split('\n\n') if part.startswith(f'| {ranking} | seeds'))
    lines = [line.strip('| ').split(' | ') for line in table.splitlines()[2:]]
    return {name: rest for name, *rest in lines}


def flat(tree, prefix=''):
    """Leaves by dotted path."""
    if not hasattr(tree, 'items'):
        return {prefix: tree}
    parts = (flat(tree[key], f'{prefix}.{key}' if prefix else key) for key in tree)
    return {key: value for part in parts for key, value in part.items()}
