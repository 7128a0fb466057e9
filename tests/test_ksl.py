"""KSL: its terms from the outputs of every branch alone, its gradients, what it refuses."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke
from random_trees import random_init

from kd_jax import losses, recipes, trees, views
from kd_jax.methods import ksl, supervised
from kd_jax.networks import Outputs
from kd_jax.views import Batch

OPTIONS = {'branches': 3, 'split_at': 'layer4', 'feature': 'embedding', 'ramp': 0.5}
OPTIONS |= {'probabilities': 'cosine', 'temperature': 1.0, 'distances': 'matrix', 'mining': 'peer'}
OPTIONS |= {'probability_weight': 2.0, 'distance_weight': 0.5, 'hard_weight': 1.0}
OTHER = {'probabilities': 'kl', 'temperature': 2.0, 'distances': 'pointwise', 'mining': 'union'}
OBJECTIVE = {'label_smoothing': 0.1, 'margin': None}
NAMES = ('student', 'branch1', 'branch2')
WHOLE = recipes.network(smoke.config('ksl_carousel'), classes=8).clone(axis_name=None)
NETWORK = WHOLE.clone(blocks=(1, 0, 0, 1), conv='xla')  # compiles in a third of the time
TAIL = ('layer4_0', 'neck')

near = partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6)


def batch(sets=4, shots=2):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(sets, shots, 32, 16, 3)), jnp.float32)
    numbers = jnp.zeros((sets, shots), jnp.int32)
    return Batch(images, jnp.arange(sets, dtype=jnp.int32) % 3, numbers, numbers)


def made(network=NETWORK, **options):
    return ksl.make(network, {}, **OBJECTIVE | OPTIONS | options)


def passed(method):
    """Losses of a method, and their gradient by all parameters."""

    def both(variables, seen, progress):
        def objective(params):
            found = method.loss(variables | {'params': params}, (), seen, None, progress)
            return sum(found.terms.values()), found

        (_, found), gradient = jax.value_and_grad(objective, has_aux=True)(variables['params'])
        return found, gradient

    return both


LABELS = views.per_image(batch().labels, 2)
VARIABLES = random_init(made().init, batch())
RUN = jax.jit(passed(made()))


def ran(variables=VARIABLES, progress=1.0):
    """Losses and gradient of three branches, compiled once."""
    return RUN(variables, batch(), progress)


@cache
def alone():
    """Outputs and new statistics of every branch in training, each by itself behind the trunk."""
    options = {'train': True, 'split': 4, 'mutable': ['batch_stats']}
    trunk, tail = (
        jax.jit(partial(NETWORK.apply, method=half, **options)) for half in ('trunk', 'tail')
    )
    student = trees.part(VARIABLES, 'student')
    maps, changed = trunk(student, views.singles(batch().images))
    found = {name: tail(trees.part(VARIABLES, name), maps[-1]) for name in NAMES}
    stats = {name: after['batch_stats'] for name, (_, after) in found.items()}
    stats['student'] = changed['batch_stats'] | {key: stats['student'][key] for key in TAIL}
    return {name: outputs for name, (outputs, _) in found.items()}, stats


def with_tails(**sources):
    """The variables, each of some branches with the tail of another."""
    return {
        kind: tree
        | {
            name: tree[name] | {k: tree[source][k] for k in TAIL}
            for name, source in sources.items()
        }
        for kind, tree in VARIABLES.items()
    }


def assert_terms(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        near(found[name], value, err_msg=name)


# The objective.

# Of each constraint its option, and the readings that it chooses from, of a branch and a peer.
KEYS = {'probabilities': 'probabilities', 'distances': 'distances', 'hard': 'mining'}
READINGS = {
    'cosine': lambda one, peer: losses.consensus_cosine(
        jax.nn.softmax(one.logits), jax.nn.softmax(peer.logits)
    ),
    'kl': lambda one, peer: losses.soft_target_kl(peer.logits, one.logits, 2.0),
    'matrix': lambda one, peer: losses.consensus_distance(one.embedding, peer.embedding),
    'pointwise': lambda one, peer: losses.direction_regression(peer.embedding, one.embedding),
    'peer': lambda one, peer: losses.consensus_hard(one.embedding, peer.embedding, LABELS),
    'union': lambda one, peer: losses.batch_hard_triplet(one.embedding, LABELS),
}


def terms_of(options):
    """All terms by loops over branches and ordered pairs, of which each branch begins two."""
    outputs = alone()[0].values()
    own = {
        'identity': lambda x: losses.cross_entropy(x.logits, LABELS, 0.1),
        'triplet': lambda x: losses.batch_hard_triplet(x.embedding, LABELS),
    }
    found = {name: sum(jax.jit(loss)(x).mean() for x in outputs) for name, loss in own.items()}
    weights = {'probabilities': 2.0, 'distances': 0.5, 'hard': 1.0}
    for term, weight in weights.items():
        values = jax.jit(READINGS[options[KEYS[term]]])
        pairs = itertools.permutations(outputs, 2)
        found[term] = weight / 2 * sum(values(one, peer).mean() for one, peer in pairs)
    return found


def test_the_objective_is_a_sum_over_branches_and_a_mean_over_peers():
    (found, _), (outputs, stats) = ran(), alone()
    assert_terms(found.terms, terms_of(OPTIONS))
    assert min(found.terms.values()) > 1e-3
    jax.tree.map(near, found.batch_stats, stats)
    classes = np.array([outputs[name].logits.argmax(-1) for name in NAMES])
    assert found.diagnostics['agreement'] == np.mean((classes == classes[0]).all(axis=0))
    assert found.diagnostics['accuracy'] == np.mean(classes[0] == np.asarray(LABELS))


def test_other_readings_of_the_constraints():
    method = made(**OTHER)
    loss = jax.jit(lambda variables, seen: method.loss(variables, (), seen, None, 1.0).terms)
    found = loss(VARIABLES, batch())
    assert_terms(found, terms_of(OTHER))
    near(found['hard'], found['triplet'])


@pytest.mark.parametrize(('progress', 'share'), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.8, 1.0)])
def test_the_constraints_rise(progress, share):
    """Over the first half of the training; identity and triplet are there from its start."""
    found, full = ran(progress=progress)[0].terms, ran()[0].terms
    for name, value in full.items():
        near(found[name], value * (1 if name in ('identity', 'triplet') else share), err_msg=name)


def test_branches_that_are_alike_agree():
    found, _ = ran(with_tails(branch1='student', branch2='student'))
    triplet = jax.jit(losses.batch_hard_triplet)(alone()[0]['student'].embedding, LABELS).mean()
    assert found.terms['distances'] == 0
    near(found.terms['probabilities'], 0)
    near(found.terms['hard'], 3 * triplet)
    near(found.terms['triplet'], 3 * triplet)
    assert found.diagnostics['agreement'] == 1


def test_the_order_of_branches_does_not_matter():
    """But for whose accuracy and gradient is whose."""
    turned = with_tails(student='branch1', branch1='branch2', branch2='student')
    (found, slope), (expected, of_student) = ran(turned), ran()
    assert_terms(found.terms, expected.terms)
    bias = [x['neck']['neck_bn']['scale'] for x in (slope['student'], of_student['branch1'])]
    near(*bias)
    assert not np.allclose(bias[0], of_student['student']['neck']['neck_bn']['scale'])


def test_terms_are_switched_off_alone():
    weights = {'probabilities': 'probability', 'distances': 'distance', 'hard': 'hard'}
    for term, weight in weights.items():
        loss = made(**{f'{weight}_weight': 0.0}).loss
        terms = jax.eval_shape(
            lambda v, loss=loss: loss(v, (), batch(), None, 1.0).terms, VARIABLES
        )
        assert set(terms) == {'identity', 'triplet', *weights} - {term}


# Gradients.


def test_the_trunk_gets_the_mean_of_the_gradients_of_branches(monkeypatch):
    monkeypatch.setattr(ksl, 'scaled_gradient', lambda x, scale: x)
    _, summed = jax.jit(passed(made()))(VARIABLES, batch(), 1.0)
    for path, value in trees.named(ran()[1]).items():
        name, module = path.split('/')[:2]
        share = 1 / 3 if name == 'student' and module not in TAIL else 1
        expected = share * np.asarray(trees.named(summed)[path])
        assert expected.any(), path
        near(value, expected, atol=1e-5 * np.abs(expected).max(), err_msg=path)


def test_a_scaled_gradient():
    x = jnp.array([1.5, -0.0, 1e-40, np.inf, np.nan], jnp.float32)
    for scaled in (ksl.scaled_gradient, jax.jit(ksl.scaled_gradient, static_argnums=1)):
        assert np.asarray(scaled(x, 1 / 3)).tobytes() == np.asarray(x).tobytes()
    slope = jax.grad(lambda x: (ksl.scaled_gradient(x, 0.25) ** 2).sum())(jnp.array([3.0, -1.0]))
    np.testing.assert_array_equal(slope, [1.5, -0.5])


@pytest.mark.parametrize('options', [OPTIONS, OTHER])
def test_a_pair_teaches_its_first_branch_alone(options):
    """So what a branch learns of two is what it learns of the pair that it comes first in."""
    consensus = ksl.Consensus(**{k: (OPTIONS | options)[k] for k in ksl.Consensus._fields})
    parts = ksl.Parts(NETWORK, NAMES, 4, supervised.Objective(**OBJECTIVE), consensus, None)
    rng, widths = np.random.default_rng(0), (6, 6, 5)
    two = [
        Outputs((), *(jnp.asarray(rng.normal(size=(8, width)), jnp.float32) for width in widths))
        for _ in range(2)
    ]

    def slopes(loss, two):
        pair = jax.grad(lambda one, peer: loss(one, peer).mean(), argnums=(0, 1))
        return (
            loss(*two),
            jax.grad(partial(ksl.over_pairs, loss))(two),
            pair(*two),
            pair(*two[::-1]),
        )

    constraints = {name: loss for name, (_, loss) in ksl.constraints(parts, LABELS).items()}
    found = jax.jit(lambda two: {name: slopes(loss, two) for name, loss in constraints.items()})
    for name, (values, both, first, second) in found(two).items():
        near(values, jax.jit(READINGS[options[KEYS[name]]])(*two), err_msg=name)
        jax.tree.map(partial(near, err_msg=name), both, [first[0], second[0]])
        assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(first[0])), name
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves((first[1], second[1])))


# The networks that it trains.


def test_a_branch_as_an_ordinary_network():
    """Behind the trunk it gives bit by bit what it gives in training."""
    apply = jax.jit(partial(NETWORK.apply, train=True, mutable=['batch_stats']))
    for name in NAMES:
        whole = trees.part(ksl.branch(VARIABLES, name), 'student')
        assert jax.tree.structure(whole) == jax.tree.structure(trees.part(VARIABLES, 'student'))
        found, _ = apply(whole, views.singles(batch().images))
        jax.tree.map(np.testing.assert_array_equal, found[1:], alone()[0][name][1:])


def test_the_student_alone_embeds():
    embed = jax.jit(made(feature='neck').embed)
    student = trees.join(student=trees.part(VARIABLES, 'student'))
    lost = jax.tree.map(lambda leaf: np.nan * leaf, VARIABLES)
    lost = {kind: {**tree, 'student': student[kind]['student']} for kind, tree in lost.items()}
    found = embed(lost, batch().images)
    assert found.shape == (4, 32)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, embed(student, batch().images))


# What it refuses, naming the key.


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'split_at': 'layer2'}, r"method\.split_at='layer2': choose one of layer3, layer4, gap"),
        ({'probabilities': 'js'}, r"method\.probabilities='js': choose one of cosine, kl"),
        ({'distances': 'l2'}, r"method\.distances='l2': choose one of matrix, pointwise"),
        ({'mining': 'own'}, r"method\.mining='own': choose one of peer, union"),
        ({'feature': 'logits'}, r"method\.feature='logits'"),
        ({'branches': 0}, r'method\.branches=0: one, which is the baseline'),
        ({'temperature': 0.0}, r'method\.temperature=0\.0: .* above 0'),
        ({'temperature': float('nan')}, r'method\.temperature=nan'),
        ({'probability_weight': -1.0}, r'method\.probability_weight=-1\.0: from 0 on'),
        ({'distance_weight': -0.5}, r'method\.distance_weight=-0\.5'),
        ({'hard_weight': -2.0}, r'method\.hard_weight=-2\.0'),
        ({'ramp': -0.1}, r'method\.ramp=-0\.1'),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_it_takes_no_teachers():
    with pytest.raises(ValueError, match='takes no teachers, given teacher'):
        ksl.make(NETWORK, {'teacher': NETWORK}, **OBJECTIVE | OPTIONS)
