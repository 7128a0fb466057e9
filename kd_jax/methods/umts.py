"""UMTS: uncertainty-aware multi-shot teacher-student (Jin et al., AAAI 2020).

A frozen T-net sees K shots of an identity stacked in channels; the student sees each shot for
itself and regresses the T-net's stage features, weighted by a learned uncertainty.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax import heads, losses, trees, views
from kd_jax.methods import Losses, Method, supervised
from kd_jax.networks import Outputs
from kd_jax.trees import Tree
from kd_jax.views import Batch

STAGES = (1, 2, 3, 4, 5)  # 1-4: pooled feature maps; 5: the embedding, the paper's re-ID vector
HEADS = ('trained', 'frozen')
TINY = 1e-12


def make(
    student: nn.Module,
    teachers: dict[str, nn.Module],
    *,
    stages: Sequence[int],
    weights: Sequence[float],
    reductions: Sequence[int],
    uncertainty: bool,
    joint: bool,
    teacher_reads: str,
    teacher_head: str,
    head_bn_affine: bool,
    feature: str,
    axis_name: str | None = None,
    **objective: Any,
) -> Method:
    """L = L_ReID + Σ_b λ_b L_UKD^b on the student (UMTS eq. 5), means over all P·K images.

    `stages`: those matched, of 1…5; `weights` λ_b and `reductions` r_b of all five.
    `uncertainty=False` is MTS (eq. 2). `joint=True` trains a T-net of the student's network
    beside it, on its own loss only (positives need `sampling.sets` above 1). `teacher_reads`:
    'stacked' is the paper's T-net, 'mean' averages a single-image net over the shots, 'singles'
    gives each image its own target (a control that sees one shot). `teacher_head`: 'trained' as
    in the paper, or 'frozen'; `head_bn_affine=True` is the heads' literal BatchNorm, whose
    trivial solution is zero. The rest are `supervised.Objective`'s fields.

    Assumptions: A-UMTS-RED, the means and a squared norm summed over dimensions;
    A-UMTS-FREEZE, T in inference mode; A-UMTS-HEAD, heads without affine BatchNorm;
    A-UMTS-VINIT, the start of the log-variance. Raises ValueError for unknown stages or words
    and for a missing teacher.
    """
    _check(stages, (weights, reductions), teacher_head, teacher_reads, teachers, joint)
    base = supervised.make(
        student, {}, reads='singles', feature=feature, axis_name=axis_name, **objective
    )
    parts = Parts(
        student,
        student if joint else teachers['teacher'],
        heads.StageHeads(tuple(stages), tuple(reductions), uncertainty, head_bn_affine, axis_name),
        teacher_reads,
        joint,
        partial(reid_losses, objective=supervised.Objective(**objective), axis_name=axis_name),
        partial(terms, weights=weights, uncertainty=uncertainty, axis_name=axis_name),
    )
    frozen = tuple(f'heads/stage{s}/teacher/' for s in stages) if teacher_head == 'frozen' else ()
    wired = (partial(function, parts) for function in (_init, _teach, _loss))
    return Method(*wired, base.embed, frozen)


class Parts(NamedTuple):
    """What the functions of the method share: networks, heads and how losses are weighed."""

    student: nn.Module
    t_net: nn.Module
    match: heads.StageHeads
    teacher_reads: str
    joint: bool
    reid: Callable
    distil: Callable


def _init(parts: Parts, rng: jax.Array, batch: Batch) -> Tree:
    _, head_key, teacher_key = jax.random.split(rng, 3)
    images, t_images = views.singles(batch.images), views.read(batch.images, parts.teacher_reads)
    sides = (blank_vectors(parts.t_net, t_images), blank_vectors(parts.student, images))
    variables = {'student': parts.student.init(supervised.student_key(rng), images)}
    variables['heads'] = parts.match.init(head_key, *sides, train=False)
    if parts.joint:
        variables['teacher'] = parts.t_net.init(teacher_key, t_images)
    return trees.join(**variables)


def _teach(parts: Parts, teachers: dict[str, Tree], batch: Batch) -> tuple:
    if parts.joint:
        return ()
    images = views.read(batch.images, parts.teacher_reads)
    vectors = stage_vectors(parts.t_net.apply(teachers['teacher'], images))
    if parts.teacher_reads == 'mean':
        vectors = tuple(views.set_mean(vector, len(batch.labels)) for vector in vectors)
    return vectors


def _loss(parts: Parts, variables: Tree, targets, batch: Batch, rng, progress) -> Losses:
    outputs, own = parts.reid(parts.student, 'student', variables, batch, 'singles')
    found = [own]
    if parts.joint:
        t_outputs, taught = parts.reid(parts.t_net, 'teacher', variables, batch, 'stacked')
        targets = jax.lax.stop_gradient(stage_vectors(t_outputs))
        found.append(_prefixed(taught, 'teacher_'))
    matched, changed = parts.match.apply(
        trees.part(variables, 'heads'),
        targets,
        stage_vectors(outputs),
        train=True,
        mutable=['batch_stats'],
    )
    found.append(Losses(*parts.distil(matched), {'heads': changed['batch_stats']}))
    return Losses(*(_merged(group) for group in zip(*found)))


def _check(stages, per_stage, teacher_head, teacher_reads, teachers, joint) -> None:
    supervised.check_choice('method.teacher_head', teacher_head, HEADS)
    supervised.check_choice('method.teacher_reads', teacher_reads, views.READS)
    if not stages or not set(stages) <= set(STAGES) or len(set(stages)) != len(stages):
        raise ValueError(f'method.stages={tuple(stages)}: choose different ones of {STAGES}')
    if any(len(values) != len(STAGES) for values in per_stage):
        raise ValueError('method.weights and method.reductions hold one value for each of 5 stages')
    if joint and (teachers or teacher_reads != 'stacked'):
        raise ValueError("method.joint=True trains its own T-net, 'stacked': give no teachers")
    if not joint and set(teachers) != {'teacher'}:
        raise ValueError(f'method umts needs config.teachers.teacher, given {sorted(teachers)}')


def stage_vectors(outputs: Outputs) -> tuple[Float[Array, 'b _c'], ...]:
    """y^b, x^b: the spatial means of the four stages and, fifth, the embedding (UMTS §3.2)."""
    pooled = (stage.astype(jnp.float32).mean(axis=(1, 2)) for stage in outputs.stages)
    return (*pooled, outputs.embedding)


def blank_vectors(network: nn.Module, images: jax.Array) -> tuple[Float[Array, 'b _c'], ...]:
    """Zeros in the shapes of a network's stage vectors, to initialise heads with."""
    shapes = jax.eval_shape(
        lambda x: stage_vectors(network.init_with_output(jax.random.key(0), x)[0]), images
    )
    return tuple(jnp.zeros(shape.shape) for shape in shapes)


