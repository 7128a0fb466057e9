from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from network_options import create
from random_trees import random_init, random_variables

from kd_jax import heads, loop, optimizers, parallel, trees
from kd_jax.heads import Matched
from kd_jax.methods import supervised, umts
from kd_jax.views import Batch

SETS, SHOTS = 4, 2
LABELS = [3, 1, 3, 0]
OBJECTIVE = {'label_smoothing': 0.1, 'margin': 0.3}
OPTIONS = {'stages': (1, 2, 3, 4, 5), 'weights': (0.1, 0.2, 0.3, 0.4, 0.5)}
OPTIONS |= {'reductions': (1, 2, 2, 4, 4), 'uncertainty': True, 'joint': False}
OPTIONS |= {'teacher_reads': 'stacked', 'teacher_head': 'trained', 'head_bn_affine': False}
OPTIONS |= {'feature': 'embedding', **OBJECTIVE}
ADAM = {'name': 'adam', 'learning_rate': 5e-3, 'weight_decay': 5e-4, 'schedule': 'constant'}
ADAM |= {'warmup': 'linear', 'warmup_epochs': 0.0, 'warmup_start': 0.0}
ADAM |= {'boundaries': (), 'factor': 1.0, 'final': 1.0, 'epochs': 1.0, 'steps_per_epoch': 1}
REID = ('identity', 'triplet')
T_REID = ('teacher_identity', 'teacher_triplet')
UKD = tuple(f'stage{b}' for b in umts.STAGES)


def t_net():
    """Another neck and width, so that the two can not be mistaken for each other."""
    return create(neck='fc_bn_relu')


def make(**changes):
    options = OPTIONS | changes
    teachers = {} if options['joint'] else {'teacher': t_net()}
    return umts.make(create(axis_name=options.get('axis_name')), teachers, **options)


def near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def nonzero(tree):
    return any(leaf.any() for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope='module')
def batch():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(SETS, SHOTS, 16, 16, 3)), jnp.float32)
    shots = jnp.zeros((SETS, SHOTS), jnp.uint32)
    return Batch(images, jnp.array(LABELS), shots.astype(int), shots)


def teacher_variables(channels):
    return random_init(t_net().init, jnp.zeros((1, 16, 16, channels)), seed=1)


@pytest.fixture(scope='module')
def teachers():
    return {'teacher': teacher_variables(3 * SHOTS)}


@pytest.fixture(scope='module')
def variables(batch):
    # With this seed each stage has log-variances of zero and others.
    return random_init(make().init, batch, seed=11)


def singles(images):
    return images.reshape(-1, *images.shape[2:])


def stacked(images):
    return jnp.concatenate([images[:, k] for k in range(SHOTS)], axis=-1)


def set_means(values):
    return [np.mean(np.split(np.asarray(x), SETS), axis=1) for x in values]


METHODS = {
    'umts': {},
    'mts': {'uncertainty': False},
    'stages 1, 5': {'stages': (1, 5)},
}


@pytest.fixture(scope='module')
def forward():
    """One compiled function: targets, losses by `METHODS`, and the two networks' own outputs."""

    @jax.jit
    def everything(variables, teachers, batch):
        targets = make().teach(teachers, batch)
        of_student = {kind: tree['student'] for kind, tree in variables.items()}
        images = singles(batch.images)
        return {
            'targets': targets,
            'losses': {
                name: make(**options).loss(variables, targets, batch, None, 0.0)
                for name, options in METHODS.items()
            },
            'student': create().apply(of_student, images, True, mutable=['batch_stats']),
            'embedding': make().embed({k: {'student': v} for k, v in of_student.items()}, batch[0]),
            'inference': create().apply(of_student, images),
            'teacher': t_net().apply(teachers['teacher'], stacked(batch.images), train=False),
        }

    return everything


@pytest.fixture(scope='module')
def found(forward, variables, teachers, batch):
    return forward(variables, teachers, batch)


def vectors_of(outputs):
    return [*(np.mean(stage, (1, 2)) for stage in outputs.stages), np.asarray(outputs.embedding)]


