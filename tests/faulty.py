"""Runs that something happens to, and how they end."""

import shutil

import jax
import numpy as np
import smoke

from kd_jax import checkpoints

NAME = 'supervised_carousel'


def unfinished(where, last=8):
    """A copy of a smoke run whose checkpoints end with a step, without its result."""
    run = smoke.copy(smoke.finished(NAME), where)
    (run / 'result.json').unlink()
    for step in steps_of(run):
        if step > last:
            shutil.rmtree(run / f'checkpoints/{step}')
    return run


def steps_of(run):
    return sorted(int(path.name) for path in (run / 'checkpoints').iterdir() if path.name.isdigit())


def assert_same_end(run):
    """The run ended bit by bit as one that nothing happened to."""
    whole = smoke.finished(NAME)
    assert steps_of(run) == steps_of(whole)
    assert (run / 'metrics.jsonl').read_bytes() == (whole / 'metrics.jsonl').read_bytes()
    assert smoke.result(run) == smoke.result(whole)
    for which in checkpoints.WHICH:
        found, wanted = (checkpoints.restore_network(one, which) for one in (run, whole))
        assert found.step == wanted.step
        for x, y in zip(*(jax.tree.leaves(one.variables) for one in (found, wanted))):
            np.testing.assert_array_equal(x, y)
