"""The papers' equations on arrays: every loss returns one value per example.

The caller takes the mean and the weight. All are finite, with finite gradients, at identical
embeddings and at extreme logits in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Below it a distance, or a length, is a constant: its root has no slope at 0.
SMALLEST_SQUARED_DISTANCE = 1e-12


def cross_entropy(
    logits: Float[Array, 'b c'], labels: Int[Array, 'b'], smoothing: float = 0.0
) -> Float[Array, 'b']:
    """Cross-entropy against (1 - smoothing) one-hot + smoothing / c.

    Source: label smoothing as in Szegedy et al. (CVPR 2016), the form that re-ID code uses.
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
    return -(1.0 - smoothing) * of_label - smoothing * log_p.mean(axis=-1)


def squared_distances(x: Float[Array, 'm d'], y: Float[Array, 'n d']) -> Float[Array, 'm n']:
    """Squared Euclidean distance of every row of x to every row of y, never below zero."""
    product = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.square(x).sum(-1)[:, None] + jnp.square(y).sum(-1)[None, :]
    return jnp.maximum(squares - 2.0 * product, 0.0)


def batch_hard_triplet(
    embeddings: Float[Array, 'b d'],
    labels: Int[Array, 'b'],
    margin: float | None = None,
    axis_name: str | None = None,
) -> Float[Array, 'b']:
    """Triplet loss of each anchor with its hardest positive and negative (Hermans et al. 2017).

    `margin=None` is the soft margin log(1 + exp(positive - negative)), a number the hinge. The
    positive excludes the anchor itself (distance 0 where there is no other); with no negative at
    all the anchor costs nothing. With `axis_name` an anchor is compared with the embeddings of
    all devices.
    """
    distance = distances(embeddings, axis_name)
    positives, negatives = _relations(labels, axis_name)
    positive = jnp.max(jnp.where(positives, distance, 0.0), axis=1)
    negative = jnp.min(jnp.where(negatives, distance, jnp.inf), axis=1)
    return _hinge(positive - negative, margin)


def distances(embeddings: Float[Array, 'b d'], axis_name: str | None) -> Float[Array, 'b n']:
    """Euclidean distance of every example to all, those of other devices too."""
    squared = squared_distances(embeddings, _everyone(embeddings, axis_name))
    return jnp.sqrt(jnp.maximum(squared, SMALLEST_SQUARED_DISTANCE))


def _relations(labels: Int[Array, 'b'], axis_name: str | None) -> tuple:
    """Which of all examples are positives of each, itself left out, and which are negatives."""
    others = _everyone(labels, axis_name)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(labels)
    same = labels[:, None] == others[None, :]
    itself = first + jnp.arange(len(labels))[:, None] == jnp.arange(len(others))[None, :]
    return same & ~itself, ~same


def _everyone(values: jax.Array, axis_name: str | None) -> jax.Array:
    return values if axis_name is None else jax.lax.all_gather(values, axis_name, tiled=True)


def _hinge(gap: Float[Array, 'b'], margin: float | None) -> Float[Array, 'b']:
    return jax.nn.softplus(gap) if margin is None else jax.nn.relu(margin + gap)


def regression(target: Float[Array, 'b d'], prediction: Float[Array, 'b d']) -> Float[Array, 'b']:
    """Squared distance of a prediction to its target, summed over dimensions (UMTS eq. 1, 2)."""
    return jnp.square(target - prediction).sum(axis=-1)


def uncertain_regression(
    target: Float[Array, 'b d'], prediction: Float[Array, 'b d'], log_variance: Float[Array, 'b']
) -> Float[Array, 'b']:
    """Heteroscedastic regression of a student on its teacher, one value per example (UMTS eq. 3).

    exp(-v) / 2 · |target - prediction|² + v with v = `log_variance`; the paper's factor of v is
    1, not Kendall and Gal's 1/2.
    """
    return 0.5 * jnp.exp(-log_variance) * regression(target, prediction) + log_variance


