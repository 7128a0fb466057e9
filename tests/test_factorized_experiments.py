"""Factorized Distillation's experiment: its rows, and the teachers together."""

import functools

import command_line
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from absl import app
from command_line import cells, flat

from experiments import factorized_ablation, factorized_ensemble, rows
from kd_jax import checkpoints, data, evaluate, trees

NAME = 'factorized_carousel'
experiment = functools.partial(command_line.experiment, config=NAME)
CHANGED = {
    'map_and_feature': {},
    'map_only': {'method.feature_weight': 0.0},
    'feature_only': {'method.map_weight': 0.0},
    'pure_mimic': {'method.identity_weight': 0.0, 'method.triplet_weight': 0.0},
}


def test_a_row_changes_what_it_says(tmp_path, made, monkeypatch):
    monkeypatch.setattr(factorized_ensemble, 'ranked', lambda found, *_: found['part0'])
    for costly in ('costs', 'at_once'):
        monkeypatch.setattr(factorized_ensemble, costly, lambda *_: '')
    printed = experiment(factorized_ablation, tmp_path)
    names = [rows.slug(name) for name in cells(printed, 'market')]
    assert names[: len(made)] == list(made)
    assert made.pop('baseline').method.name == 'supervised'
    parts = {name: made.pop(name) for name in ('part0', 'part1')}
    assert [one.network.part for one in parts.values()] == [(0.0, 0.5), (0.25, 0.75)]
    plain = flat(made['map_and_feature'])
    assert plain['teachers.part1'] == str(tmp_path / 'seed0/part1')
    found = {
        row: {key: value for key, value in flat(config).items() if value != plain[key]}
        for row, config in made.items()
    }
    assert found == CHANGED


@pytest.fixture(scope='module')
def planted(tmp_path_factory):
    """A working directory in which the teachers' rows are trained."""
    home = tmp_path_factory.mktemp('factorized')
    for name in ('part0', 'part1'):
        smoke.copy(smoke.finished(NAME) / 'teachers' / name, home / 'seed0' / name)
    return home


def test_the_teachers_together(planted, monkeypatch):
    """What all rows print; timed for a moment only."""
    monkeypatch.setattr(factorized_ensemble, 'ROUNDS', 1)
    monkeypatch.setattr(factorized_ensemble, 'SECONDS', 0.01)
    printed = experiment(factorized_ablation, planted, '--rows=part0,part1,map and feature')
    table = cells(printed, 'market')
    assert list(table) == ['part0', 'part1', 'map and feature', 'teachers, concatenated']
    result = smoke.result(smoke.finished(NAME))
    assert table['part0'][1] == f'{100 * result["part0"]["mAP"]:.1f}'
    assert table['map and feature'][1] == f'{100 * result["student"]["mAP"]:.1f}'
    sizes = [line.split(' | ')[1] for line in printed.splitlines() if line.startswith('| all t')]
    student = checkpoints.restore_network(smoke.finished(NAME)).variables['params']
    alone = trees.size(student) - trees.size(student['neck']['classifier'])
    assert sizes == [f'{2 * alone:,}']
    assert 'A step of 2 teachers at once takes' in printed


def test_the_concatenation_ranks_what_it_says(planted):
    """By the sum of the teachers' cosines."""
    dataset = data.load(**smoke.config(NAME).data)
    together, variables, _ = factorized_ensemble.opened(('part0', 'part1'), 0, planted)
    images = jnp.asarray(dataset.query.pixels.read(np.arange(6))[:, None], jnp.float32) / 255
    vectors = np.asarray(together.embed(variables, images))
    assert vectors.shape == (6, 64)
    expected = 0.0
    for name in ('part0', 'part1'):
        one = checkpoints.restore_network(planted / 'seed0' / name)
        own = evaluate.method_of(one).embed(trees.join(student=one.variables), images)
        own = own / jnp.linalg.norm(own, axis=1, keepdims=True)
        expected = expected + own @ own.T
    np.testing.assert_allclose(vectors @ vectors.T, expected, rtol=1e-4, atol=1e-4)


def test_what_can_not_be_taken_apart_is_refused(tmp_path):
    with pytest.raises(app.UsageError, match='its method is ksl, not factorized'):
        command_line.experiment(factorized_ablation, tmp_path, config='ksl_carousel')
    run = str(smoke.finished(NAME) / 'teachers/part0')
    with pytest.raises(app.UsageError, match='the teachers are rows'):
        experiment(factorized_ablation, tmp_path, f"--config.teachers={{'part0': '{run}'}}")
