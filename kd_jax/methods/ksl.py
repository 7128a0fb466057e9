"""KSL: knowledge consensus constraints (Fan et al., ACM MM 2021), reconstructed from its abstract.

Branches of one network, alike but for their parameters, are trained together on the same images
and agree in pairs, each with its detached peer, on class probabilities, on distances and on what
is hard. The student is the trunk with the first branch; the others are dropped at export.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax import losses, trees, views
from kd_jax.methods import Losses, Method, supervised
from kd_jax.networks import Outputs
from kd_jax.networks.network import HEAD
from kd_jax.trees import Tree
from kd_jax.views import Batch

SPLITS = {'layer3': 3, 'layer4': 4, 'gap': HEAD}
PROBABILITIES = ('cosine', 'kl')
DISTANCES = ('matrix', 'pointwise')
MINING = ('peer', 'union')


class Consensus(NamedTuple):
    """The three constraints, each with its form and weight; one of weight 0 is not computed.

    `probabilities`: 'cosine', or 'kl' with its `temperature` (A-KSL-4). `distances`: of the
    'matrix' of all pairs, or 'pointwise' of directions (A-KSL-5). `mining`: the triplets that are
    hard to the 'peer', or those of the 'union' of the peer's picks and the branch's own, of which
    its own are always the hardest to it: its triplet loss again, a control (A-KSL-6). `ramp`: the
    share of the training over which the weights rise from zero (A-KSL-8).
    """

    probabilities: str
    temperature: float
    distances: str
    mining: str
    probability_weight: float
    distance_weight: float
    hard_weight: float
    ramp: float


class Parts(NamedTuple):
    """What the functions of the method share."""

    student: nn.Module
    names: tuple[str, ...]  # of the branches: the student, then those beside it
    split: int
    objective: supervised.Objective
    consensus: Consensus
    axis_name: str | None


def make(
    student: nn.Module,
    teachers: dict[str, nn.Module],
    *,
    branches: int,
    split_at: str,
    feature: str,
    probabilities: str,
    temperature: float,
    distances: str,
    mining: str,
    probability_weight: float,
    distance_weight: float,
    hard_weight: float,
    ramp: float,
    axis_name: str | None = None,
    **objective: Any,
) -> Method:
    """Σ_b (L_CE + L_TR) + r(t) (w_cos L_cos + w_euc L_euc + w_hsm L_hsm), KSL as reconstructed.

    `branches` (A-KSL-1) part in front of stage 3 or 4 or of the pooled feature (`split_at`
    'layer3', 'layer4', 'gap'; A-KSL-2), each with BatchNorms and a classifier of its own; the
    trunk gets the mean of their gradients (A-KSL-3). At 'gap' with a `bnneck` they share the
    embedding, and with it distances and triplets. A constraint is summed over branches and
    averaged over their peers (A-KSL-7). One branch is the baseline. The rest are `Consensus`'s
    and `supervised.Objective`'s fields. Raises ValueError for unknown words, numbers that can not
    be, and teachers.
    """
    if teachers:
        raise ValueError(f'method ksl takes no teachers, given {", ".join(teachers)}')
    base = supervised.make(
        student, {}, reads='singles', feature=feature, axis_name=axis_name, **objective
    )
    consensus = Consensus(
        probabilities,
        temperature,
        distances,
        mining,
        probability_weight,
        distance_weight,
        hard_weight,
        ramp,
    )
    _check(branches, split_at, consensus)
    names = ('student', *(f'branch{number}' for number in range(1, branches)))
    parts = Parts(
        student,
        names,
        SPLITS[split_at],
        supervised.Objective(**objective),
        consensus,
        axis_name,
    )
    return base._replace(init=partial(_init, parts), loss=partial(_loss, parts))


def branch(variables: Tree, name: str) -> Tree:
    """The variables of the whole network that ends in a branch, as those of a student."""
    trunk, tail = trees.part(variables, 'student'), trees.part(variables, name)
    return trees.join(student={kind: {**trunk[kind], **tail[kind]} for kind in trunk})


def _init(parts: Parts, rng: jax.Array, batch: Batch) -> Tree:
    student, images = parts.student, views.singles(batch.images)
    variables = {'student': student.init(supervised.student_key(rng), images)}
    trunk = partial(student.apply, train=False, split=parts.split, method='trunk')
    shared = jax.eval_shape(lambda own: trunk(own, images)[-1], variables['student'])
    for number, name in enumerate(parts.names[1:], 1):
        key, blank = jax.random.fold_in(rng, number), jnp.zeros(shared.shape, shared.dtype)
        variables[name] = student.init(key, blank, False, parts.split, method='tail')
    return trees.join(**variables)


def _loss(parts: Parts, variables: Tree, targets, batch: Batch, rng, progress) -> Losses:
    outputs, stats = _outputs(parts, variables, batch)
    labels = supervised.example_labels(batch, 'singles')
    weigh = partial(
        supervised.terms, labels=labels, objective=parts.objective, axis_name=parts.axis_name
    )
    own = [weigh(one) for one in outputs]
    terms = {key: sum(found[key] for found, _ in own) for key in own[0][0]}
    ramp = parts.consensus.ramp
    rise = jnp.minimum(1.0, progress / ramp) if ramp else 1.0
    for name, (weight, constraint) in constraints(parts, labels).items():
        if weight:
            terms[name] = rise * weight * over_pairs(constraint, outputs)
    classes = jnp.stack([one.logits.argmax(axis=-1) for one in outputs])
    agreement = jnp.mean((classes == classes[0]).all(axis=0))
    return Losses(terms, own[0][1] | {'agreement': agreement}, stats)


def _outputs(parts: Parts, variables: Tree, batch: Batch) -> tuple[list[Outputs], Tree]:
    """The outputs of every branch in training mode, and all new running statistics."""
    apply = partial(parts.student.apply, train=True, split=parts.split, mutable=['batch_stats'])
    own, images = trees.part(variables, 'student'), views.singles(batch.images)
    maps, changed = apply(own, images, method='trunk')
    shared = scaled_gradient(maps[-1], 1 / len(parts.names))
    outputs, stats = [], {}
    for name in parts.names:
        tail = trees.part(variables, name)
        tail = {**tail, **changed} if name == 'student' else tail
        found, after = apply(tail, shared, method='tail')
        outputs.append(found)
        stats[name] = after['batch_stats']
    return outputs, stats


def constraints(parts: Parts, labels: jax.Array) -> dict[str, tuple[float, Callable]]:
    """The weight of each constraint, and its value per image for a branch and its peer."""
    how, axis_name = parts.consensus, parts.axis_name
    margin = parts.objective.margin

    def probabilities(one: Outputs, peer: Outputs):
        if how.probabilities == 'kl':
            detached = jax.lax.stop_gradient(peer.logits)
            return losses.soft_target_kl(detached, one.logits, how.temperature)
        return losses.consensus_cosine(jax.nn.softmax(one.logits), jax.nn.softmax(peer.logits))

    def distances(one: Outputs, peer: Outputs):
        if how.distances == 'pointwise':
            return losses.direction_regression(peer.embedding, one.embedding)
        return losses.consensus_distance(one.embedding, peer.embedding, axis_name)

    def hard(one: Outputs, peer: Outputs):
        if how.mining == 'union':
            return losses.batch_hard_triplet(one.embedding, labels, margin, axis_name)
        return losses.consensus_hard(one.embedding, peer.embedding, labels, margin, axis_name)

    return {
        'probabilities': (how.probability_weight, probabilities),
        'distances': (how.distance_weight, distances),
        'hard': (how.hard_weight, hard),
    }


def over_pairs(constraint: Callable, outputs: list[Outputs]) -> jax.Array:
    """Σ_b of the mean over the peers of b of the mean over images; 0 without peers."""
    pairs = [
        constraint(one, peer).mean()
        for b, one in enumerate(outputs)
        for c, peer in enumerate(outputs)
        if b != c
    ]
    return sum(pairs, jnp.zeros(())) / max(1, len(outputs) - 1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def scaled_gradient(x: jax.Array, scale: float) -> jax.Array:
    """x, its gradient multiplied by `scale` (Song and Chai, NeurIPS 2018: backprop rescaling)."""
    return x


scaled_gradient.defvjp(lambda x, scale: (x, None), lambda scale, _, g: (scale * g,))


def _check(branches: int, split_at: str, consensus: Consensus) -> None:
    choices = {
        'split_at': (split_at, tuple(SPLITS)),
        'probabilities': (consensus.probabilities, PROBABILITIES),
        'distances': (consensus.distances, DISTANCES),
        'mining': (consensus.mining, MINING),
    }
    for key, (value, known) in choices.items():
        supervised.check_choice(f'method.{key}', value, known)
    if branches < 1:
        raise ValueError(f'method.branches={branches}: one, which is the baseline, or more')
    if not consensus.temperature > 0:
        raise ValueError(f'method.temperature={consensus.temperature}: it divides logits; above 0')
    for key in ('probability_weight', 'distance_weight', 'hard_weight', 'ramp'):
        if not getattr(consensus, key) >= 0:
            raise ValueError(f'method.{key}={getattr(consensus, key)}: from 0 on, which is off')