def plain_projection(params, x):
    y = np.asarray(x, float) @ params['fc']['kernel'] + params['fc']['bias']
    return np.maximum((y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5), 0)


def plain_stage(params, teacher, student):
    """d² and v of every image (UMTS eq. 3, 4), by a loop over sets and shots."""
    of_sets, of_images = (
        plain_projection(params[side], x)
        for side, x in (('teacher', teacher), ('student', student))
    )
    scalar = params['log_variance']
    rows = []
    for p in range(SETS):
        for k in range(SHOTS):
            t, s = of_sets[p], of_images[p * SHOTS + k]
            v = np.concatenate([t, s]) @ scalar['kernel'][:, 0] + scalar['bias'][0]
            rows.append((np.sum((t - s) ** 2), max(v, 0.0)))
    return np.transpose(rows), of_sets


# What the loss is made of.


def test_terms(found, variables):
    """Equations 2, 3 and 5 from the outputs of the two networks."""
    outputs, _ = found['student']
    labels = np.repeat(LABELS, SHOTS)
    objective = supervised.Objective(**OBJECTIVE)
    reid, _ = supervised.terms(outputs, jnp.asarray(labels), objective, None)
    stages = zip(vectors_of(found['teacher']), vectors_of(outputs))
    expected, unweighted = dict(reid), dict(reid)
    for b, (weight, (teacher, student)) in enumerate(zip(OPTIONS['weights'], stages), 1):
        params = variables['params']['heads'][f'stage{b}']
        (d2, v), of_sets = plain_stage(params, teacher, student)
        expected[f'stage{b}'] = weight * np.mean(np.exp(-v) / 2 * d2 + v)
        unweighted[f'stage{b}'] = weight * np.mean(d2)
        assert 0 < np.sum(v == 0) < len(v)
        log = found['losses']['umts'].diagnostics
        near(log[f'stage{b}_norm'], np.mean(np.sum(of_sets**2, 1)))
        near(log[f'stage{b}_log_ratio'], np.log(d2.mean() / np.mean(np.sum(of_sets**2, 1))))
        near(log[f'stage{b}_log_variance'], np.mean(v))
        near(log[f'stage{b}_rank'], umts.effective_rank(jnp.asarray(of_sets)))
    for name, terms in (('umts', expected), ('mts', unweighted)):
        assert set(terms) == {*REID, *UKD}
        assert set(found['losses'][name].terms) == set(terms)
        for key, value in terms.items():
            near(found['losses'][name].terms[key], value)
    assert 'accuracy' in found['losses']['umts'].diagnostics
    assert 'stage1_log_variance' not in found['losses']['mts'].diagnostics


def test_with_certainty_umts_is_half_of_mts(forward, variables, teachers, batch):
    certain = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if 'log_variance' in str(path) else leaf, variables
    )
    losses = forward(certain, teachers, batch)['losses']
    for name in UKD:
        near(2 * losses['umts'].terms[name], losses['mts'].terms[name])
        assert losses['mts'].terms[name] > 0


def test_some_stages_make_only_their_terms(found, batch):
    some, every = found['losses']['stages 1, 5'], found['losses']['umts']
    assert set(some.terms) == {*REID, 'stage1', 'stage5'}
    for name, value in some.terms.items():
        near(value, every.terms[name])
    assert 'stage2_rank' not in some.diagnostics
    variables = jax.eval_shape(make(stages=(1, 5)).init, jax.random.key(0), batch)
    assert set(variables['params']['heads']) == {'stage1', 'stage5'}
    assert set(variables['batch_stats']['heads']) == {'stage1', 'stage5'}


def test_statistics_after_the_pass(found, variables):
    stats = found['losses']['umts'].batch_stats
    assert jax.tree.structure(stats) == jax.tree.structure(variables['batch_stats'])
    jax.tree.map(near, stats['student'], found['student'][1]['batch_stats'])
    y = vectors_of(found['teacher'])[4]
    layer = variables['params']['heads']['stage5']['teacher']['fc']
    before = variables['batch_stats']['heads']['stage5']['teacher']['bn']['mean']
    after = stats['heads']['stage5']['teacher']['bn']['mean']
    near(after, 0.9 * before + 0.1 * (y @ layer['kernel'] + layer['bias']).mean(0))


