"""The options of a data set's reader as flags of a command line: `--detected`, `--sizes=800,1600`.

A command finds the data set first (`named`), then adds the options that its reader has; a
reader's `root` is left to the command, which knows what it calls that folder.
"""

import argparse
import contextlib
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

from kd_jax import data
from kd_jax.data.choices import shown
from kd_jax.data.records import DataError

PREFIX = 'reader_'  # of an option among the parsed arguments, lest it meet the command's own
WORDS = {'true': True, 'false': False}


@contextlib.contextmanager
def own_flags() -> Iterator[None]:
    """In the messages of errors, the flags of this command for those of `kd_jax.main`."""
    try:
        yield
    except (DataError, ValueError) as error:
        text = str(error).replace('--config.data.', '--')
        text = re.sub(r'(--config\.|\b)evaluate\.(protocol|same_camera)\b', r'--\2', text)
        if isinstance(error, DataError):
            raise DataError(text) from error
        raise ValueError(text) from error


def named(arguments: Sequence[str] | None = None) -> str:
    """The data set that a command line names with --dataset, or ''; the program's own by default.

    Raises ValueError naming the choices if there is no such data set.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--dataset', nargs='?', default='')
    name = parser.parse_known_args(arguments)[0].dataset or ''
    if name:
        data.reader(name)
    return name


def reader_defaults(name: str) -> dict[str, Any]:
    """The options that a data set's reader takes besides `root`, with their defaults."""
    return {key: p.default for key, p in _parameters(name).items() if key != 'root'}


def needs_root(name: str) -> bool:
    """Whether a data set lies in a folder that its user must name."""
    return 'root' in _parameters(name)


def add_reader_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Gives a parser a flag for each option of a data set's reader, of its default's type.

    A switch is given as `--detected` or `--detected=false`, several numbers as `800,1600`.
    """
    about = inspect.getdoc(data.reader(name).read)
    group = parser.add_argument_group(f'options of {name}', about)
    for key, default in reader_defaults(name).items():
        group.add_argument(
            f'--{key}',
            dest=PREFIX + key,
            default=default,
            help=f'by default {shown(default) or "none"}'.replace('%', '%%'),
            **_kind(default),
        )


def reader_options(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """The values of all options that `add_reader_options` added, defaults included."""
    return {key: getattr(args, PREFIX + key) for key in reader_defaults(name)}


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(data.reader(name).read).parameters)


def _kind(default: Any) -> dict[str, Any]:
    """How argparse is to read an option with that default."""
    if isinstance(default, bool):
        return {'type': _switch, 'nargs': '?', 'const': True, 'metavar': 'true|false'}
    if isinstance(default, tuple):
        one = type(default[0]) if default else str
        return {'type': lambda text: _several(text, one), 'metavar': 'A,B,...'}
    if isinstance(default, int | float):
        return {'type': type(default), 'metavar': 'NUMBER'}
    return {'metavar': 'WORD'}


def _switch(text: str) -> bool:
    """True or False; argparse tells of anything else."""
    if text.lower() not in WORDS:
        raise argparse.ArgumentTypeError(f'{text!r}: choose true or false')
    return WORDS[text.lower()]


def _several(text: str, one: type) -> tuple:
    """Values of one type with commas between; nothing is no value."""
    try:
        return tuple(one(part) for part in text.split(',') if part)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}: give them like 800,1600') from None
