"""Checkpoints that are damaged: the one before is used, and nothing is lost."""

import gc
import os
import shutil

import jax
import numpy as np
import pytest
import smoke
from faulty import NAME, assert_same_end, steps_of, unfinished

from kd_jax import beside, checkpoints, damage, train
from kd_jax.runs import RunError

# Orbax's other reads fail when they are forgotten after the first that failed.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


@pytest.fixture(autouse=True)
def forgotten():
    """Those of a test are forgotten with it, not in another."""
    yield
    gc.collect()


def largest(step):
    """The file of a checkpoint that has most of the student's numbers."""
    return max((step / 'student/ocdbt.process_0/d').iterdir(), key=lambda path: path.stat().st_size)


def flip(step):
    """One bit, in the middle of numbers that are stored as they are."""
    content = bytearray(largest(step).read_bytes())
    content[len(content) // 2] ^= 1
    largest(step).write_bytes(content)


DAMAGES = {
    'truncated': lambda step: os.truncate(largest(step), largest(step).stat().st_size // 2),
    'flipped': flip,
    'empty': lambda step: (step / 'training/manifest.ocdbt').write_bytes(b''),
    'notes': lambda step: os.truncate(next((step / 'notes').glob('[!c]*')), 9),
    'no item': lambda step: shutil.rmtree(step / 'training'),
    'no pieces': lambda step: shutil.rmtree(step / 'student/ocdbt.process_0'),
    'nothing': lambda step: [shutil.rmtree(path) for path in step.iterdir() if path.is_dir()],
    'no JSON': lambda step: (step / 'student/_METADATA').write_text('{'),
    'no metrics': lambda step: (step / 'metrics/metrics').write_text('{"mAP":'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, damage, caplog):
    run = unfinished(tmp_path / 'run')
    DAMAGES[damage](run / 'checkpoints/8')
    caplog.set_level('INFO')
    train.run(smoke.config(NAME), run)
    assert f'{run}/checkpoints/8 is damaged' in caplog.text
    assert f'it is now {run}/damaged/8' in caplog.text
    assert 'tensorstore_spec' not in caplog.text
    assert 'going on from the checkpoint of step 6' in caplog.text
    assert (run / 'damaged/8').is_dir()
    assert_same_end(run)


def test_where_none_can_be_read_nothing_is_moved(tmp_path):
    run = unfinished(tmp_path / 'run')
    for step in steps_of(run):
        DAMAGES['truncated'](run / f'checkpoints/{step}')
    before = smoke.files(run / 'checkpoints')
    with pytest.raises(RunError, match=f'{run}/checkpoints/8 is damaged'):
        train.run(smoke.config(NAME), run)
    assert smoke.files(run / 'checkpoints') == before


@pytest.mark.parametrize('damage', sorted(DAMAGES.keys() - {'no item', 'empty'}))
def test_a_network_is_not_restored_from_a_damaged_checkpoint(tmp_path, damage):
    run = smoke.copy(smoke.finished(NAME), tmp_path / 'run')
    DAMAGES[damage](run / 'checkpoints/8')
    with pytest.raises(RunError, match=f'{run}/checkpoints/8 is damaged'):
        checkpoints.restore_network(run)


def test_a_checkpoint_of_before_there_were_checksums_is_read(tmp_path, caplog):
    run = smoke.copy(smoke.finished(NAME), tmp_path / 'run')
    shutil.rmtree(run / 'checkpoints/8/notes')
    found = checkpoints.restore_network(run)
    assert f'{run}/checkpoints/8 has no checksums, as of an earlier kd_jax' in caplog.text
    wanted = checkpoints.restore_network(smoke.finished(NAME))
    for x, y in zip(jax.tree.leaves(found.variables), jax.tree.leaves(wanted.variables)):
        np.testing.assert_array_equal(x, y)


def test_what_the_machine_lacks_is_no_damage(tmp_path, monkeypatch):
    run = unfinished(tmp_path / 'run')
    before = smoke.files(run / 'checkpoints')

    def refused(*_, **__):
        raise OSError(24, 'Too many open files')

    monkeypatch.setattr(checkpoints.Manager, 'restore', refused)
    with pytest.raises(OSError, match='Too many open files'):
        train.run(smoke.config(NAME), run)
    assert smoke.files(run / 'checkpoints') == before


def test_a_checksum_sees_any_bit_and_any_type():
    tree = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': jax.numpy.ones(3, 'bfloat16')}
    found = {damage.checksum(tree)}
    for leaf in ('a', 'b'):
        for bit in range(16):
            changed = np.array(tree[leaf])
            changed.reshape(-1).view(np.uint8)[1 + bit // 8] ^= 1 << bit % 8
            found.add(damage.checksum({**tree, leaf: changed}))
    assert len(found) == 33
    assert damage.checksum({'step': np.int32(7)}) != damage.checksum({'step': np.int32(6)})


def test_what_is_being_written_is_not_damaged(tmp_path):
    """Nobody who reads a run is kept from it by another checkpoint that was not whole yet."""
    run = unfinished(tmp_path / 'run')
    written = run / 'checkpoints/9.orbax-checkpoint-tmp/metrics'
    written.mkdir(parents=True)
    (written / 'metrics').write_text('{')
    assert checkpoints.restore_network(run).step == 8
    assert written.exists()


def test_who_reads_a_damaged_checkpoint_is_told_what_to_do(tmp_path):
    run = smoke.copy(smoke.finished(NAME), tmp_path / 'run')
    flip(run / 'checkpoints/8')
    remedy = r'damaged \(student: .*remove result\.json, if any, and start again'
    with pytest.raises(damage.Damaged, match=rf'{run}/checkpoints/8 is {remedy}'):
        checkpoints.restore_network(run)


def test_where_none_can_be_read_it_is_told(tmp_path):
    run = unfinished(tmp_path / 'run', last=6)
    (step,) = steps_of(run)
    (run / f'checkpoints/{step}/student/manifest.ocdbt').write_bytes(b'')
    message = f'{run}/checkpoints/6 is damaged .*none before it can be read: give another --workdir'
    with pytest.raises(RunError, match=message):
        train.run(smoke.config(NAME), run)


def test_a_teacher_whose_last_checkpoint_is_damaged_trains_its_end_again(tmp_path, caplog):
    whole = smoke.finished()
    run = smoke.copy(whole, tmp_path / 'run')
    (run / 'result.json').unlink()
    teacher = run / 'teachers/teacher'
    flip(teacher / 'checkpoints/8')
    train.run(smoke.config(), run)
    assert f'{teacher} goes on from the checkpoint before' in caplog.text
    assert (teacher / 'damaged/8').is_dir()
    for one, other in ((teacher, whole / 'teachers/teacher'), (run, whole)):
        assert smoke.result(one) == smoke.result(other)
        assert smoke.rows(one) == smoke.rows(other)
        found, wanted = (checkpoints.restore_network(r).variables for r in (one, other))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_heads_that_are_damaged(tmp_path):
    run = smoke.copy(smoke.finished(), tmp_path / 'run')
    (run / 'checkpoints/8/training/manifest.ocdbt').write_bytes(b'')
    with pytest.raises(damage.Damaged, match=f'{run}/checkpoints/8 is damaged'):
        beside.variables_of(run, 8)
