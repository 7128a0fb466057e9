"""What a network looks at, and how sure UMTS was of each shot: arrays, for others to draw."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from kd_jax import beside, checkpoints, heads, lineage, runs, trees, views
from kd_jax.checkpoints import Restored
from kd_jax.data import augment
from kd_jax.methods import supervised, umts
from kd_jax.networks import Network, Outputs
from kd_jax.runs import RunError
from kd_jax.trees import Tree

STAGES = (1, 2, 3, 4)  # those with feature maps
TINY = 1e-12
BATCH = 128  # images that are computed at a time


def grad_cam(
    network: Network,
    variables: Tree,
    images: Any,
    *,
    labels: Any = None,
    references: Any = None,
    feature: str = 'embedding',
    stage: int = 4,
    upsampled: bool = True,
    normalised: bool = True,
) -> Float[np.ndarray, 'b _h _w']:
    """Where a stage's map speaks for a target: Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1, 2).

    `images`: float[b, h, w, c] as the network reads them, so after `augment.normalise`, and
    `views.stacked` for a T-net. The target is the logit of `labels`, int[b]; or the cosine of the
    image's `feature` ('embedding', 'neck') with `references`, float[b, d], as of images of the same
    person; or else the highest logit, as in VKD's heat maps: of a train identity, whoever is shown.

    `upsampled`: bilinearly to float32[b, h, w], with zeros outside a network's `part`; else in the
    stage's own size. `normalised`: each map over its own maximum, from 0 to 1, which says where and
    not how much. All zero where nothing speaks for the target. Inference mode. Raises ValueError
    for another stage, type or shape, for unknown labels, and for both labels and references.
    """
    images = _checked_images(images, network, variables)
    if stage not in STAGES:
        raise ValueError(f'stage={stage}: choose one of {", ".join(map(str, STAGES))}')
    supervised.check_choice('feature', feature, supervised.FEATURES)
    if labels is not None and references is not None:
        raise ValueError('both labels and references: a map is of one target, give one of them')
    labels = None if labels is None else _checked_labels(labels, len(images), network.classes)
    references = None if references is None else np.asarray(references, np.float32)
    found = []
    for own in batches(BATCH, images, labels, references):
        maps = _maps(network, stage, feature, variables, *own)
        found.append(_over_image(maps, network.part, images.shape[1:3]) if upsampled else maps)
    maps = np.concatenate([np.asarray(maps) for maps in found])
    return _over_maximum(maps) if normalised else maps


def batches(size: int, *columns: np.ndarray | None) -> Iterator[list[np.ndarray | None]]:
    """Rows of all columns that are computed together, as memory holds no more; None stays."""
    for first in range(0, len(columns[0]), size):
        yield [None if one is None else one[first : first + size] for one in columns]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _maps(network, stage, feature, variables, images, labels, references) -> jax.Array:
    """ReLU of the map's channels, each weighted by the mean of its gradient."""
    apply = partial(network.apply, variables, train=False, split=stage + 1)
    features = apply(images, method='trunk')[-1]

    def total(features: jax.Array) -> jax.Array:
        outputs = apply(features, method='tail')  # images do not meet in inference mode
        return _target(outputs, feature, labels, references).sum()

    gradient = jax.grad(total)(features).astype(jnp.float32)
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    return nn.relu((weights * features.astype(jnp.float32)).sum(axis=-1))


def _target(outputs: Outputs, feature: str, labels: Any, references: Any) -> Float[Array, 'b']:
    if references is None:
        labels = outputs.logits.argmax(axis=-1) if labels is None else labels
        return jnp.take_along_axis(outputs.logits, labels[:, None], axis=-1)[:, 0]
    found = getattr(outputs, feature)
    if references.shape != found.shape:
        raise ValueError(f'references of shape {references.shape}: the {feature} is {found.shape}')
    return (_unit(found) * _unit(references)).sum(axis=-1)


def _unit(x: Float[Array, 'b d']) -> Float[Array, 'b d']:
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + TINY)


def _over_image(maps: jax.Array, part: tuple, size: tuple[int, int]) -> Float[Array, 'b h w']:
    """Maps in the size of an image, in the rows that the network sees of it."""
    height, width = size
    low, high = part or (0.0, 1.0)
    top, bottom = math.floor(low * height), math.ceil(high * height)
    seen = jax.image.resize(maps, (len(maps), bottom - top, width), 'linear')
    return jnp.pad(seen, ((0, 0), (top, height - bottom), (0, 0)))


def _over_maximum(maps: Float[np.ndarray, 'b h w']) -> Float[np.ndarray, 'b h w']:
    peaks = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(peaks > 0, peaks, 1)