def test_variables(batch):
    variables = jax.eval_shape(make().init, jax.random.key(0), batch)
    assert set(variables['params']) == set(variables['batch_stats']) == {'student', 'heads'}
    params = trees.named(variables['params'])
    assert params['student/conv1/kernel'].shape == (3, 3, 3, 4)
    widths = [params[f'heads/stage{b}/student/fc/kernel'].shape for b in umts.STAGES]
    assert widths == [(4, 4), (8, 4), (16, 8), (32, 8), (32, 8)]
    assert params['heads/stage5/teacher/fc/kernel'].shape == (16, 8)  # the T-net's own width
    assert make().frozen == ()


def test_embeddings_ask_only_the_student(found):
    assert found['embedding'].shape == (SETS, 32)
    near(found['embedding'], set_means([found['inference'].embedding])[0])


# The teacher.


def test_targets_are_the_t_nets_in_inference_mode(found):
    assert [x.shape for x in found['targets']] == [(SETS, c) for c in (4, 8, 16, 32, 16)]
    for actual, expected in zip(found['targets'], vectors_of(found['teacher'])):
        near(actual, expected)


def test_targets_of_a_set_do_not_depend_on_the_others(forward, found, variables, teachers, batch):
    other = batch._replace(images=batch.images.at[1:].multiply(3.0))
    targets = forward(variables, teachers, other)['targets']
    for before, after in zip(found['targets'], targets):
        np.testing.assert_array_equal(after[0], before[0])
        assert not np.allclose(after[1:], before[1:])


def test_targets_of_single_images(batch):
    """`mean`: an average over the shots of all five vectors; `singles`: a target per image."""
    teachers = {'teacher': teacher_variables(3)}
    mean, single = (make(teacher_reads=reads) for reads in ('mean', 'singles'))

    @jax.jit
    def everything(teachers, batch):
        targets = [method.teach(teachers, batch) for method in (mean, single)]
        return *targets, t_net().apply(teachers['teacher'], singles(batch.images))

    of_sets, of_images, outputs = everything(teachers, batch)
    vectors = vectors_of(outputs)
    jax.tree.map(near, list(of_images), vectors)
    jax.tree.map(near, list(of_sets), set_means(vectors))
    for method, targets, rows in ((mean, of_sets, SETS), (single, of_images, SETS * SHOTS)):
        assert {len(x) for x in targets} == {rows}
        variables = jax.eval_shape(method.init, jax.random.key(0), batch)
        losses = jax.eval_shape(method.loss, variables, targets, batch, None, 0.0)
        assert set(losses.terms) == {*REID, *UKD}


def optimizer(**changes):
    return optimizers.create(**(ADAM | changes))


def test_a_step_leaves_the_teacher_and_frozen_heads_as_they_were(variables, teachers, batch):
    """The real step, thrice: whatever Adam and weight decay do to all else."""
    method = make(teacher_head='frozen', head_bn_affine=True, axis_name=parallel.AXIS)
    assert method.frozen == tuple(f'heads/stage{b}/teacher/' for b in umts.STAGES)
    before = random_init(method.init, batch)
    assert set(before['params']) == {'student', 'heads'}  # there is no teacher to update
    mesh = parallel.mesh(jax.devices()[:1])
    tx = optimizer(frozen=method.frozen)
    step = loop.make_train_step(method, lambda b: (b, b), tx, mesh, seed=0, steps=3)
    fresh = jax.tree.map(jnp.array, before)
    state = loop.TrainState(jnp.zeros((), jnp.int32), fresh, tx.init(fresh['params']))
    state, taught = parallel.replicate((state, jax.tree.map(jnp.array, teachers)), mesh)
    for _ in range(3):
        state, metrics = step(state, taught, batch)
    assert np.isfinite(metrics['loss'])
    jax.tree.map(np.testing.assert_array_equal, taught, teachers)
    old, new = (trees.named(tree['params']) for tree in (before, state.variables))
    unchanged = {name for name in old if np.array_equal(old[name], new[name])}
    leaves = ('fc/kernel', 'fc/bias', 'bn/scale', 'bn/bias')
    assert unchanged == {prefix + leaf for prefix in method.frozen for leaf in leaves}


