"""VKD: views knowledge distillation (Porrello et al., ECCV 2020).

A frozen teacher averages N views of an identity; the student sees M of them, the same augmented
pixels, and matches the teacher's softened logits and the distances between its embeddings. Where
paper and code differ, the options say so.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax import losses, trees, views
from kd_jax.methods import Losses, Method, supervised
from kd_jax.networks import Outputs
from kd_jax.trees import Tree
from kd_jax.views import Batch

LOGITS = ('kl', 'mse')
SET_LOGITS = ('mean', 'of_mean')
BATCH_NORM = ('batch', 'running')
START = ('teacher', 'scratch')


class Distillation(NamedTuple):
    """L_KD and L_DP and their weights: α, β, and the temperature.

    `logits`: 'kl' or 'mse', which has no temperature. A term of weight 0 is not computed.
    """

    logits: str
    temperature: float
    logits_weight: float
    distance_weight: float


class Parts(NamedTuple):
    """What the functions of the method share."""

    student: nn.Module
    teacher: nn.Module
    views: int
    set_logits: str
    teacher_batch_norm: str
    objective: supervised.Objective
    distillation: Distillation
    axis_name: str | None


def make(
    student: nn.Module,
    teachers: dict[str, nn.Module],
    *,
    student_views: int,
    set_logits: str,
    teacher_batch_norm: str,
    start: str,
    feature: str,
    logits: str,
    temperature: float,
    logits_weight: float,
    distance_weight: float,
    axis_name: str | None = None,
    **objective: Any,
) -> Method:
    """L = L_TR + L_CE + α L_KD + β L_DP on sets (VKD §3.2), all on the student's own outputs.

    The teacher reads the N views of a set, the student `student_views` of them drawn without
    replacement. `set_logits`: logits averaged after the classifier ('mean', the code), or of the
    average ('of_mean', the paper's figure). `teacher_batch_norm`: the teacher normalises by the
    statistics of its 'batch' (paper and code) or by its 'running' ones. `start`: from the
    'teacher', but for neck, classifier and last stage, which stay as they are initialised or
    `network.pretrained`; or from 'scratch'. A teacher named 'start', of the student's network,
    is what it starts from instead: for distilling between backbones. The rest are `Distillation`'s
    and `supervised.Objective`'s fields. Raises ValueError for unknown words, more student views
    than a set has, a missing teacher, and one of other classes unless `logits_weight` is 0.
    """
    _check(set_logits, teacher_batch_norm, start, logits, teachers, student_views)
    distillation = Distillation(logits, temperature, logits_weight, distance_weight)
    _check_numbers(distillation)
    if logits_weight:
        _check_classes(student, teachers['teacher'])
    base = supervised.make(
        student, {}, reads='mean', feature=feature, axis_name=axis_name, **objective
    )
    parts = Parts(
        student,
        teachers['teacher'],
        student_views,
        set_logits,
        teacher_batch_norm,
        supervised.Objective(**objective),
        distillation,
        axis_name,
    )
    begin = partial(_start, student) if start == 'teacher' else None
    teach, loss = partial(_teach, parts), partial(_loss, parts)
    return Method(partial(_init, parts), teach, loss, base.embed, start=begin)


def _init(parts: Parts, rng: jax.Array, batch: Batch) -> Tree:
    student, images = parts.student, views.singles(some_views(batch, parts.views).images)
    return trees.join(student=student.init(supervised.student_key(rng), images))


def _teach(parts: Parts, teachers: dict[str, Tree], batch: Batch) -> Outputs:
    return _of_sets(
        parts.teacher, teachers['teacher'], batch, parts.set_logits, parts.teacher_batch_norm
    )[0]


def _loss(parts: Parts, variables: Tree, targets: Outputs, batch: Batch, rng, progress) -> Losses:
    seen = some_views(batch, parts.views)
    own = trees.part(variables, 'student')
    outputs, stats = _of_sets(parts.student, own, seen, parts.set_logits, 'batch')
    found, told = supervised.terms(outputs, batch.labels, parts.objective, parts.axis_name)
    found |= _distilled(targets, outputs, parts.distillation, parts.axis_name)
    if 'logits' in found:
        told['teacher_accuracy'] = jnp.mean(targets.logits.argmax(axis=-1) == batch.labels)
    return Losses(found, told, {'student': stats})


def some_views(batch: Batch, count: int) -> Batch:
    """The batch with `count` images of each set, drawn by the images' keys without replacement."""
    if count > batch.images.shape[1]:
        raise ValueError(
            f'method.student_views={count}, but a set has sampling.shots={batch.images.shape[1]}'
        )
    order = jnp.argsort(batch.keys, axis=1)[:, :count]
    take = partial(jnp.take_along_axis, axis=1)
    images = take(batch.images, order[:, :, None, None, None])
    return Batch(images, batch.labels, take(batch.cameras, order), take(batch.keys, order))


def _of_sets(
    network: nn.Module, variables: Tree, batch: Batch, set_logits: str, batch_norm: str
) -> tuple[Outputs, Tree]:
    """The outputs of each set, and the running statistics after it."""
    images, count = views.singles(batch.images), len(batch.labels)
    outputs, changed = network.apply(
        variables,
        images,
        train=batch_norm == 'batch',
        sets=count if set_logits == 'of_mean' else 0,
        mutable=['batch_stats'],
    )
    if set_logits == 'mean':
        outputs = supervised.over_sets(outputs, count)
    return outputs, changed['batch_stats']


def _distilled(
    teacher: Outputs, student: Outputs, weigh: Distillation, axis_name: str | None
) -> dict[str, jax.Array]:
    """The weighted terms `logits` and `distances`, without those of weight 0."""
    found = {}
    if weigh.logits_weight:
        matched = (
            losses.squared_logit_difference(teacher.logits, student.logits)
            if weigh.logits == 'mse'
            else losses.soft_target_kl(teacher.logits, student.logits, weigh.temperature)
        )
        found['logits'] = weigh.logits_weight * matched.mean()
    if weigh.distance_weight:
        kept = losses.distance_preservation(teacher.embedding, student.embedding, axis_name)
        found['distances'] = weigh.distance_weight * kept.mean()
    return found


def _start(student: nn.Module, variables: Tree, teachers: dict[str, Tree]) -> Tree:
    """The teacher's variables with the student's own neck, classifier and last stage."""
    given = teachers.get('start', teachers['teacher'])
    own = trees.part(variables, 'student')
    _check_alike(own, given)
    fresh = tuple(f'{kind}/{name}' for kind in own for name in ('neck', *student.LAST_STAGE))
    return trees.join(student=trees.replaced(given, own, fresh))


def _check_alike(own: Tree, given: Tree) -> None:
    """Raises ValueError unless both have the same variables, but for neck and classifier."""
    shapes = [
        {name: leaf.shape for name, leaf in trees.named(tree).items() if '/neck/' not in name}
        for tree in (own, given)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            'the student has another network than the teacher that it would start from: set '
            "method.start=scratch, or config.teachers.start to a run of the student's network"
        )


def _check_numbers(weigh: Distillation) -> None:
    if not weigh.temperature > 0:
        raise ValueError(f'method.temperature={weigh.temperature}: it divides logits; above 0')
    for key in ('logits_weight', 'distance_weight'):
        if not getattr(weigh, key) >= 0:
            raise ValueError(f'method.{key}={getattr(weigh, key)}: from 0 on, which is off')


def _check_classes(student: nn.Module, teacher: nn.Module) -> None:
    if student.classes != teacher.classes:
        raise ValueError(
            f'the teacher tells {teacher.classes} identities apart, but the training data has '
            f'{student.classes}: method.logits_weight=0 distils its distances only'
        )


def _check(set_logits, teacher_batch_norm, start, logits, teachers, student_views) -> None:
    choices = {
        'set_logits': (set_logits, SET_LOGITS),
        'teacher_batch_norm': (teacher_batch_norm, BATCH_NORM),
        'start': (start, START),
        'logits': (logits, LOGITS),
    }
    for key, (value, known) in choices.items():
        supervised.check_choice(f'method.{key}', value, known)
    if student_views < 1:
        raise ValueError(f'method.student_views={student_views}: a set has 1 or more')
    if 'teacher' not in teachers or not set(teachers) <= {'teacher', 'start'}:
        raise ValueError(
            f'method vkd needs config.teachers.teacher, may have start; given {sorted(teachers)}'
        )
