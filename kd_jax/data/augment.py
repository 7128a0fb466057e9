"""Augmentation inside the train step, in JAX: uint8 sets in, normalised float32 sets out.

Every image has its own key. Geometry (shift, flip) is drawn once and shared by what the student
and what the teachers see; random erasing hits the student's copy, and the teachers' on request.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8, UInt32

from kd_jax.views import Batch

CROPS = ('none', 'pad', 'translate')
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ERASING_TRIES = 10  # rectangles drawn at once, of which the first that fits is taken
ENLARGED = 9 / 8  # 'translate' resizes to this much, then crops (Random2DTranslation)


def make(
    *,
    crop: str,
    pad: int,
    crop_probability: float,
    flip: float,
    erase: float,
    erase_fill: Sequence[float],
    erase_area: Sequence[float] = (0.02, 0.4),
    erase_aspect: Sequence[float] = (0.3, 1 / 0.3),
    erase_teacher: bool,
) -> Callable[[Batch], tuple[Batch, Batch]]:
    """Augment a batch into (what the student sees, what the teachers see).

    `crop`: 'pad' pads by `pad` black pixels and crops at random, 'translate' enlarges by 9/8 and
    crops, 'none'; with `crop_probability`. `flip`, `erase`: probabilities. A rectangle of
    `erase_area` of the image and height/width in `erase_aspect` becomes `erase_fill` after
    normalisation (0 is the mean colour; Zhong et al. 2017). `erase_teacher=True` is
    A-UMTS-AUG: the same tensors feed both. Raises ValueError for an unknown crop.
    """
    if crop not in CROPS:
        raise ValueError(f'augment.crop={crop!r}: choose one of {", ".join(CROPS)}')
    place = partial(_place, crop=crop, pad=pad, crop_probability=crop_probability, flip=flip)
    resampled = _interpolated if crop == 'translate' else _taken
    erased = partial(
        _erased, probability=erase, area=erase_area, aspect=erase_aspect, fill=erase_fill
    )

    def augment(batch: Batch) -> tuple[Batch, Batch]:
        images, keys = batch.images, batch.keys.reshape(-1)
        flat = images.reshape(-1, *images.shape[2:])
        geometry, erasing = jax.vmap(_two_keys)(keys)
        moved = flat
        if crop != 'none' or flip:
            moved = resampled(flat, *jax.vmap(partial(place, size=flat.shape[1:3]))(geometry))
        clean = normalise(moved)
        seen = erased(clean, erasing) if erase else clean
        taught = seen if erase_teacher else clean
        return tuple(batch._replace(images=x.reshape(images.shape)) for x in (seen, taught))

    return augment


def normalise(
    images: UInt8[Array, '*b h w c'] | Float[Array, '*b h w c'],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Float[Array, '*b h w c']:
    """(pixel / 255 - mean) / std per channel; grey images take the mean of the three numbers."""
    mean, std = (_per_channel(values, images.shape[-1]) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def _per_channel(values: Sequence[float], channels: int) -> Float[Array, 'c'] | Float[Array, '']:
    """A number per channel; grey images take the mean of the three."""
    values = jnp.array(values, jnp.float32)
    return values if len(values) == channels else values.mean()


def _place(key, *, size, crop, pad, crop_probability, flip):
    """Where the rows and columns of one augmented image come from, in pixels of the source."""
    draw = jax.random.uniform(key, (4,))
    keep = draw[2] >= crop_probability
    places = [
        jnp.where(keep, jnp.arange(n) * 1.0, _line(n, u, crop, pad)) for n, u in zip(size, draw)
    ]
    columns = jnp.where(draw[3] < flip, places[1][::-1], places[1])
    return places[0], columns


def _line(n: int, u: Float[Array, ''], crop: str, pad: int) -> Float[Array, ' n']:
    """Source positions of n target pixels along one axis, for a uniform draw u."""
    if crop == 'pad':
        return jnp.arange(n) + jnp.floor(u * (2 * pad + 1)) - pad
    if crop == 'translate':
        enlarged = round(n * ENLARGED)
        first = jnp.floor(u * (enlarged - n + 1))
        return (jnp.arange(n) + first + 0.5) * n / enlarged - 0.5
    return jnp.arange(n) * 1.0


def _two_keys(number: UInt32[Array, '']) -> tuple:
    """Keys of an image's geometry and of its erasing."""
    key = jax.random.key(number)
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)


def _taken(
    images: UInt8[Array, 'b h w c'], rows: Float[Array, 'b h'], columns: Float[Array, 'b w']
) -> UInt8[Array, 'b h w c']:
    """Pixels at whole positions, black outside the image."""
    height, width = images.shape[1:3]
    r, c = rows.astype(jnp.int32)[:, :, None], columns.astype(jnp.int32)[:, None, :]
    batch = jnp.arange(len(images))[:, None, None]
    pixels = images[batch, jnp.clip(r, 0, height - 1), jnp.clip(c, 0, width - 1)]
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    return jnp.where(inside[..., None], pixels, 0)


def _interpolated(
    images: UInt8[Array, 'b h w c'], rows: Float[Array, 'b h'], columns: Float[Array, 'b w']
) -> Float[Array, 'b h w c']:
    """Bilinear interpolation at positions inside the image, one axis after the other."""
    pixels = images.astype(jnp.float32)
    for axis, positions in ((1, rows), (2, columns)):
        positions = jnp.clip(positions, 0, images.shape[axis] - 1)
        low = jnp.floor(positions)
        shape = (-1, positions.shape[1], 1, 1) if axis == 1 else (-1, 1, positions.shape[1], 1)
        weight = (positions - low).reshape(shape)
        low = low.astype(jnp.int32)
        high = jnp.minimum(low + 1, images.shape[axis] - 1)
        take = jax.vmap(partial(jnp.take, axis=axis - 1))
        pixels = take(pixels, low) * (1 - weight) + take(pixels, high) * weight
    return pixels


def _erased(images, keys, *, probability, area, aspect, fill) -> Float[Array, 'b h w c']:
    """Each image with one random rectangle set to `fill`, with the given probability."""
    size = images.shape[1:3]
    inside = jax.vmap(
        partial(_rectangle, size=size, probability=probability, area=area, aspect=aspect)
    )(keys)
    return jnp.where(inside[..., None], _per_channel(fill, images.shape[-1]), images)


def _rectangle(key, *, size, probability, area, aspect) -> Bool[Array, 'h w']:
    """True inside the first of several rectangles that fits; nowhere if none does."""
    height, width = size
    draw = jax.random.uniform(key, (5, ERASING_TRIES))
    pixels = height * width * (area[0] + (area[1] - area[0]) * draw[0])
    ratio = aspect[0] + (aspect[1] - aspect[0]) * draw[1]
    h, w = jnp.round(jnp.sqrt(pixels * ratio)), jnp.round(jnp.sqrt(pixels / ratio))
    fits = (h < height) & (w < width)
    first = jnp.argmax(fits)
    h, w = h[first], w[first]
    top = jnp.floor(draw[2, first] * (height - h + 1))
    left = jnp.floor(draw[3, first] * (width - w + 1))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= top) & (rows < top + h) & (columns >= left) & (columns < left + w)
    return inside & fits[first] & (draw[4, 0] < probability)