# Who learns from what.


@pytest.fixture(scope='module')
def gradients(variables, teachers, batch, found):
    """A compiled function: the gradients of the sum of the named terms."""

    @jax.jit
    def of(params, chosen):
        def total(params):
            losses = make().loss(variables | {'params': params}, found['targets'], batch, None, 0.0)
            return sum(chosen[name] * term for name, term in losses.terms.items())

        return jax.grad(total)(params)

    def named(*terms, params=variables['params']):
        return of(params, {name: float(name in terms) for name in (*REID, *UKD)})

    return named


def test_the_re_id_loss_trains_only_the_student(gradients):
    found = gradients(*REID)
    assert nonzero(found['student']['conv1'])
    assert nonzero(found['student']['neck'])
    assert not nonzero(found['heads'])


@pytest.mark.parametrize('stage', umts.STAGES)
def test_a_stage_trains_its_heads_and_the_student_up_to_it(gradients, stage):
    found = gradients(f'stage{stage}')
    assert nonzero(found['student']['conv1'])
    for b in (1, 2, 3, 4):
        assert nonzero(found['student'][f'layer{b}_0']) == (b <= stage)
    assert not nonzero(found['student']['neck'])
    for b in umts.STAGES:
        sides = [nonzero(found['heads'][f'stage{b}'][s]['fc']) for s in ('teacher', 'student')]
        assert sides == [b == stage] * 2  # the paper trains θ_t with θ_s
        assert nonzero(found['heads'][f'stage{b}']['log_variance']) == (b == stage)


def test_trained_teacher_heads_change(gradients, variables):
    tx, method = optimizer(frozen=make().frozen), make(teacher_head='trained')
    assert method.frozen == ()

    @jax.jit
    def update(found, state, params):
        updates, state = tx.update(found, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, variables['params'])
    state = tx.init(params)
    for _ in range(3):
        params, state = update(gradients(*REID, *UKD, params=params), state, params)
    for b in umts.STAGES:
        old, new = (tree['heads'][f'stage{b}'] for tree in (variables['params'], params))
        assert np.abs(new['teacher']['fc']['kernel'] - old['teacher']['fc']['kernel']).max() > 1e-3


@pytest.fixture(scope='module')
def joint(batch):
    """End to end: (gradients of the named terms, losses, the T-net's own outputs), compiled."""
    method = make(joint=True)
    variables = random_init(method.init, batch)

    @jax.jit
    def of(params, chosen):
        def total(params):
            losses = method.loss(variables | {'params': params}, (), batch, None, 0.0)
            return sum(chosen[name] * term for name, term in losses.terms.items()), losses

        own = trees.part(variables, 'teacher')
        outputs = create().apply(own, stacked(batch.images), True, mutable=['batch_stats'])
        return *jax.grad(total, has_aux=True)(params), outputs

    def named(*terms):
        chosen = {name: float(name in terms) for name in (*REID, *T_REID, *UKD)}
        return of(variables['params'], chosen)

    return variables, named


def test_joint_variables(joint, batch):
    variables, _ = joint
    for tree in variables.values():
        assert set(tree) == {'student', 'heads', 'teacher'}
    assert variables['params']['teacher']['conv1']['kernel'].shape == (3, 3, 6, 4)
    assert make(joint=True).teach({}, batch) == ()


def test_joint_terms(joint):
    _, found = joint
    _, losses, (outputs, changed) = found(*REID)
    assert set(losses.terms) == {*REID, *T_REID, *UKD}
    objective = supervised.Objective(**OBJECTIVE)
    expected, log = supervised.terms(outputs, jnp.array(LABELS), objective, None)
    for name, value in expected.items():
        near(losses.terms[f'teacher_{name}'], value)
    near(losses.diagnostics['teacher_accuracy'], log['accuracy'])
    assert set(losses.batch_stats) == {'student', 'heads', 'teacher'}
    jax.tree.map(near, losses.batch_stats['teacher'], changed['batch_stats'])


