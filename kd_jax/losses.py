"""The papers' equations on arrays: every loss returns one value per example.

The caller takes the mean and the weight. All are finite, with finite gradients, at identical
embeddings and at extreme logits in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SMALLEST_SQUARED_DISTANCE = 1e-12  # below it a distance is a constant: the root has no slope at 0


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
    others, other_labels, first = embeddings, labels, 0
    if axis_name is not None:
        others = jax.lax.all_gather(embeddings, axis_name, tiled=True)
        other_labels = jax.lax.all_gather(labels, axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * len(labels)
    squared = squared_distances(embeddings, others)
    distance = jnp.sqrt(jnp.maximum(squared, SMALLEST_SQUARED_DISTANCE))
    same = labels[:, None] == other_labels[None, :]
    itself = first + jnp.arange(len(labels))[:, None] == jnp.arange(len(others))[None, :]
    positive = jnp.max(jnp.where(same & ~itself, distance, 0.0), axis=1)
    negative = jnp.min(jnp.where(same, jnp.inf, distance), axis=1)
    gap = positive - negative
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
    others = teacher, student
    if axis_name is not None:
        others = jax.lax.all_gather(others, axis_name, tiled=True)
    pairs = zip((teacher, student), others)
    of_teacher, of_student = (squared_distances(own, other) for own, other in pairs)
    return 0.5 * jnp.square(of_student - of_teacher).mean(axis=-1)