def reid_losses(network, name, variables, batch, reads, *, objective, axis_name) -> tuple:
    """Outputs and re-ID losses of one of the two networks, in training mode."""
    part = trees.part(variables, name)
    outputs, stats = supervised.forward(network, part, batch, reads)
    labels = supervised.example_labels(batch, reads)
    weighted = supervised.terms(outputs, labels, objective, axis_name)
    return outputs, Losses(*weighted, {name: stats})


def terms(
    matched: dict[int, heads.Matched],
    *,
    weights: Sequence[float],
    uncertainty: bool,
    axis_name: str | None,
) -> tuple[dict, dict]:
    """λ_b L_UKD^b (eq. 3), or λ_b of the plain regression (eq. 2), of each matched stage.

    Diagnostics of each stage: |θ_t|², near 0 where the heads have collapsed to zero;
    log(d² / |θ_t|²), near -∞ where the student's head says all that the teacher's does; the
    effective rank of θ_t over the sets; and the mean of v = log σ².
    """
    weighted, log = {}, {}
    for stage, (target, prediction, log_variance, of_sets) in matched.items():
        distance = losses.regression(target, prediction)
        loss = distance
        if uncertainty:
            loss = losses.uncertain_regression(target, prediction, log_variance)
            log[f'stage{stage}_log_variance'] = log_variance.mean()
        weighted[f'stage{stage}'] = weights[stage - 1] * loss.mean()
        everyone = partial(_gathered, axis_name=axis_name)
        norm = jnp.square(everyone(of_sets)).sum(axis=-1).mean()
        log[f'stage{stage}_norm'] = norm
        ratio = (everyone(distance).mean() + TINY) / (norm + TINY)
        log[f'stage{stage}_log_ratio'] = jnp.log(ratio)
        log[f'stage{stage}_rank'] = effective_rank(everyone(of_sets))
    return weighted, jax.lax.stop_gradient(log)


def effective_rank(x: Float[Array, 'n d']) -> Float[Array, '']:
    """How many dimensions the rows fill: (Σλ)² / Σλ² of their covariance, from 1 up."""
    centred = x - x.mean(axis=0)
    gram = centred @ centred.T
    return jnp.square(jnp.trace(gram)) / jnp.maximum(jnp.square(gram).sum(), TINY)


def _gathered(x: jax.Array, axis_name: str | None) -> jax.Array:
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def _prefixed(parts: Losses, prefix: str) -> Losses:
    named = ({prefix + key: value for key, value in group.items()} for group in parts[:2])
    return Losses(*named, parts.batch_stats)


def _merged(groups) -> dict:
    return {key: value for group in groups for key, value in group.items()}
