"""KSL's ablation: rows change what they say, and every branch is ranked as it was trained."""

import functools

import command_line
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from absl import app
from command_line import cells, flat

from experiments import ksl_ablation, ksl_branches, rows
from kd_jax import data

experiment = functools.partial(command_line.experiment, config='ksl_carousel')
P, D, H = (f'method.{key}_weight' for key in ('probability', 'distance', 'hard'))
CHANGED = {
    'ksl': {},
    'without_constraints': {P: 0.0, D: 0.0, H: 0.0},
    'probabilities_alone': {D: 0.0, H: 0.0},
    'distances_alone': {P: 0.0, H: 0.0},
    'hard_alone': {P: 0.0, D: 0.0},
    'probabilities_and_distances': {H: 0.0},
    'probabilities_and_hard': {D: 0.0},
    'distances_and_hard': {P: 0.0},
    'kl_of_probabilities': {'method.probabilities': 'kl'},
    'pointwise_directions': {'method.distances': 'pointwise'},
    'own_triplets_again': {'method.mining': 'union'},
    'split_at_layer3': {'method.split_at': 'layer3'},
    'split_at_gap': {'method.split_at': 'gap'},
    '2_branches': {'method.branches': 2},
    '2_branches_without_constraints': {'method.branches': 2, P: 0.0, D: 0.0, H: 0.0},
    '4_branches': {'method.branches': 4},
    '4_branches_without_constraints': {'method.branches': 4, P: 0.0, D: 0.0, H: 0.0},
}


@pytest.fixture
def unranked(monkeypatch):
    monkeypatch.setattr(ksl_branches, 'ranked', lambda *_: {})


def changes(made, row):
    """What a row changes of the row of all constraints."""
    plain = flat(made['ksl'])
    return {key: value for key, value in flat(made[row]).items() if value != plain.get(key)}


def test_a_row_changes_what_it_says(tmp_path, made, unranked):
    printed = experiment(ksl_ablation, tmp_path)
    assert [rows.slug(name) for name in cells(printed, 'market')] == list(made)
    baseline = made.pop('baseline')
    assert (baseline.method.name, baseline.sampling) == ('supervised', made['ksl'].sampling)
    assert {row: changes(made, row) for row in made} == CHANGED


def test_rows_from_given_weights(tmp_path, made, unranked):
    experiment(ksl_ablation, tmp_path, '--start=weights.npz')
    given = {'network.pretrained': 'weights.npz'}
    assert changes(made, 'ksl_from___start') == given
    assert (
        changes(made, 'without_constraints_from___start') == given | CHANGED['without_constraints']
    )
    assert made['baseline_from___start'].network.pretrained == 'weights.npz'
    assert made['baseline_from___start'].method.name == 'supervised'


def test_a_config_of_another_method_is_refused(tmp_path):
    with pytest.raises(app.UsageError, match='its method is supervised, not ksl'):
        command_line.experiment(ksl_ablation, tmp_path, config='supervised_carousel')


def test_every_branch_is_ranked(tmp_path):
    """The first one as its run was; the mean of two equal ones as each of them."""
    run = smoke.copy(smoke.finished('ksl_carousel'), tmp_path / 'seed0/ksl')
    printed = experiment(ksl_ablation, tmp_path, '--rows=KSL')
    dataset = data.load(**smoke.config('ksl_carousel').data)
    found = ksl_branches.ranked({'KSL': {0: {}}}, tmp_path, dataset)['KSL']
    assert list(found) == ['branch 0', 'branch 1', 'branch 2', 'mean']
    assert found['branch 0'] == [smoke.result(run)['student']['mAP']]
    assert len({values[0] for values in found.values()}) > 2
    numbers = {name: f'{100 * values[0]:.1f}' for name, values in found.items()}
    others = f'{numbers["branch 1"]}, {numbers["branch 2"]}'
    assert f'| KSL | {numbers["branch 0"]} | {others} | {numbers["mean"]} |' in printed


def test_the_mean_of_equal_branches_is_one_of_them():
    class Twice:
        def embed(self, variables, images):
            return images.reshape(len(images), -1) * variables

    images = np.random.default_rng(0).normal(size=(4, 1, 2, 2, 3)).astype(np.float32)
    students = {'one': 1.0, 'other': 3.0}
    one = ksl_branches.mean_of(Twice(), students, jnp.asarray(images))
    flattened = images.reshape(4, -1)
    lengths = np.linalg.norm(flattened, axis=1, keepdims=True)
    np.testing.assert_allclose(one, flattened / lengths, rtol=1e-5)
