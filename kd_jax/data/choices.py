"""The options of a reader in words: in the name of a folder, and on a command line."""

import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any


def differing(read: Callable, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a reader that differ from its defaults, sorted, and without `root`.

    Raises TypeError for an option that the reader does not have.
    """
    bound = inspect.signature(read).bind_partial(**options).arguments
    defaults = {key: p.default for key, p in inspect.signature(read).parameters.items()}
    return {
        key: value
        for key, value in sorted(bound.items())
        if key != 'root' and _word(value) != _word(defaults[key])
    }


def config_name(read: Callable, options: Mapping[str, Any]) -> str:
    """The options of a reader in a word: `default`, or those that differ, as `detected_True`.

    Raises TypeError for an option that the reader does not have.
    """
    others = sorted(f'{key}_{_word(value)}' for key, value in differing(read, options).items())
    return '-'.join(others) or 'default'


def command(name: str, read: Callable, options: Mapping[str, Any], data_dir: str) -> str:
    """The command that prepares a data set with these options; DIR is left to be filled in."""
    given = {'dataset': name}
    given |= {key: shown(value) for key, value in differing(read, options).items()}
    given |= {'manual_dir': 'DIR', 'data_dir': data_dir}
    flags = [f'--{key}={value}' for key, value in given.items()]
    return shlex.join(['python', '-m', 'kd_jax.data.prepare', *flags])


def shown(value: Any) -> str:
    """An option's value as a command line takes it: `true`, `800,1600`."""
    if isinstance(value, bool):
        return str(value).lower()
    return ','.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _word(value: Any) -> str:
    """A value as a part of a folder's name."""
    values = value if isinstance(value, list | tuple) else [value]
    return re.sub(r'[^\w.]+', '_', '_'.join(map(str, values)))
