"""What VKD reads of a set of views, against the numbers of its code."""

import jax
import jax.numpy as jnp
from test_losses import assert_near, golden
from test_vkd import OPTIONS

from kd_jax import trees
from kd_jax.methods import vkd
from kd_jax.networks.network import Network
from kd_jax.views import Batch

FACTS = {name: jnp.float32(value) for name, value in golden('head').items()}
SETS, VIEWS, WIDTH = FACTS['x'].shape


class Pooled(Network):
    """A neck that is shown features in place of images, each of one pixel."""

    def stage(self, number, x, layers):
        return x


NETWORK = Pooled(
    classes=5,
    width=64,
    stem='small',
    last_stride=1,
    last_block_relu='all',
    neck='bnneck',
    neck_width=0,
    inflate=1,
    dtype='float32',
    conv='xla',
    axis_name=None,
    part=(),
    part_size=(1, 1),
)
PARAMS = {'neck_bn': {'scale': FACTS['bn_weight']}, 'classifier': {'kernel': FACTS['cls_weight'].T}}
BEFORE = {'mean': FACTS['bn_mean0'], 'var': FACTS['bn_var0']}


def near(actual, name):
    assert_near(actual, FACTS[name], 1e-5)


def variables(params):
    return {'params': {'neck': params}, 'batch_stats': {'neck': {'neck_bn': BEFORE}}}


def batch(features):
    zeros = jnp.zeros((SETS, VIEWS), jnp.int32)
    return Batch(features[:, :, None, None], jnp.arange(SETS), zeros, zeros.astype(jnp.uint32))


def made(**options):
    return vkd.make(NETWORK, {'teacher': NETWORK}, **OPTIONS | {'student_views': VIEWS} | options)


def test_a_teacher_that_normalises_by_its_batch():
    method = made(teacher_batch_norm='batch')

    def value(params, features):
        found = method.teach({'teacher': variables(params)}, batch(features))
        return (found.logits * FACTS['cotangent']).sum(), found

    gradient = jax.jit(jax.grad(value, (0, 1), has_aux=True))
    (of_params, of_features), found = gradient(PARAMS, FACTS['x'])
    near(found.embedding, 'pooled')
    near(found.logits, 'logits_train')
    near(of_features, 'grad_x')
    near(of_params['neck_bn']['scale'], 'grad_bn_weight')
    near(of_params['classifier']['kernel'].T, 'grad_cls_weight')


def test_a_teacher_that_normalises_by_running_statistics():
    taught = {'teacher': variables(PARAMS)}
    found = made(teacher_batch_norm='running').teach(taught, batch(FACTS['x']))
    near(found.embedding, 'pooled')
    near(found.logits, 'logits_eval')


def test_the_students_statistics_after():
    method, whole = made(), batch(FACTS['x'])
    targets = method.teach({'teacher': variables(PARAMS)}, whole)
    own = trees.join(student=variables(PARAMS))
    after = method.loss(own, targets, whole, None, 0.0).batch_stats['student']['neck']['neck_bn']
    near(after['mean'], 'bn_mean1')
    # PyTorch puts the unbiased variance of the batch in the running one, Flax the biased.
    rows, kept = SETS * VIEWS, 0.9 * BEFORE['var']
    near(kept + (after['var'] - kept) * rows / (rows - 1), 'bn_var1')
