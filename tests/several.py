"""What the processes of tests do, each one of several or alone.

    python tests/several.py PROCESS PROCESSES PORT WHAT WHERE …

A call of a function of this file, on runs in WHERE.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import jax
import numpy as np

from kd_jax import (
    command,
    data,
    embedding,
    evaluate,
    hosts,
    logs,
    parallel,
    preemption,
    runs,
    train,
)
from kd_jax.runs import RunError

NAME = 'supervised_carousel'


def config_of(name):
    return import_module(f'configs.{name}').get_config('smoke')


def students(where, *taught):
    """The students of smoke configs; CONFIG=RUN names whose teachers teach, CONFIG= none."""
    for name, run in (one.split('=') for one in taught):
        config = config_of(name)
        if run:
            config.teachers = {teacher: f'{run}/teachers/{teacher}' for teacher in config.teachers}
        train.run(config, where / name)


def scored_again(where):
    """Both score a run that `students` trained."""
    found = evaluate.run(where / NAME, runs.config_of(where / NAME))
    print('TOLD', jax.process_index(), 'scored', json.dumps(found))


def refusals(where):
    """What is refused in one process is refused in all, before anything is written."""
    number = jax.process_index()
    seeds = config_of(NAME)
    seeds.seed = number
    batch = config_of(NAME)
    batch.sampling.identities = 5
    missing = config_of(NAME)
    if number == 1:
        missing.data.train_identities = -1
    for label, config in (('seeds', seeds), ('batch', batch), ('missing', missing)):
        refused(label, lambda config=config: train.run(config, where / 'refused'))
    refused('first', lambda: hosts.of_first(lambda: 1 / 0))
    assert not (where / 'refused').exists()
    print('TOLD', number, 'of first', hosts.of_first(lambda: {'from': number}))
    order = hosts.in_turn(lambda: (where / 'first').exists() or (where / 'first').touch())
    print('TOLD', number, 'in turn', order)


def refused(label, call):
    try:
        call()
    except (RunError, ValueError, ZeroDivisionError) as error:
        print('TOLD', jax.process_index(), label, type(error).__name__, error)


def rows(where):
    """Every process reads its own rows, and has all embeddings."""
    asked, mesh = [], parallel.mesh()
    read = data.load(**config_of(NAME).data).query.pixels.read

    def noted(rows):
        asked.extend(rows.tolist())
        return read(rows)

    def summed(_, images):
        return images.astype(float).sum((1, 2, 3, 4))[:, None]

    embedded = partial(parallel.spread(summed, mesh), 0)
    found = embedding.embed_rows(embedded, noted, np.arange(7)[:, None], 8, mesh)
    wanted = read(np.arange(7)).reshape(7, -1).sum(axis=1, dtype=float)[:, None]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    print('TOLD', jax.process_index(), 'rows', asked)


def goes_on(where):
    """A run that one process began, and one whose finished teacher is damaged."""
    train.run(config_of(NAME), where / 'begun')
    train.run(config_of('umts_carousel'), where / 'taught')


def stopped(where):
    """The second process is told to stop before its first step, and JAX takes a second to note it.

    A run that one process began and that goes on: JAX is not asked by the numbers of its steps.
    """
    add = logs.Log.add

    def slowly(self, *given):
        time.sleep(1)
        add(self, *given)

    logs.Log.add = slowly
    if jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    train.run(config_of(NAME), where / 'begun')


def stopped_scoring(where):
    """The second process is told to stop while the last step is scored."""
    batches = embedding.batches

    def slowly(*given):
        if jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        for found in batches(*given):
            time.sleep(2)
            yield found

    embedding.batches = slowly
    train.run(config_of(NAME), where / 'begun')


def unshared(where):
    """Each process has a run directory of its own, as without a file system that all see."""
    runs.SEEN_SECONDS = 2
    refused('unshared', lambda: train.run(config_of(NAME), where / str(jax.process_index())))


def unreadable(where):
    """The second process can not read an image that it scores."""
    if jax.process_index() == 1:
        embedding.batches = lambda *_: fail()
    command.told(lambda _: train.run(config_of(NAME), where / 'lost'), [])


def lost(where):
    """The second process fails after step 3; the first, which waits for it, ends too."""
    at_step(3, fail)
    command.told(lambda _: train.run(config_of(NAME), where / 'lost'), [])


def fail():
    raise RunError('the disk of this host is gone')


def at_step(number, act):
    """Have the second process do something after a step."""
    add = logs.Log.add

    def told(self, step, *rest):
        add(self, step, *rest)
        if step == number and jax.process_index() == 1:
            act()

    logs.Log.add = told


if __name__ == '__main__':
    process, processes, port, what, where, *taught = sys.argv[1:]
    jax.distributed.initialize = partial(jax.distributed.initialize, heartbeat_timeout_seconds=10)
    hosts.join(f'localhost:{port}', int(processes), int(process))
    if not hosts.are_several():
        preemption.watch()
    for one in what.split(','):
        globals()[one](Path(where), *(taught if one == 'students' else ()))
