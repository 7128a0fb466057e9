"""Factorized Distillation (Ren and Li, arXiv 1811.08073), reconstructed from its abstract.

Frozen partial models, each a network that sees a part of the image (`network.part`), teach a
student of whole images: linear factors of its feature map and of its retrieval feature mimic
theirs. The factorisers are trained beside the student and dropped at export.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax import losses, trees, views
from kd_jax.heads import Factor, Factorisers
from kd_jax.methods import Losses, Method, supervised
from kd_jax.networks import Outputs
from kd_jax.trees import Tree
from kd_jax.views import Batch

WHOLE = (0.0, 1.0)


class Parts(NamedTuple):
    """What the functions of the method share; `weights` are those of maps and of features."""

    student: nn.Module
    teachers: dict[str, nn.Module]
    factorisers: Factorisers
    feature: str
    objective: supervised.Objective
    weights: dict[str, float]
    axis_name: str | None


def make(
    student: nn.Module,
    teachers: dict[str, nn.Module],
    *,
    feature: str,
    map_weight: float,
    feature_weight: float,
    axis_name: str | None = None,
    **objective: Any,
) -> Method:
    """L = w_id (L_CE + L_TR) + α L_map + β L_feat (A-FD-5), means over teachers and images.

    Of any number of teachers with any names: each sees its `network.part`, one without a part the
    whole image (a holistic teacher, A-FD-2), in inference mode. `feature`, the student's vector
    that is ranked, is also what is factorised and what it mimics of its teachers. `map_weight` α,
    `feature_weight` β; w_id is `identity_weight` and `triplet_weight`, both 0 for a pure mimic.
    The rest are `supervised.Objective`'s fields.

    Assumptions: A-FD-3 and A-FD-4, linear factorisers; A-FD-5, distances of directions; A-FD-6,
    bilinear sampling of the part's rows; A-FD-7, teachers see the student's geometry and, by
    `augment.erase_teacher=False`, no erasing. Raises ValueError without teachers.
    """
    if not teachers:
        raise ValueError('method factorized needs config.teachers: part0, part1, …; given none')
    base = supervised.make(
        student, {}, reads='singles', feature=feature, axis_name=axis_name, **objective
    )
    weights = {'map': map_weight, 'feature': feature_weight}
    for key, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f'method.{key}_weight={weight}: from 0 on, which is off')
    seen = tuple((name, teachers[name].part or WHOLE) for name in sorted(teachers))
    parts = Parts(
        student,
        teachers,
        Factorisers(seen, axis_name),
        feature,
        supervised.Objective(**objective),
        weights,
        axis_name,
    )
    wired = (partial(function, parts) for function in (_init, _teach, _loss))
    return Method(*wired, base.embed)


def _init(parts: Parts, rng: jax.Array, batch: Batch) -> Tree:
    images = views.singles(batch.images)
    key, head_key = supervised.student_key(rng), jax.random.split(rng, 3)[1]
    like = {name: _blank(parts, network, images) for name, network in parts.teachers.items()}
    heads = parts.factorisers.init(head_key, _blank(parts, parts.student, images), like, False)
    return trees.join(student=parts.student.init(key, images), heads=heads)


def _blank(parts: Parts, network: nn.Module, images: jax.Array) -> Factor:
    """Zeros in the shapes of what a network gives, to initialise factorisers with."""
    made = jax.eval_shape(
        lambda x: _factor(parts, network.init_with_output(jax.random.key(0), x)[0]), images
    )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), made)


def _factor(parts: Parts, outputs: Outputs) -> Factor:
    return Factor(outputs.stages[-1].astype(jnp.float32), getattr(outputs, parts.feature))


def _teach(parts: Parts, teachers: dict[str, Tree], batch: Batch) -> dict[str, Factor]:
    images = views.singles(batch.images)
    return {
        name: _factor(parts, network.apply(teachers[name], images))
        for name, network in parts.teachers.items()
    }


def _loss(
    parts: Parts, variables: Tree, targets: dict[str, Factor], batch: Batch, rng, progress
) -> Losses:
    own = trees.part(variables, 'student')
    outputs, stats = supervised.forward(parts.student, own, batch, 'singles')
    labels = supervised.example_labels(batch, 'singles')
    terms, told = supervised.terms(outputs, labels, parts.objective, parts.axis_name)
    found, changed = parts.factorisers.apply(
        trees.part(variables, 'heads'),
        _factor(parts, outputs),
        targets,
        True,
        mutable=['batch_stats'],
    )
    apart = mimicry(targets, found)
    told |= {
        f'{key}_{name}': value for key, values in apart.items() for name, value in values.items()
    }
    for key, weight in parts.weights.items():
        terms[key] = weight * sum(apart[key].values()) / len(apart[key])
    return Losses(terms, told, {'student': stats, 'heads': changed['batch_stats']})


def mimicry(
    targets: dict[str, Factor], found: dict[str, Factor]
) -> dict[str, dict[str, jax.Array]]:
    """How far the student's factors are from what each teacher sees, in [0, 4]; L_map, L_feat."""
    return {
        key: {
            name: losses.direction_regression(
                getattr(target, key), getattr(found[name], key)
            ).mean()
            for name, target in targets.items()
        }
        for key in Factor._fields
    }
