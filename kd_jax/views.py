"""A batch of image sets, and which pixels of it a network reads."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt32

READS = ('singles', 'mean', 'stacked')


class Batch(NamedTuple):
    """s sets of n images; the images of one set show one identity.

    `images` are uint8 as fed and float32 once augmented; `keys` hold one number per image, drawn
    from (seed, step, position), so that what is random about an image does not depend on the
    device it is on.
    """

    images: Shaped[Array, 's n h w c']
    labels: Int[Array, 's']
    cameras: Int[Array, 's n']
    keys: UInt32[Array, 's n']


def singles(images: Shaped[Array, 's n h w c']) -> Shaped[Array, 'b h w c']:
    """Every image for itself, b = s·n, the images of a set side by side."""
    return images.reshape(-1, *images.shape[2:])


def stacked(images: Shaped[Array, 's n h w c']) -> Shaped[Array, 's h w nc']:
    """The images of a set stacked in channels, channel = image · c + colour (UMTS' T-net)."""
    s, n, h, w, c = images.shape
    return jnp.transpose(images, (0, 2, 3, 1, 4)).reshape(s, h, w, n * c)


def read(images: Shaped[Array, 's n h w c'], reads: str) -> Shaped[Array, 'b h w k']:
    """The input of a network that reads `singles`, `mean` (singles, averaged later) or `stacked`.

    Raises ValueError for any other word.
    """
    if reads not in READS:
        raise ValueError(f'method.reads={reads!r}: choose one of {", ".join(READS)}')
    return stacked(images) if reads == 'stacked' else singles(images)


def set_mean(values: Shaped[Array, 'b d'], sets: int) -> Shaped[Array, 's d']:
    """The mean over the images of each set."""
    return values.reshape(sets, -1, values.shape[-1]).mean(axis=1)


def per_image(values: jax.Array, images_per_set: int) -> jax.Array:
    """A value per set repeated for each image of the set, in the order of `singles`."""
    return jnp.repeat(values, images_per_set, axis=0)


def part_of(
    maps: Float[Array, 'b h w c'], part: tuple[float, float], size: tuple[int, int]
) -> Float[Array, 'b h2 w2 c']:
    """The rows from one share of the height to another, stretched to a size bilinearly (A-FD-6).

    Of images or feature maps. A stretched part also weighs in the row next to its border; nothing
    is smoothed where the size is smaller than the part.
    """
    rows = sampling_matrix(part, maps.shape[1], size[0])
    columns = sampling_matrix((0.0, 1.0), maps.shape[2], size[1])
    exact = jax.lax.Precision.HIGHEST
    narrow = jnp.einsum('wx,bhxc->bhwc', columns.astype(maps.dtype), maps, precision=exact)
    return jnp.einsum('hy,bywc->bhwc', rows.astype(maps.dtype), narrow, precision=exact)


def sampling_matrix(
    part: tuple[float, float], source: int, target: int
) -> Float[np.ndarray, 'target source']:
    """The weights of `source` pixels in each of `target`, whose centres lie evenly in a part.

    Past the first and the last centre of the source these count alone.
    """
    low, high = (share * source for share in part)
    centres = low + (np.arange(target) + 0.5) * (high - low) / target - 0.5
    apart = np.abs(np.clip(centres, 0, source - 1)[:, None] - np.arange(source))
    return np.maximum(0.0, 1.0 - apart)