def test_joint_the_t_net_learns_from_its_own_loss_only(joint):
    _, found = joint
    of_transfer = found(*UKD)[0]
    assert not nonzero(of_transfer['teacher'])
    assert nonzero(of_transfer['student'])
    assert nonzero(of_transfer['heads']['stage5']['teacher'])
    of_own = found(*T_REID)[0]
    assert nonzero(of_own['teacher']['conv1'])
    assert nonzero(of_own['teacher']['neck'])
    assert not nonzero((of_own['student'], of_own['heads']))


# Diagnostics.


def matched(seed=0, equal=False, sets=SETS, width=6):
    rng = np.random.default_rng(seed)
    of_sets, noise = (np.abs(rng.normal(size=(n, width))) for n in (sets, sets * SHOTS))
    target = np.repeat(of_sets, SHOTS, axis=0)
    values = target, target if equal else noise, np.abs(rng.normal(size=sets * SHOTS)), of_sets
    return Matched(*(jnp.asarray(x, jnp.float32) for x in values))


def diagnostics(one, axis_name=None):
    weights = OPTIONS['weights']
    return umts.terms({3: one}, weights=weights, uncertainty=True, axis_name=axis_name)[1]


def test_the_log_ratio_falls_without_end_where_the_heads_are_equal():
    assert abs(diagnostics(matched())['stage3_log_ratio']) < 2
    assert diagnostics(matched(equal=True))['stage3_log_ratio'] < -25


def test_the_norm_is_zero_where_the_heads_are():
    zero = jax.tree.map(jnp.zeros_like, matched())
    log = diagnostics(zero)
    assert log['stage3_norm'] == log['stage3_rank'] == 0
    assert all(np.isfinite(value) for value in log.values())


