"""Run a config's smoke variant until an event, and be killed by it, as by kill -9.

    python tests/killed.py CONFIG WORKDIR EVENT PATTERN COUNT [KEY=NUMBER …]

EVENT is one of Python's audit events, as os.rename; the COUNT-th whose arguments match PATTERN
kills. So a kill is always at the same place, however fast the machine is.
"""

import itertools
import json
import os
import re
import signal
import sys
from importlib import import_module

from kd_jax import train

name, workdir, event, pattern, count, *changes = sys.argv[1:]
matches = itertools.count(1)


def kill(happened, arguments):
    if happened == event and re.search(pattern, str(arguments)) and next(matches) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)


config = import_module(f'configs.{name}').get_config('smoke')
for key, value in (change.split('=') for change in changes):
    config.update_from_flattened_dict({key: json.loads(value)})
sys.addaudithook(kill)
train.run(config, workdir)
