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