def test_diagnostics_across_devices():
    one = matched(sets=8)
    mapped = jax.shard_map(
        partial(diagnostics, axis_name=parallel.AXIS),
        mesh=parallel.mesh(),
        in_specs=P(parallel.AXIS),
        out_specs=P(),
        check_vma=False,
    )
    expected = diagnostics(one)
    actual = jax.jit(mapped)(one)
    for name in ('norm', 'log_ratio', 'rank'):
        near(actual[f'stage3_{name}'], expected[f'stage3_{name}'])
    two = Matched(*(x[: len(x) // 4] for x in one))
    assert not np.allclose(diagnostics(two)['stage3_rank'], actual['stage3_rank'])


def test_effective_ranks():
    line = jnp.outer(jnp.arange(5.0), jnp.array([1.0, -2.0, 3.0]))
    np.testing.assert_allclose(umts.effective_rank(line), 1, rtol=1e-5)
    np.testing.assert_allclose(umts.effective_rank(line + 7.0), 1, rtol=1e-3)  # about the mean
    for n in (2, 5, 9):
        np.testing.assert_allclose(umts.effective_rank(jnp.eye(n)), n - 1, rtol=1e-5)
        np.testing.assert_allclose(umts.effective_rank(3 * jnp.eye(n) + 1), n - 1, rtol=1e-4)
    assert umts.effective_rank(jnp.ones((4, 3))) == 0


# The trap of the literal text: zero is the best that the transfer alone can do.


def norms_over_training(affine, steps=400, sets=8, width=16):
    """|θ_t|² at each step of a linear student under eq. 3 alone, its teacher seeing more."""
    match = heads.StageHeads((1,), (2,), True, affine, None)
    mixing = jax.random.normal(jax.random.key(0), (width, width)) / 4
    tx = optimizer()

    def draw(key):
        of_set, of_shot = (jax.random.fold_in(key, i) for i in range(2))
        who = jax.random.normal(of_set, (sets, width))
        shots = who[:, None] + jax.random.normal(of_shot, (sets, SHOTS, width))
        return jnp.tanh(2 * who @ mixing), shots.reshape(-1, width)

    teacher, student = draw(jax.random.key(1))
    shapes = jax.eval_shape(
        lambda: match.init(jax.random.key(0), (teacher,), (student,), train=False)
    )
    start = random_variables(shapes)
    if affine:
        for side in ('teacher', 'student'):
            start['params']['stage1'][side]['bn'] = {'scale': np.ones(8), 'bias': np.zeros(8)}
    params = jax.tree.map(
        partial(jnp.asarray, dtype=jnp.float32),
        {'heads': start['params'], 'student': np.eye(width)},
    )

    def loss(params, key):
        teacher, student = draw(key)
        own = start | {'params': params['heads']}
        sides = (teacher,), (student @ params['student'],)
        matched, _ = match.apply(own, *sides, train=True, mutable=['batch_stats'])
        terms, log = umts.terms(matched, weights=[1.0] * 5, uncertainty=True, axis_name=None)
        return terms['stage1'], log['stage1_norm']

    def step(carried, key):
        params, state = carried
        found, norm = jax.grad(loss, has_aux=True)(params, key)
        updates, state = tx.update(found, state, params)
        return (optax.apply_updates(params, updates), state), norm

    def training(params):
        keys = jax.random.split(jax.random.key(2), steps)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[1]

    return np.asarray(jax.jit(training)(params))


@pytest.mark.parametrize('affine', [True, False])
def test_trained_teacher_heads_with_an_affine_batch_norm_collapse(affine):
    """Assumption A-UMTS-HEAD: an affine BatchNorm lets both heads shrink to zero."""
    norms = norms_over_training(affine)
    first, last = norms[:10].mean(), norms[-10:].mean()
    assert first > 2
    if affine:
        assert last < 0.02 * first
    else:
        assert 0.8 * first < last < 1.25 * first


# Errors.


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'stages': (1, 6)}, r'method\.stages=\(1, 6\): .*\(1, 2, 3, 4, 5\)'),
        ({'stages': (2, 2)}, r'method\.stages=\(2, 2\)'),
        ({'stages': ()}, r'method\.stages=\(\)'),
        ({'weights': (0.1,)}, r'method\.weights and method\.reductions .* 5 stages'),
        ({'reductions': (1,) * 6}, r'method\.weights and method\.reductions .* 5 stages'),
        ({'teacher_head': 'x'}, r"method\.teacher_head='x': choose one of trained, frozen$"),
        ({'teacher_reads': 'x'}, r"method\.teacher_reads='x': .*singles, mean, stacked$"),
        ({'feature': 'x'}, r"method\.feature='x': choose one of embedding, neck$"),
        ({'joint': True, 'teacher_reads': 'mean'}, r'method\.joint=True .*stacked'),
    ],
)
def test_values_that_can_not_be(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_teachers_that_do_not_fit():
    for given in ({}, {'mentor': t_net()}, {'teacher': t_net(), 'mentor': t_net()}):
        with pytest.raises(ValueError, match=r'needs config\.teachers\.teacher'):
            umts.make(create(), given, **OPTIONS)
    with pytest.raises(ValueError, match=r'joint=True .*give no teachers'):
        umts.make(create(), {'teacher': t_net()}, **(OPTIONS | {'joint': True}))


def test_a_misspelt_key_is_named():
    with pytest.raises(TypeError, match='head_affine'):
        make(head_affine=True)


def test_students_of_one_seed_start_alike_and_their_teacher_elsewhere(batch):
    key = jax.random.key(3, impl='rbg')
    options = {'feature': 'embedding', **OBJECTIVE}
    alone = supervised.make(create(), {}, reads='singles', **options).init(key, batch)
    stack = supervised.make(create(), {}, reads='stacked', **options).init(key, batch)
    taught = make().init(key, batch)
    start = trees.named(trees.part(alone, 'student')['params'])
    for name, leaf in trees.named(trees.part(taught, 'student')['params']).items():
        np.testing.assert_array_equal(leaf, start[name])
    kernel = trees.named(trees.part(stack, 'student')['params'])['layer1_0/conv1/kernel']
    assert (kernel != start['layer1_0/conv1/kernel']).any()