def soft_target_kl(
    teacher_logits: Float[Array, 'b c'], student_logits: Float[Array, 'b c'], temperature: float
) -> Float[Array, 'b']:
    """T² KL(softmax(teacher / T) ‖ softmax(student / T)), one value per example (VKD, L_KD)."""
    log_teacher = jax.nn.log_softmax(teacher_logits / temperature, axis=-1)
    log_student = jax.nn.log_softmax(student_logits / temperature, axis=-1)
    divergence = jnp.exp(log_teacher) * (log_teacher - log_student)
    return temperature**2 * divergence.sum(axis=-1)


def squared_logit_difference(
    teacher_logits: Float[Array, 'b c'], student_logits: Float[Array, 'b c']
) -> Float[Array, 'b']:
    """Mean over classes of the squared difference of logits (VKD's code, `logits_dist=mse`)."""
    return jnp.square(student_logits - teacher_logits).mean(axis=-1)


def distance_preservation(
    teacher: Float[Array, 'b d_t'], student: Float[Array, 'b d_s'], axis_name: str | None = None
) -> Float[Array, 'b']:
    """How far the student's squared distances are from the teacher's (VKD, L_DP).

    Half the mean over all others, the example itself among them, of the squared difference of
    the squared Euclidean distances. With `axis_name` the others are those of all devices.
    """
    of_teacher, of_student = (
        squared_distances(own, _everyone(own, axis_name)) for own in (teacher, student)
    )
    return 0.5 * jnp.square(of_student - of_teacher).mean(axis=-1)


def consensus_cosine(
    probabilities: Float[Array, 'b c'], peer: Float[Array, 'b c']
) -> Float[Array, 'b']:
    """1 - cos of the class probabilities of a branch and of its detached peer (KSL, A-KSL-4)."""
    peer = jax.lax.stop_gradient(peer)
    return 1.0 - (direction(probabilities) * direction(peer)).sum(axis=-1)


def consensus_distance(
    embeddings: Float[Array, 'b d'], peer: Float[Array, 'b d_p'], axis_name: str | None = None
) -> Float[Array, 'b']:
    """How far a branch's distances are from those of its detached peer (KSL, A-KSL-5).

    The mean over all others, the example itself among them, of the squared difference of the
    Euclidean distances. With `axis_name` the others are those of all devices.
    """
    of_peer = distances(jax.lax.stop_gradient(peer), axis_name)
    return jnp.square(distances(embeddings, axis_name) - of_peer).mean(axis=-1)


def consensus_hard(
    embeddings: Float[Array, 'b d'],
    peer: Float[Array, 'b d_p'],
    labels: Int[Array, 'b'],
    margin: float | None = None,
    axis_name: str | None = None,
) -> Float[Array, 'b']:
    """Triplet loss of a branch with the positive and negative hardest to its peer (KSL, A-KSL-6).

    As `batch_hard_triplet`, whose value it is where both find the same ones; the picks have no
    gradient.
    """
    own = distances(embeddings, axis_name)
    of_peer = distances(jax.lax.stop_gradient(peer), axis_name)
    positives, negatives = _relations(labels, axis_name)
    farthest = jnp.argmax(jnp.where(positives, of_peer, -1.0), axis=1, keepdims=True)
    nearest = jnp.argmin(jnp.where(negatives, of_peer, jnp.inf), axis=1, keepdims=True)
    positive = jnp.take_along_axis(jnp.where(positives, own, 0.0), farthest, axis=1)
    negative = jnp.take_along_axis(jnp.where(negatives, own, jnp.inf), nearest, axis=1)
    return _hinge((positive - negative)[:, 0], margin)


def direction_regression(
    target: Float[Array, '*b d'], prediction: Float[Array, '*b d']
) -> Float[Array, '*b']:
    """Squared distance of the directions of a prediction and of its detached target, in [0, 4].

    Both divided by their length; of feature maps at every place. Source: Factorized Distillation's
    two losses (A-FD-5), and a reading of KSL's embedding constraint (A-KSL-5, 'pointwise').
    """
    apart = direction(jax.lax.stop_gradient(target)) - direction(prediction)
    return jnp.square(apart).sum(axis=-1)


def direction(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    """Vectors of length 1, and zero where there is none to tell."""
    squared = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, SMALLEST_SQUARED_DISTANCE))
