"""Several processes as one run, on loopback; several.py is what they do."""

import json
import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import smoke
from faulty import NAME, steps_of, unfinished
from test_train import CONFIGS

from kd_jax import checkpoints, hosts, preemption, runs, train, trees
from kd_jax.runs import RunError

LIMIT = 1e-5
LIMIT_SECONDS = 1200  # on a machine that does much else
FASTER = ' --xla_cpu_use_fusion_emitters=false'  # a step compiles in a third; it rounds otherwise


def started(what, where, devices, processes, *rest):
    """Processes that do something together, of so many devices each; their exit codes and texts."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = str(free.getsockname()[1])
    flags = os.environ['XLA_FLAGS'].replace('count=4', f'count={devices}') + FASTER
    command = [sys.executable, 'tests/several.py']
    found = [
        subprocess.Popen(
            [*command, str(number), str(processes), port, what, str(where), *rest],
            cwd=smoke.ROOT,
            env=os.environ | {'PYTHONPATH': str(smoke.ROOT), 'XLA_FLAGS': flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        texts = [process.communicate(timeout=LIMIT_SECONDS)[0] for process in found]
    finally:
        for process in found:
            process.kill()
    return [process.returncode for process in found], texts


def begun(where):
    """A run of one process of four devices, of which the last checkpoint is damaged."""
    run = unfinished(where)
    (run / 'checkpoints/8/student/manifest.ocdbt').write_bytes(b'')
    return run


def damaged_teacher(run):
    """A UMTS run that only lacks its result, and of its T-net the last checkpoint."""
    smoke.copy(smoke.finished('umts_carousel'), run)
    (run / 'result.json').unlink()
    (run / 'teachers/teacher/checkpoints/8/student/manifest.ocdbt').write_bytes(b'')


@pytest.fixture(scope='module')
def taught():
    """What students are trained of: those that have teachers are taught by a finished run's."""
    return [
        f'{name}={smoke.finished(name) if smoke.config(name).teachers else ""}' for name in CONFIGS
    ]


@pytest.fixture(scope='module')
def pair(tmp_path_factory, taught):
    """What two processes of two devices did, and what they said."""
    where = tmp_path_factory.mktemp('pair')
    begun(where / 'begun')
    damaged_teacher(where / 'taught')
    codes, texts = started(
        'rows,refusals,unshared,goes_on,students,scored_again', where, 2, 2, *taught
    )
    assert codes == [0, 0], texts[0] + texts[1]
    return where, texts


@pytest.fixture(scope='module')
def alone(tmp_path_factory, taught):
    """What one process of one device did."""
    where = tmp_path_factory.mktemp('alone')
    codes, texts = started('students', where, 1, 1, *taught)
    assert codes == [0], texts[0]
    return where


def told(texts):
    """What the processes say by the label."""
    lines = [
        [line.split(' ', 2)[2] for line in text.splitlines() if line.startswith('TOLD')]
        for text in texts
    ]
    return lines


def assert_close(run, other):
    """Losses, scores and parameters of two runs are the same but for rounding."""
    found, wanted = (trees.named(checkpoints.restore_network(r).variables) for r in (run, other))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=LIMIT, err_msg=name)
    rows, others = runs.metrics_of(run), runs.metrics_of(other)
    assert [row.keys() for row in rows] == [row.keys() for row in others]
    for row, wanted in zip(rows, others):
        for key in row.keys() - {'evaluation'}:
            assert row[key] == pytest.approx(wanted[key], rel=LIMIT, abs=LIMIT), key
        if 'evaluation' in row:  # places in a ranking: rounding may make two images change theirs
            assert row['evaluation']['mAP'] == pytest.approx(wanted['evaluation']['mAP'], abs=1e-3)


@pytest.mark.parametrize('name', CONFIGS)
def test_two_processes_of_two_devices_train_as_one_of_four(pair, name):
    assert_close(pair[0] / name, smoke.finished(name))


@pytest.mark.parametrize('name', CONFIGS)
def test_one_device_trains_as_four(alone, name):
    assert_close(alone / name, smoke.finished(name))


def test_two_processes_go_on_with_the_run_of_one(pair):
    assert_close(pair[0] / 'begun', smoke.finished(NAME))
    assert (pair[0] / 'begun/damaged/8').is_dir()


def test_two_processes_train_the_end_of_a_damaged_teacher_again(pair):
    run, whole = pair[0] / 'taught', smoke.finished('umts_carousel')
    assert (run / 'teachers/teacher/damaged/8').is_dir()
    assert_close(run / 'teachers/teacher', whole / 'teachers/teacher')
    assert_close(run, whole)


def test_what_two_processes_saved_is_read_by_one(pair):
    """And each wrote its part of it."""
    for which in checkpoints.WHICH:
        step = checkpoints.restore_network(pair[0] / NAME, which).step
        assert step in (4, 8)
        for process in (0, 1):
            part = pair[0] / NAME / f'checkpoints/{step}/student/ocdbt.process_{process}'
            assert any((part / 'd').iterdir())


def test_one_of_them_writes_the_files_of_a_run(pair):
    run = pair[0] / NAME
    assert len(list(run.glob('events.out.tfevents.*'))) == 1
    assert [row['step'] for row in smoke.rows(run)] == [2, 4, 4, 6, 8, 8]
    assert smoke.result(run)['student'] == smoke.rows(run)[-1]['evaluation']


def test_both_score_a_finished_run_again(pair):
    result = smoke.result(pair[0] / NAME)['student']
    for lines in told(pair[1]):
        (found,) = (line.removeprefix('scored ') for line in lines if line.startswith('scored '))
        assert json.loads(found) == result


