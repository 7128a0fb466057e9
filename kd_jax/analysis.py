"""What a network looks at, and how sure UMTS was of each shot: arrays, for others to draw."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from kd_jax import checkpoints, heads, lineage, runs, trees, views
from kd_jax.checkpoints import Restored
from kd_jax.data import augment
from kd_jax.methods import supervised, umts
from kd_jax.networks import Network, Outputs
from kd_jax.runs import RunError
from kd_jax.trees import Tree

STAGES = (1, 2, 3, 4)  # those with feature maps
TINY = 1e-12


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
    images = _checked_images(images)
    if stage not in STAGES:
        raise ValueError(f'stage={stage}: choose one of {", ".join(map(str, STAGES))}')
    supervised.check_choice('feature', feature, supervised.FEATURES)
    if labels is not None and references is not None:
        raise ValueError('both labels and references: a map is of one target, give one of them')
    labels = None if labels is None else _checked_labels(labels, len(images), network.classes)
    references = None if references is None else jnp.asarray(references, jnp.float32)
    maps = _maps(network, stage, feature, variables, images, labels, references)
    maps = _over_image(maps, network.part, images.shape[1:3]) if upsampled else maps
    return _over_maximum(np.asarray(maps)) if normalised else np.asarray(maps)


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
    inference mode, with running statistics; all sets are one batch. `checkpoint`: 'last' or 'best'.
    Raises RunError for a run that is no UMTS with uncertainty, or that lacks a checkpoint or its
    T-net, ValueError for images of another type, size or number of shots.
    """
    supervised.check_choice('checkpoint', checkpoint, checkpoints.WHICH)
    path = Path(run)
    _check_learned(path, runs.config_of(path))
    restored = checkpoints.restore_network(path, checkpoint)
    images = augment.normalise(jnp.asarray(_checked_sets(images, path, restored.config)))
    beside = beside_student(path, restored.step)
    matched = _matched(restored, beside, *_t_net(path, restored, beside), images)
    shape = images.shape[:2]
    return {
        stage: np.asarray(jnp.exp(found.log_variance).reshape(shape))
        for stage, found in matched.items()
    }


def _matched(
    restored: Restored, beside: Tree, t_net: nn.Module, taught: Tree, images: jax.Array
) -> dict[int, heads.Matched]:
    """Every stage behind its heads, as in a train step but for running statistics."""
    options = restored.config.method
    learned = heads.StageHeads(
        options.stages, options.reductions, options.uncertainty, options.head_bn_affine, None
    )

    @jax.jit
    def matched(images):
        y = umts.stage_vectors(t_net.apply(taught, views.read(images, options.teacher_reads)))
        if options.teacher_reads == 'mean':
            y = tuple(views.set_mean(vector, len(images)) for vector in y)
        x = restored.network.apply(restored.variables, views.singles(images))
        return learned.apply(trees.part(beside, 'heads'), y, umts.stage_vectors(x), train=False)

    return matched(images)


def _t_net(path: Path, restored: Restored, beside: Tree) -> tuple[nn.Module, Tree]:
    """The T-net of a run and its variables; trained end to end it is beside the student."""
    if restored.config.method.joint:
        return restored.network, trees.part(beside, 'teacher')
    try:
        teacher = lineage.teachers(restored.config, path)['teacher']
        return checkpoints.restore_network(teacher.run)[:2]
    except RunError as error:
        message = f'{path}: σ² is of a shot beside its set, and the T-net that saw it is gone'
        raise RunError(f'{message}: {error}') from error


def beside_student(run: str | Path, step: int) -> Tree:
    """The variables that training keeps beside the student, such as {'params': {'heads': …}}.

    Those of a checkpoint's step, as NumPy arrays; {} where there are none. Raises RunError for a
    run without that checkpoint.
    """
    if not (Path(run) / 'checkpoints').exists():
        raise RunError(f'{run} has no checkpoint: train it first')
    with checkpoints.manager(Path(run), create=False) as saved:
        if step not in saved.all_steps():
            raise RunError(f'{run} has no checkpoint of step {step}, but of {saved.all_steps()}')
        kept, home = saved.item_metadata(step)['training'].tree, saved.directory
    wanted = {'variables': jax.tree.map(_blank, kept.get('variables', {}))}
    options = ocp.checkpoint_utils.construct_restore_args(wanted)
    args = ocp.args.PyTreeRestore(wanted, options, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return reader.restore(home / str(step) / 'training', args)['variables']


def _blank(leaf: Any) -> np.ndarray:
    return np.empty(leaf.shape, leaf.dtype)


def _check_learned(path: Path, config: ConfigDict) -> None:
    if config.method.name != 'umts':
        raise RunError(f'{path} learned no σ²: it is a run of {config.method.name}, not of umts')
    if not config.method.uncertainty:
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


def _checked_images(images: Any) -> jax.Array:
    images = jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f'images of {images.dtype}: give them as the network reads them, in floats, by '
            'kd_jax.data.augment.normalise(images)'
        )
    if images.ndim != 4 or not len(images):
        raise ValueError(f'images of shape {images.shape}: give (b, height, width, channels)')
    return images


def _checked_labels(labels: Any, images: int, classes: int) -> jax.Array:
    labels = np.asarray(labels)
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f'labels {labels.dtype}{labels.shape}: give a number for each image')
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f'labels from {labels.min()} to {labels.max()}: there are {classes}')
    return jnp.asarray(labels)
