import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_options import create
from random_trees import random_init

from kd_jax import losses, trees
from kd_jax.methods import supervised
from kd_jax.networks import Outputs
from kd_jax.views import Batch

SETS, SHOTS = 4, 2
OBJECTIVE = {'label_smoothing': 0.1, 'margin': 0.3}
OPTIONS = {'reads': 'singles', 'feature': 'embedding', **OBJECTIVE}
READS = ['singles', 'mean', 'stacked']
LABELS = [3, 1, 3, 1]


def make(teachers=(), **changes):
    return supervised.make(create(), dict(teachers), **(OPTIONS | changes))


@pytest.fixture(scope='module')
def batch():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(SETS, SHOTS, 16, 16, 3)), jnp.float32)
    shots = jnp.zeros((SETS, SHOTS), jnp.uint32)
    return Batch(images, jnp.array(LABELS), shots.astype(int), shots)


def inputs(images, reads):
    """What the network reads, put together image by image."""
    sets = [list(shots) for shots in images]
    if reads == 'stacked':
        return jnp.stack([jnp.concatenate(shots, axis=-1) for shots in sets])
    return jnp.stack([image for shots in sets for image in shots])


@pytest.fixture(scope='module', params=READS)
def passed(request, batch):
    """reads, variables, and what one compiled function finds.

    In training the losses, and the network's own outputs and statistics; in inference the
    embedding and the neck of each set, and the network's own outputs.
    """
    reads = request.param
    method, after = make(reads=reads), make(reads=reads, feature='neck')
    network = create()
    variables = random_init(method.init, batch)

    @jax.jit
    def everything(variables, batch):
        own = {kind: tree['student'] for kind, tree in variables.items()}
        only_student = {kind: {'student': tree} for kind, tree in own.items()}
        images = inputs(batch.images, reads)
        return {
            'losses': method.loss(variables, (), batch, None, 0.0),
            'trained': network.apply(own, images, train=True, mutable=['batch_stats']),
            'embedding': method.embed(only_student, batch.images),
            'neck': after.embed(only_student, batch.images),
            'outputs': network.apply(own, images, train=False),
        }

    return reads, variables, everything(variables, batch)


def means(values, sets=SETS):
    return np.stack([np.mean(part, axis=0) for part in np.split(np.asarray(values), sets)])


def near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_terms(passed):
    reads, _, found = passed
    outputs, _ = found['trained']
    labels = [3, 3, 1, 1, 3, 3, 1, 1] if reads == 'singles' else LABELS
    logits, embedding = outputs.logits, outputs.embedding
    assert len(logits) == (SETS if reads == 'stacked' else SETS * SHOTS)
    if reads == 'mean':
        logits, embedding = means(logits), means(embedding)
    logits, embedding, labels = jnp.asarray(logits), jnp.asarray(embedding), jnp.array(labels)
    terms = found['losses'].terms
    assert set(terms) == {'identity', 'triplet'}
    near(terms['identity'], losses.cross_entropy(logits, labels, 0.1).mean())
    near(terms['triplet'], losses.batch_hard_triplet(embedding, labels, 0.3).mean())
    assert terms['triplet'] > 0
    near(found['losses'].diagnostics['accuracy'], np.mean(logits.argmax(1) == labels))


def test_statistics_after_the_pass(passed):
    _, variables, found = passed
    stats = found['losses'].batch_stats
    assert list(stats) == ['student']
    jax.tree.map(near, stats['student'], found['trained'][1]['batch_stats'])
    before = variables['batch_stats']['student']['bn1']['mean']
    assert not np.allclose(stats['student']['bn1']['mean'], before)


@pytest.mark.parametrize('feature', ['embedding', 'neck'])
def test_embeddings_are_the_means_of_inference(passed, feature):
    reads, _, found = passed
    vectors = getattr(found['outputs'], feature)
    assert found[feature].shape == (SETS, 32)
    near(found[feature], vectors if reads == 'stacked' else means(vectors))


def test_variables(batch):
    for reads, channels in (('singles', 3), ('mean', 3), ('stacked', 6)):
        method = make(reads=reads)
        variables = jax.eval_shape(method.init, jax.random.key(0), batch)
        assert {kind: list(tree) for kind, tree in variables.items()} == {
            'params': ['student'],
            'batch_stats': ['student'],
        }
        kernel = trees.named(variables['params'])['student/conv1/kernel']
        assert kernel.shape == (3, 3, channels, 4)
        assert method.teach({}, batch) == ()
        assert method.frozen == ()


def test_labels_of_examples(batch):
    labels = {reads: supervised.example_labels(batch, reads).tolist() for reads in READS}
    assert labels['singles'] == [3, 3, 1, 1, 3, 3, 1, 1]
    assert labels['mean'] == labels['stacked'] == LABELS


def test_outputs_over_sets():
    rows = jnp.array([[0.0], [2.0], [4.0], [8.0]])
    found = supervised.over_sets(Outputs((rows[:, None, None],), rows, 2 * rows, 3 * rows), 2)
    assert [x.tolist() for x in found[1:]] == [[[1], [6]], [[2], [12]], [[3], [18]]]


def random_outputs(classes=3):
    rng = np.random.default_rng(0)
    embedding, logits = (jnp.asarray(rng.normal(size=(8, d)), jnp.float32) for d in (6, classes))
    return Outputs((), embedding, jnp.zeros((8, 6)), logits), jnp.arange(8) % classes


def terms_of(**objective):
    outputs, labels = random_outputs()
    found = supervised.terms(outputs, labels, supervised.Objective(**objective), None)
    return {name: float(value) for name, value in found[0].items()}


def test_the_objective():
    outputs, labels = random_outputs()
    base = terms_of(**OBJECTIVE)
    assert terms_of(**OBJECTIVE, triplet_weight=1.0) == base
    assert terms_of(**OBJECTIVE, triplet_weight=0.5) == base | {'triplet': base['triplet'] / 2}
    sharp = terms_of(label_smoothing=0.0, margin=0.3)
    near(sharp['identity'], losses.cross_entropy(outputs.logits, labels).mean())
    assert sharp['identity'] != base['identity']
    assert sharp['triplet'] == base['triplet']
    soft = terms_of(label_smoothing=0.1, margin=None)
    near(soft['triplet'], losses.batch_hard_triplet(outputs.embedding, labels).mean())
    assert soft['triplet'] != base['triplet']


def test_the_triplet_sees_the_embedding_and_not_the_neck():
    outputs, labels = random_outputs()
    changed = outputs._replace(neck=outputs.neck + outputs.embedding)
    objective = supervised.Objective(**OBJECTIVE)
    assert supervised.terms(changed, labels, objective, None) == supervised.terms(
        outputs, labels, objective, None
    )


# Errors.


@pytest.mark.parametrize(
    ('key', 'choices'), [('reads', 'singles, mean, stacked'), ('feature', 'embedding, neck')]
)
def test_unknown_words(key, choices):
    with pytest.raises(ValueError, match=rf"method\.{key}='best': choose one of {choices}$"):
        make(**{key: 'best'})


def test_teachers_are_refused():
    with pytest.raises(ValueError, match='takes no teachers, given mentor'):
        make(teachers={'mentor': create()})


def test_a_misspelt_key_is_named():
    with pytest.raises(TypeError, match='smoothing_of_labels'):
        make(smoothing_of_labels=0.1)


def test_a_missing_key_is_named():
    with pytest.raises(TypeError, match='margin'):
        supervised.make(create(), {}, reads='singles', feature='neck', label_smoothing=0.1)