def test_each_reads_its_own_rows(pair):
    first, second = told(pair[1])
    assert first[0] == 'rows [0, 1, 2, 3]'
    assert second[0] == 'rows [4, 5, 6, 0]'  # the last batch is filled up


def test_what_one_refuses_all_refuse(pair):
    first, second = (dict(line.split(' ', 1) for line in lines) for lines in told(pair[1]))
    assert first['seeds'].startswith('RunError process 1 of 2: all processes of a run are started')
    assert second['seeds'].startswith('RunError all processes of a run are started with the same')
    assert 'config.seed: 0 in process 0, 1 in this one' in pair[1][0]
    both = 'ValueError 5 sets a batch can not be shared by 4 devices: make sampling.identities'
    assert first['batch'].startswith(both)
    assert second['batch'].startswith(both)
    assert first['missing'].startswith('RunError process 1 of 2: counts and sizes must be 1')
    assert second['missing'].startswith('ValueError counts and sizes must be 1')
    assert first['first'].startswith('ZeroDivisionError')
    assert second['first'] == 'RunError process 0 of 2: division by zero'


def test_a_directory_that_is_not_shared_is_refused(pair):
    where, texts = pair
    first, second = (dict(line.split(' ', 1) for line in lines) for lines in told(texts))
    why = f'{where}/1/config.json, as process 0 wrote it, is not seen on {socket.gethostname()}: '
    assert second['unshared'].startswith(f'RunError {why}--workdir has to lie on a file system')
    assert first['unshared'].startswith(f'RunError process 1 of 2: {why}')
    assert not (where / '0/checkpoints').exists()


def test_the_first_goes_before_the_others(pair):
    first, second = told(pair[1])
    assert "of first {'from': 0}" in first
    assert "of first {'from': 0}" in second
    assert 'in turn None' in first
    assert 'in turn True' in second


@pytest.mark.parametrize(('what', 'saved'), [('stopped', 7), ('stopped_scoring', 8)])
def test_told_to_stop_both_save_and_one_process_goes_on(tmp_path, what, saved):
    run = unfinished(tmp_path / 'begun', last=6)
    codes, texts = started(what, tmp_path, 2, 2)
    assert codes == [preemption.RESTART] * 2, texts[0] + texts[1]
    assert steps_of(run)[-1] == saved
    assert not (run / 'result.json').exists()
    train.run(smoke.config(NAME), run)
    assert_close(run, smoke.finished(NAME))
    assert steps_of(run) == steps_of(smoke.finished(NAME))


@pytest.mark.parametrize('what', ['lost', 'unreadable'])
def test_where_one_fails_the_other_ends_too(tmp_path, what):
    (first, second), texts = started(what, tmp_path, 2, 2)
    assert second == 1
    assert 'process 1: kd_jax: the disk of this host is gone' in texts[1]
    assert first in (1, -signal.SIGABRT)
    assert 'make room' not in texts[0]
    assert not (tmp_path / 'lost/result.json').exists()


# How they find each other.


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (('host:1', None, None), 'give --coordinator=HOST:PORT, --num_processes and --process_id'),
        ((None, 2, 0), 'give --coordinator=HOST:PORT, --num_processes and --process_id'),
        (('host', 2, 0), '--coordinator=host: give HOST:PORT'),
        (('host:1', 2, 2), '--process_id=2: of --num_processes=2 it is one from 0 to 1'),
        (('host:1', 0, 0), '--num_processes=0: at least 1'),
    ],
)
def test_flags_that_are_not_whole(given, message):
    with pytest.raises(ValueError, match=message):
        hosts.join(*given)


@pytest.fixture
def asked(monkeypatch):
    """The arguments by which JAX is asked to find the others, who are not there."""
    found = []

    def initialize(*given):
        found.append(given)
        raise ValueError('coordinator_address should be defined.')

    monkeypatch.setattr(jax.distributed, 'initialize', initialize)
    return found


def test_nobody_told_of_others_it_is_alone(asked):
    hosts.join(None, None, None)
    assert asked == [(None, None, None)]
    assert not hosts.are_several()
    assert hosts.is_first()


@pytest.mark.parametrize(('size', 'rank'), hosts.LAUNCHERS.items())
def test_one_of_several_is_not_trained_alone(asked, monkeypatch, size, rank):
    monkeypatch.setenv(size, '4')
    hosts.join(None, None, None)  # a batch script in which nothing is launched
    monkeypatch.setenv(rank, '1')
    message = rf'one of 4 processes \({size}\).*--num_processes=\${size} --process_id=\${rank}'
    with pytest.raises(RunError, match=message):
        hosts.join(None, None, None)
    hosts.join(None, 1, None)


def test_of_two_launchers_the_inner_one_tells(asked, monkeypatch):
    """As of mpirun in a step of SLURM that has one task on each node."""
    for name, value in (('SLURM_STEP_NUM_TASKS', 1), ('SLURM_PROCID', 0)):
        monkeypatch.setenv(name, str(value))
    for name, value in (('OMPI_COMM_WORLD_SIZE', 4), ('OMPI_COMM_WORLD_RANK', 1)):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(RunError, match=r'one of 4 processes \(OMPI_COMM_WORLD_SIZE\)'):
        hosts.join(None, None, None)


def test_a_launcher_of_one_process_leaves_it_all_devices(asked, monkeypatch):
    monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '1')
    monkeypatch.setenv('SLURM_PROCID', '0')
    hosts.join(None, None, None)
    assert asked == []


def test_alone_there_is_nothing_to_agree_on():
    with pytest.raises(KeyError), hosts.together():
        raise KeyError
    assert hosts.of_first(lambda: (1, 2)) == (1, 2)
    assert hosts.in_turn(lambda: 3) == 3
