"""Run a config's smoke variant until an event, and be killed by it, as by kill -9.

    python tests/killed.py WORKDIR EVENT PATTERN COUNT

EVENT is one of Python's audit events, as os.rename; the COUNT-th whose arguments match PATTERN
kills. So a kill is always at the same place, however fast the machine is.
"""

import itertools
import os
import re
import signal
import sys

from configs import umts_carousel
from kd_jax import train

workdir, event, pattern, count = sys.argv[1:]
matches = itertools.count(1)


def kill(name, arguments):
    if name == event and re.search(pattern, str(arguments)) and next(matches) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(kill)
train.run(umts_carousel.get_config('smoke'), workdir)
