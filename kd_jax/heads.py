"""What is trained beside the student and dropped at export."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kd_jax import views

# A log-variance is ReLU'd: with weights near zero and a positive bias no sample starts without a
# gradient (assumption A-UMTS-VINIT).
VARIANCE_INIT = nn.initializers.normal(0.001)
VARIANCE_BIAS_INIT = nn.initializers.constant(0.1)


class Projection(nn.Module):
    """θ(x) = ReLU(BN(W x)), from c to c / reduction dimensions (UMTS §3.2)."""

    features: int
    affine: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, 'b c'], train: bool) -> Float[Array, 'b d']:
        x = nn.Dense(self.features, name='fc')(x)
        return nn.relu(
            nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                use_bias=self.affine,
                use_scale=self.affine,
                axis_name=self.axis_name,
                name='bn',
            )(x)
        )


class Matched(NamedTuple):
    """One stage after its heads: teacher and student projections, and log σ², per image.

    `of_sets` is the teacher's projection once per set, before it is repeated for every image.
    """

    target: Float[Array, 'b d']
    prediction: Float[Array, 'b d']
    log_variance: Float[Array, 'b']
    of_sets: Float[Array, 's d']


class StageHead(nn.Module):
    """θ_t, θ_s and the log-variance of one stage (UMTS eq. 3, 4)."""

    features: int
    uncertainty: bool
    affine: bool
    axis_name: str | None

    @nn.compact
    def __call__(
        self, teacher: Float[Array, 's c'], student: Float[Array, 'b c2'], train: bool
    ) -> Matched:
        projection = partial(Projection, self.features, self.affine, self.axis_name)
        of_sets = projection(name='teacher')(teacher, train)
        prediction = projection(name='student')(student, train)
        target = views.per_image(of_sets, len(student) // len(teacher))
        log_variance = jnp.zeros(len(student))
        if self.uncertainty:
            both = jnp.concatenate([target, prediction], axis=-1)
            scalar = nn.Dense(
                1, kernel_init=VARIANCE_INIT, bias_init=VARIANCE_BIAS_INIT, name='log_variance'
            )
            log_variance = nn.relu(scalar(both)[:, 0])
        return Matched(target, prediction, log_variance, of_sets)


class StageHeads(nn.Module):
    """A `StageHead` for each of the named stages; widths follow the student's vectors."""

    stages: tuple[int, ...]
    reductions: tuple[int, ...]
    uncertainty: bool
    affine: bool
    axis_name: str | None

    @nn.compact
    def __call__(
        self,
        teacher: Sequence[Float[Array, 's _c']],
        student: Sequence[Float[Array, 'b _c']],
        train: bool,
    ) -> dict[int, Matched]:
        matched = {}
        for stage in self.stages:
            t, s = teacher[stage - 1], student[stage - 1]
            features = max(1, s.shape[-1] // self.reductions[stage - 1])
            head = StageHead(
                features, self.uncertainty, self.affine, self.axis_name, name=f'stage{stage}'
            )
            matched[stage] = head(t, s, train)
        return matched


class Factor(NamedTuple):
    """What a partial teacher sees in an image: its last feature map and its retrieval feature."""

    map: Float[Array, 'b h w c']
    feature: Float[Array, 'b d']


class Factoriser(nn.Module):
    """One partial teacher's factor of the student (A-FD-3, A-FD-4).

    The rows of the student's map that the teacher sees, sampled to the size of its map, through a
    1×1 convolution and BatchNorm; and a linear map of the student's feature.
    """

    part: tuple[float, float]
    axis_name: str | None

    @nn.compact
    def __call__(self, of_student: Factor, like: Factor, train: bool) -> Factor:
        height, width, channels = like.map.shape[1:]
        region = views.part_of(of_student.map, self.part, (height, width))
        mapped = nn.Dense(channels, use_bias=False, name='map')(region)
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            name='map_bn',
        )
        return Factor(
            norm(mapped), nn.Dense(like.feature.shape[1], name='feature')(of_student.feature)
        )


class Factorisers(nn.Module):
    """A `Factoriser` for each teacher, by its name and the part it sees."""

    parts: tuple[tuple[str, tuple[float, float]], ...]
    axis_name: str | None

    @nn.compact
    def __call__(
        self, of_student: Factor, like: dict[str, Factor], train: bool
    ) -> dict[str, Factor]:
        return {
            name: Factoriser(part, self.axis_name, name=name)(of_student, like[name], train)
            for name, part in self.parts
        }
