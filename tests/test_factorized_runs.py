"""Runs of Factorized Distillation: what is left of the teachers and factorisers, and a kill."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from test_train import assert_same_end, killed, steps_of

from kd_jax import checkpoints, evaluate, recipes, runs, train, trees, views
from kd_jax.data import augment
from kd_jax.networks import pretrained, state_dicts

NAME = 'factorized_carousel'
PARTS = {'part0': (0.0, 0.5), 'part1': (0.25, 0.75)}


def run_of(name):
    """The finished run of a teacher."""
    return smoke.finished(NAME) / 'teachers' / name


@functools.cache
def restored(run):
    return checkpoints.restore_network(run)


def images(count=4):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 16, 3), np.uint8)
    return augment.normalise(jnp.asarray(pixels))


def shapes(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator='/'): leaf.shape for k, leaf in leaves}


def saved(run):
    """The shapes of what is in the last checkpoint of a run, by item."""
    with checkpoints.manager(run, create=False) as found:
        items = found.item_metadata(found.latest_step())
        return {name: shapes(items[name].tree) for name in checkpoints.ITEMS}


# What is left.


@pytest.fixture(scope='module')
def baseline(tmp_path_factory):
    """A run of the baseline, of the same data and network."""
    run = tmp_path_factory.mktemp('baseline')
    smoke.planted(run)
    return run


def test_a_student_is_as_large_as_the_baseline(baseline):
    """In its checkpoint, and restored: no factoriser is in it."""
    student, plain = restored(smoke.finished(NAME)), restored(baseline)
    assert student.network == plain.network
    assert shapes(student.variables) == shapes(plain.variables)
    assert trees.size(student.variables['params']) == trees.size(plain.variables['params'])
    ours, theirs = saved(smoke.finished(NAME)), saved(baseline)
    assert ours['student'] == theirs['student'] == shapes(student.variables)
    trained = {name for name in ours['training'] if name.startswith('variables/')}
    assert {name.split('/')[2] for name in trained} == {'heads'}
    assert {name.split('/')[3] for name in trained} == set(PARTS)


def test_an_exported_student_has_the_tensors_of_the_baseline(baseline, tmp_path):
    held = []
    for run in (smoke.finished(NAME), baseline):
        found, file = restored(run), tmp_path / f'{run.name}.safetensors'
        pretrained.export(found.network, found.variables, file)
        held.append({key: value.shape for key, value in state_dicts.read(file).items()})
    assert held[0] == held[1]


@pytest.mark.parametrize('name', PARTS)
def test_a_teacher_is_a_run_that_sees_its_part(name):
    """Restored it crops by itself: as its network without a part does what is cropped for it."""
    run, found = run_of(name), restored(run_of(name))
    assert smoke.result(run)['student'] == smoke.result(smoke.finished(NAME))[name]
    assert runs.config_of(run).network.part == found.network.part == PARTS[name]
    whole = found.network.clone(part=())

    @jax.jit
    def both(variables, images):
        cropped = views.part_of(images, PARTS[name], (16, 16))
        return found.network.apply(variables, images), whole.apply(variables, cropped)

    ours, theirs = both(found.variables, images())
    assert ours.stages[0].shape == (4, 8, 8, 4)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    low, high = (round(32 * share) for share in PARTS[name])
    outside = images().at[:, high:].set(0.0).at[:, :low].set(0.0)
    again, _ = both(found.variables, outside)
    np.testing.assert_array_equal(again.embedding, ours.embedding)


def test_a_restored_student_embeds_as_the_method_does():
    """Bit by bit, apart; and without teachers or factorisers."""
    found = restored(smoke.finished(NAME))
    method = recipes.method(found.config, found.network, evaluate.placeholders(found))
    own = trees.join(student=found.variables)
    ranked = jax.jit(method.embed)(own, images()[:, None])
    served = jax.jit(found.network.apply)(found.variables, images()).embedding
    np.testing.assert_array_equal(ranked, served)


def test_a_finished_run_is_scored_as_it_was():
    for run in (smoke.finished(NAME), run_of('part1')):
        found = evaluate.run(run, runs.config_of(run))
        assert found == smoke.result(run)['student']


# A run that is stopped, and teachers of elsewhere.


def test_a_run_that_was_killed_ends_as_if_it_was_not(tmp_path):
    """In its second teacher, the first being as it was never stopped, and in the student."""
    run = tmp_path / 'run'
    first, second = (run / 'teachers' / name for name in PARTS)
    smoke.copy(run_of('part0'), first)
    before = smoke.written(first)

    killed(run, 'os.mkdir', r'part1/checkpoints/4\..*/training', name=NAME)
    assert (steps_of(second), (second / 'result.json').exists()) == ([2], False)
    assert not (run / 'checkpoints').exists()

    killed(run, 'os.mkdir', r'run/checkpoints/4\..*/training', name=NAME)
    assert (steps_of(run), smoke.rows(run)[-1]['step']) == ([2], 4)
    trained = smoke.written(run / 'teachers')

    train.run(smoke.config(NAME), run)
    assert_same_end(second, run_of('part1'))
    assert_same_end(run, smoke.finished(NAME))
    assert smoke.written(first) == before
    assert smoke.written(run / 'teachers') == trained  # the student leaves them as they were


def test_teachers_named_by_their_paths_teach_the_same(tmp_path):
    """They stay as they were, and where they are."""
    teachers = smoke.copy(smoke.finished(NAME) / 'teachers', tmp_path / 'elsewhere')
    files, written = smoke.files(teachers), smoke.written(teachers)
    config = smoke.config(NAME)
    config.teachers = {name: str(teachers / name) for name in PARTS}
    train.run(config, tmp_path / 'run')
    assert_same_end(tmp_path / 'run', smoke.finished(NAME))
    assert (smoke.files(teachers), smoke.written(teachers)) == (files, written)
    assert not (tmp_path / 'run/teachers').exists()
