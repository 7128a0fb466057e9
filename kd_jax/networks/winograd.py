"""Winograd's F(2×2, 3×3): 3×3 convolutions by 16 products, with 2.25 times fewer multiplications.

Of every 4×4 window of the image, two apart, 2×2 results are made; transforms of image, kernel and
result only add (Lavin and Gray, CVPR 2016, eq. 5-8). The gradients are the same 16 products of
transformed matrices. A barrier keeps XLA from laying the transforms out in columns.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

ROWS = (((0,), (0,)), ((), ()))  # contracts the rows of two matrices
COLUMNS = (((1,), (1,)), ((), ()))


def convolve(
    images: Float[Array, 'b h w i'], kernel: Float[Array, '3 3 i o']
) -> Float[Array, 'b h w o']:
    """Stride 1, padding 1."""
    products = [rows(v) @ u for v, u in zip(windows(images), of_kernel(kernel))]
    return results(products, images.shape[:3])


def image_gradient(
    gradient: Float[Array, 'b h w o'], kernel: Float[Array, '3 3 i o']
) -> Float[Array, 'b h w i']:
    """The gradient of the images: a convolution with the kernel turned round and transposed.

    Turning the kernel round swaps the first and the last of its transforms.
    """
    turned = [u for row in _turned(_grid(of_kernel(kernel))) for u in _turned(row)]
    products = [lax.dot_general(rows(v), u, COLUMNS) for v, u in zip(windows(gradient), turned)]
    return results(products, gradient.shape[:3])


def kernel_products(
    images: Float[Array, 'b h w i'], gradient: Float[Array, 'b h w o']
) -> list[Float[Array, 'i o']]:
    """The 16 products that the kernel's gradient is made of; they add up over images."""
    return [over_rows(v, g) for v, g in zip(windows(images), of_gradient(gradient))]


def kernel_gradient(products: list[Float[Array, 'i o']]) -> Float[Array, '3 3 i o']:
    """Gᵀ m G: the gradient of the kernel."""
    half = [_kernel_back(*row) for row in _grid(products)]
    columns = [_kernel_back(*column) for column in zip(*half)]
    return jnp.stack([jnp.stack(row) for row in zip(*columns)])


def windows(images: Float[Array, 'b h w i']) -> list[Float[Array, 'b h2 w2 i']]:
    """Bᵀ d B of every 4×4 window."""
    even = _even(jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))))
    height, width = (n - 3 for n in even.shape[1:3])
    lines = _window(*(even[:, i : i + height : 2] for i in range(4)))
    of_lines = (_window(*(x[:, :, j : j + width : 2] for j in range(4))) for x in lines)
    return lax.optimization_barrier([v for line in of_lines for v in line])


def of_kernel(kernel: Float[Array, '3 3 i o']) -> list[Float[Array, 'i o']]:
    """G g Gᵀ."""
    return [u for row in _kernel(*kernel) for u in _kernel(*row)]


def of_gradient(gradient: Float[Array, 'b h w o']) -> list[Float[Array, 'b h2 w2 o']]:
    """A g Aᵀ of every 2×2 results' gradient."""
    even = _even(gradient)
    lines = _result_back(even[:, ::2], even[:, 1::2])
    return lax.optimization_barrier(
        [v for x in lines for v in _result_back(x[:, :, ::2], x[:, :, 1::2])]
    )


def results(products: list, shape: tuple[int, int, int]) -> Float[Array, 'b h w o']:
    """Aᵀ m A of 16 products, put together into images of a shape."""
    images, height, width = shape
    tiles = images, (height + 1) // 2, (width + 1) // 2, -1
    half = [_result(*row) for row in _grid([m.reshape(tiles) for m in products])]
    left, right = (_result(*column) for column in zip(*half))
    lines = jnp.stack([jnp.stack(pair, axis=3) for pair in zip(left, right)], axis=2)
    return lines.reshape(images, 2 * tiles[1], 2 * tiles[2], -1)[:, :height, :width]


def rows(x: Float[Array, '*n c']) -> Float[Array, 'm c']:
    """All but the last axis in one."""
    return x.reshape(-1, x.shape[-1])


def over_rows(x: Float[Array, '*n i'], y: Float[Array, '*n o']) -> Float[Array, 'i o']:
    """xᵀ y, added up in float32 at least."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return lax.dot_general(rows(x), rows(y), ROWS, preferred_element_type=wide)


def _window(a, b, c, d) -> tuple:
    return a - c, b + c, c - b, b - d


def _kernel(a, b, c) -> tuple:
    return a, 0.5 * (a + b + c), 0.5 * (a - b + c), c


def _kernel_back(a, b, c, d) -> tuple:
    return a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d


def _result(a, b, c, d) -> tuple:
    return a + b + c, b - c - d


def _result_back(a, b) -> tuple:
    return a, a + b, a - b, -b


def _turned(row) -> tuple:
    return row[3], row[1], row[2], row[0]


def _grid(items: list) -> list:
    return [items[4 * i : 4 * i + 4] for i in range(4)]


def _even(x):
    """Zeros below and to the right where height or width is odd."""
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