def uncertainty(
    run: str | Path, images: Any, checkpoint: str = 'last'
) -> dict[int, Float[np.ndarray, 's k']]:
    """σ² of every shot by stage, as a UMTS run learned it (UMTS eq. 3, 4).

    `images`: uint8[s, K, h, w, c], sets of K shots, each of one identity. σ² = exp(v) is 1 or more,
    as v is ReLU'd; a shot's regression on the T-net counts 1 / 2σ². Student, T-net and heads are in
    inference mode, with running statistics. `checkpoint`: 'last' or 'best'.
    Raises RunError for a run that is no UMTS with uncertainty, or that lacks a checkpoint or its
    T-net, ValueError for images of another type, size or number of shots.
    """
    supervised.check_choice('checkpoint', checkpoint, checkpoints.WHICH)
    path = Path(run)
    _check_learned(path, runs.config_of(path))
    restored = checkpoints.restore_network(path, checkpoint)
    images = _checked_sets(images, path, restored.config)
    kept = beside.variables_of(path, restored.step)
    variances = _variances(restored, kept, *_t_net(path, restored, kept))
    found = [variances(*own) for own in batches(max(1, BATCH // images.shape[1]), images)]
    return {stage: np.concatenate([one[stage] for one in found]) for stage in found[0]}


def _variances(restored: Restored, kept: Tree, t_net: nn.Module, taught: Tree) -> Callable:
    """σ² of sets, float32[s, K] by stage, as in a train step but for running statistics."""
    options = restored.config.method
    with runs.of_this_version(restored.run):
        learned = heads.StageHeads(
            options.stages, options.reductions, options.uncertainty, options.head_bn_affine, None
        )

    @jax.jit
    def variances(sets):
        images = augment.normalise(sets)
        y = umts.stage_vectors(t_net.apply(taught, views.read(images, options.teacher_reads)))
        if options.teacher_reads == 'mean':
            y = tuple(views.set_mean(vector, len(images)) for vector in y)
        x = restored.network.apply(restored.variables, views.singles(images))
        found = learned.apply(trees.part(kept, 'heads'), y, umts.stage_vectors(x), train=False)
        shape = images.shape[:2]
        return {stage: jnp.exp(one.log_variance).reshape(shape) for stage, one in found.items()}

    return variances


def _t_net(path: Path, restored: Restored, kept: Tree) -> tuple[nn.Module, Tree]:
    """The T-net of a run and its variables; trained end to end it is beside the student."""
    if restored.config.method.joint:
        return restored.network, trees.part(kept, 'teacher')
    try:
        teacher = lineage.teachers(restored.config, path)['teacher']
        return checkpoints.restore_network(teacher.run)[:2]
    except (RunError, ValueError) as error:  # or is one of other images by now
        message = f'{path}: σ² is of a shot beside its set, and the T-net that saw it is gone'
        raise RunError(f'{message}: {error}') from error


def _check_learned(path: Path, config: ConfigDict) -> None:
    if config.method.name != 'umts':
        raise RunError(f'{path} learned no σ²: it is a run of {config.method.name}, not of umts')
    with runs.of_this_version(path):
        learned = config.method.uncertainty
    if not learned:
        raise RunError(f'{path} learned no σ²: it was trained with method.uncertainty=False (MTS)')


def _checked_sets(images: Any, path: Path, config: ConfigDict) -> np.ndarray:
    images = np.asarray(images)
    size = config.data.height, config.data.width, config.data.channels
    wanted = config.sampling.shots, *size
    if images.ndim != 5 or images.shape[1:] != wanted or not len(images):
        dimensions = ', '.join(map(str, wanted))
        raise ValueError(
            f'images of shape {images.shape}: {path} reads (s, {dimensions}), s sets of '
            f'{wanted[0]} shots of height, width and channels'
        )
    if images.dtype != np.uint8:
        raise ValueError(f'images of {images.dtype}: {path} reads uint8, and normalises itself')
    return images


def _checked_images(images: Any, network: Network, variables: Tree) -> np.ndarray:
    images, channels = np.asarray(images), variables['params'][network.FIRST]['kernel'].shape[2]
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f'images of {images.dtype}: give them as the network reads them, in floats, by '
            'kd_jax.data.augment.normalise(images)'
        )
    if images.ndim != 4 or not len(images):
        raise ValueError(f'images of shape {images.shape}: give (b, height, width, channels)')
    if images.shape[-1] != channels:
        raise ValueError(
            f'images of {images.shape[-1]} channels: the network reads {channels} '
            '(kd_jax.views.stacked puts the shots of a T-net into channels)'
        )
    return images


def _checked_labels(labels: Any, images: int, classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f'labels {labels.dtype}{labels.shape}: give a number for each image')
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f'labels from {labels.min()} to {labels.max()}: there are {classes}')
    return labels
