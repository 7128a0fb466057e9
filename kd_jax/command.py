"""What every command line shares: flags, log lines, compiled programs kept on disk, errors."""

import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, logging

from kd_jax import hosts
from kd_jax.data.records import DataError
from kd_jax.runs import RunError

PACKAGE = str(Path(__file__).parent)
NO_KEY = AttributeError, KeyError  # of ml_collections, for a --config.KEY that is none
EXPECTED = RunError, DataError, FloatingPointError, OSError


def start(application: Callable[[list], None]) -> None:
    """Run an application with flags, log lines of kd_jax, and compiled programs kept on disk.

    What its user can put right is told in a line, with exit code 1; --verbosity=1 tells where it
    was raised too.
    """
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(lambda record: 'site-packages' not in record.pathname)
    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/kd_jax'))
    jax.config.update('jax_compilation_cache_dir', cache)
    app.run(partial(told, application), flags_parser=_parsed)


def told(application: Callable[[list], None], arguments: list) -> None:
    """Call the application; exit with a line for what is no bug, and raise all else.

    One of several processes ends at once, as others may wait for it.
    """
    try:
        application(arguments)
    except (Exception, KeyboardInterrupt) as error:
        expected = isinstance(error, EXPECTED) or _refusal(error)
        if hosts.are_several():
            lines = f'kd_jax: {error}\n' if expected else traceback.format_exc()
            hosts.leave(lines)
        if not expected:
            raise
        logging.debug('raised here', exc_info=True)
        sys.exit(f'kd_jax: {error}')


def _refusal(error: BaseException) -> bool:
    """Whether kd_jax itself refused a value; a ValueError of an operation is a bug."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = last.filename.startswith(PACKAGE) and last.line.startswith('raise ')
    return isinstance(error, ValueError | TypeError) and ours


def _parsed(arguments: list[str]) -> list[str]:
    """The arguments that are no flags; a misspelt --config.KEY is told in a line."""
    try:
        return app.parse_flags_with_usage(arguments)
    except NO_KEY as error:
        refuse_key(error)


def refuse_key(error: Exception) -> NoReturn:
    """Exit with a line that names the misspelt key of a --config flag, and what is like it."""
    if 'get_config' in str(error):
        sys.exit('kd_jax: the file that --config names has no function get_config')
    sys.exit(f'kd_jax: the config has no such key: {error.args[0]}')
