"""Identity loss and batch-hard triplet: the baseline, and how every teacher is trained."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kd_jax import losses, trees, views
from kd_jax.methods import Losses, Method
from kd_jax.networks import Outputs
from kd_jax.trees import Tree
from kd_jax.views import Batch

FEATURES = ('embedding', 'neck')


class Objective(NamedTuple):
    """The re-ID loss: weighted cross-entropy with label smoothing + weighted batch-hard triplet.

    `margin=None` is the soft margin log(1 + exp(·)).
    """

    label_smoothing: float
    margin: float | None
    triplet_weight: float = 1.0
    identity_weight: float = 1.0


def make(
    student: nn.Module,
    teachers: dict[str, nn.Module],
    *,
    reads: str,
    feature: str,
    axis_name: str | None = None,
    **objective: Any,
) -> Method:
    """Cross-entropy + batch-hard triplet on what the network reads of a set.

    `reads`: 'singles' (each image an example), 'mean' (the mean over a set's images of embedding
    and logits: UMTS' Scheme B) or 'stacked' (a set's images stacked in channels: Scheme C).
    `feature` is the vector that is ranked, before the neck ('embedding') or after ('neck'); the
    rest are `Objective`'s fields. Raises ValueError for teachers or unknown words, TypeError for
    unknown keys.
    """
    if teachers:
        raise ValueError(f'method supervised takes no teachers, given {", ".join(teachers)}')
    check_choice('method.reads', reads, views.READS)
    check_choice('method.feature', feature, FEATURES)
    weigh = partial(terms, objective=Objective(**objective), axis_name=axis_name)

    def init(rng, batch):
        key = student_key(rng) if reads == 'singles' else rng
        return trees.join(student=student.init(key, views.read(batch.images, reads)))

    def loss(variables, targets, batch, rng, progress):
        outputs, stats = forward(student, trees.part(variables, 'student'), batch, reads)
        return Losses(*weigh(outputs, example_labels(batch, reads)), {'student': stats})

    return Method(init, no_targets, loss, partial(embed, student, reads, feature))


def student_key(rng: jax.Array) -> jax.Array:
    """The key that the student of single images starts from, in every method.

    Students of one seed start alike, whatever the method, and a T-net of that seed elsewhere.
    """
    return jax.random.split(rng, 3)[0]


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError that names the key and its choices."""
    if value not in choices:
        raise ValueError(f'{key}={value!r}: choose one of {", ".join(choices)}')


def no_targets(teachers: Tree, batch: Batch) -> tuple:
    """The targets of a method without teachers."""
    return ()


def forward(network: nn.Module, variables: Tree, batch: Batch, reads: str) -> tuple[Outputs, Tree]:
    """The network in training mode on what it reads; its outputs and new running statistics."""
    images = views.read(batch.images, reads)
    outputs, changed = network.apply(variables, images, train=True, mutable=['batch_stats'])
    if reads == 'mean':
        outputs = over_sets(outputs, len(batch.labels))
    return outputs, changed['batch_stats']


def over_sets(outputs: Outputs, sets: int) -> Outputs:
    """Outputs per set: the mean over its images of embedding, neck and logits."""
    return Outputs(outputs.stages, *(views.set_mean(x, sets) for x in outputs[1:]))


def example_labels(batch: Batch, reads: str) -> Int[Array, 'b']:
    """A label per example that the network reads: per image, or per set."""
    images_per_set = batch.images.shape[1] if reads == 'singles' else 1
    return views.per_image(batch.labels, images_per_set)


def terms(
    outputs: Outputs, labels: Int[Array, 'b'], objective: Objective, axis_name: str | None
) -> tuple[dict, dict]:
    """Weighted terms `identity` and `triplet`, and the batch accuracy."""
    identity = losses.cross_entropy(outputs.logits, labels, objective.label_smoothing)
    triplet = losses.batch_hard_triplet(
        outputs.embedding, labels, objective.margin, axis_name
    ).mean()
    accuracy = jnp.mean(outputs.logits.argmax(axis=-1) == labels)
    weighted = {'identity': objective.identity_weight * identity.mean()}
    weighted['triplet'] = objective.triplet_weight * triplet
    return weighted, {'accuracy': accuracy}


def embed(
    network: nn.Module,
    reads: str,
    feature: str,
    variables: Tree,
    images: Float[Array, 's n h w c'],
) -> Float[Array, 's d']:
    """One vector a set: of the stacked images, else the mean of the images' vectors."""
    student = trees.part(variables, 'student')
    outputs = network.apply(student, views.read(images, reads), train=False)
    vectors = getattr(outputs, feature)
    return vectors if reads == 'stacked' else views.set_mean(vectors, len(images))
