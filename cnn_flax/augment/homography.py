"""Geometric transforms as 3 x 3 matrices, applied in one gather.

A matrix maps the position of an output pixel to the position in the input that it
samples: `(x', y', 1) ~ matrix @ (x, y, 1)`, in pixels from the upper left corner of the
image, so that the centre of the first pixel is (0.5, 0.5). Builders take numbers, or
one per image `[N]`, and return `[3, 3]` or `[N, 3, 3]`. `chain` multiplies several into
one.
"""

import functools
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from cnn_flax.augment.arguments import (
    Pair,
    check_interpolation,
    image_operation,
    image_size,
    per_channel,
)
from cnn_flax.layers.cpu.materialize import materialize
from cnn_flax.layers.sampling import read_bilinear, read_nearest

__all__ = [
    "Fill",
    "affine_matrix",
    "chain",
    "crop_matrix",
    "flip_matrix",
    "identity_matrix",
    "perspective_matrix",
    "resized_crop_matrix",
    "rotation_matrix",
    "shear_matrix",
    "translation_matrix",
    "warp",
]

Fill = ArrayLike | tuple[ArrayLike, ...]

_READS = {"bilinear": read_bilinear, "nearest": read_nearest}


@image_operation
def warp(
    images: jax.Array,
    matrices: jax.Array,
    size: int | tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Resamples each image by its matrix.

    Bilinear interpolation weighs the four surrounding pixels; those outside the image
    count as `fill`. With `fill=0` this equals torchvision on tensors. For another
    `fill` torchvision multiplies by the weight inside the image a second time; we do
    not.

    Args:
      images: float `[N, H, W, C]` or `[H, W, C]`.
      matrices: `[N, 3, 3]` or `[3, 3]`, from positions in the output to positions in
        the input.
      size: height and width of the result, in pixels; None: those of the images.
      interpolation: "bilinear" or "nearest", which rounds halves to even.
      fill: value outside the image: a number, one per image `[N]`, or a tuple with one
        of these per channel.

    Returns:
      `[N, *size, C]`, in the images' dtype.

    Raises:
      ValueError: if the interpolation is unknown, or a shape does not fit.
    """
    check_interpolation(interpolation)
    n, height, width, channels = images.shape
    if matrices.shape not in ((3, 3), (n, 3, 3)):
        raise ValueError(
            f"Got matrices of shape {matrices.shape} for {n} images; the shape must be "
            f"(3, 3) or ({n}, 3, 3)."
        )
    matrices = jnp.broadcast_to(matrices, (n, 3, 3))
    out_height, out_width = image_size((height, width) if size is None else size)

    def read(pixels, matrix):
        y, x = _input_positions(matrix, out_height, out_width)
        values = _READS[interpolation](pixels, (height, width), y, x)
        nearest = interpolation == "nearest"
        return values, _inside(y, height, nearest) * _inside(x, width, nearest)

    # Pixels of one image under vmap: N stays a batch dimension of the gather.
    rows = images.reshape(n, height * width, channels)
    shown, share = jax.vmap(read)(rows, matrices)
    if not (isinstance(fill, int | float) and fill == 0):
        outside = per_channel("fill", fill, n, channels)[:, None]
        shown = shown + (1 - share)[..., None] * outside
    return materialize(shown.reshape(n, out_height, out_width, channels))


def _input_positions(matrix, height, width):
    """Sampled positions, flat over the output; 0 is the centre of the first pixel."""
    y = (jnp.arange(height, dtype=matrix.dtype) + 0.5)[:, None]
    x = (jnp.arange(width, dtype=matrix.dtype) + 0.5)[None, :]
    # Unrolled: a matrix product may be of low precision on an accelerator.
    x_, y_, scale = (row[0] * x + row[1] * y + row[2] for row in matrix)
    return (y_ / scale - 0.5).ravel(), (x_ / scale - 0.5).ravel()


def _inside(position, size, nearest):
    """Interpolation weight at a position that falls inside the image, on one axis."""
    if nearest:
        position = jnp.round(position)
    low = jnp.floor(position)
    fraction = position - low
    return jnp.where((low >= 0) & (low < size), 1 - fraction, 0) + jnp.where(
        (low >= -1) & (low < size - 1), fraction, 0
    )


def chain(*matrices: jax.Array) -> jax.Array:
    """Composes transforms, the first applied first: `[3, 3]` or `[N, 3, 3]`."""
    # Matrices map from output to input, so the first stands on the left.
    return functools.reduce(partial(jnp.matmul, precision="highest"), matrices)


def identity_matrix() -> jax.Array:
    """The identity, `[3, 3]`."""
    return jnp.eye(3)


def translation_matrix(x: ArrayLike = 0.0, y: ArrayLike = 0.0) -> jax.Array:
    """Translates right by `x` and down by `y` pixels."""
    return _matrix(1.0, 0.0, -jnp.asarray(x), 0.0, 1.0, -jnp.asarray(y))


def crop_matrix(top: ArrayLike, left: ArrayLike) -> jax.Array:
    """Crops from `top` pixels below and `left` pixels right of the upper left."""
    return _matrix(1.0, 0.0, left, 0.0, 1.0, top)


def resized_crop_matrix(
    top: ArrayLike,
    left: ArrayLike,
    height: ArrayLike,
    width: ArrayLike,
    size: tuple[int, int],
) -> jax.Array:
    """Resizes a window to `size`, (height, width), in pixels."""
    down, across = jnp.asarray(height) / size[0], jnp.asarray(width) / size[1]
    return _matrix(across, 0.0, left, 0.0, down, top)


def flip_matrix(
    size: tuple[int, int], horizontal: ArrayLike = False, vertical: ArrayLike = False
) -> jax.Array:
    """Flips left to right, and upside down, where true. `size`: (height, width)."""
    across, down = (jnp.asarray(w).astype(float) for w in (horizontal, vertical))
    return _matrix(
        *(1 - 2 * across, 0.0, across * size[1]),
        *(0.0, 1 - 2 * down, down * size[0]),
    )


def rotation_matrix(size: tuple[int, int], degrees: ArrayLike) -> jax.Array:
    """Rotates counter-clockwise about the centre of `size`, (height, width)."""
    return affine_matrix(size, -jnp.asarray(degrees))


def shear_matrix(
    size: tuple[int, int], x: ArrayLike = 0.0, y: ArrayLike = 0.0
) -> jax.Array:
    """Shears by `x` and `y` degrees about the upper left corner, as in the policies."""
    return affine_matrix(size, shear=(x, y), center=(0.0, 0.0))


def affine_matrix(
    size: tuple[int, int],
    angle: ArrayLike = 0.0,
    translate: Pair = (0.0, 0.0),
    scale: ArrayLike = 1.0,
    shear: Pair = (0.0, 0.0),
    center: Pair | None = None,
) -> jax.Array:
    """Shears along x, then y, scales, rotates clockwise, translates: as torchvision.

    Args:
      size: height and width of the image, in pixels.
      angle: degrees, clockwise.
      translate: pixels right and down.
      scale: above 0.
      shear: degrees along x and along y.
      center: fixed point (x, y) of rotation and shear, in pixels from the upper left
        corner; None: the centre of `size`.
    """
    center_x, center_y = (size[1] / 2, size[0] / 2) if center is None else center
    shear_x, shear_y = (jnp.asarray(s, float) for s in shear)
    angle = jnp.asarray(angle, float)
    sin, cos = _sin_cos(angle)
    tan_x = jnp.divide(*_sin_cos(shear_x))
    sin_y, cos_y = _sin_cos(shear_y)
    sin_diff, cos_diff = _sin_cos(angle - shear_y)
    # The forward matrix, of determinant scale ** 2; its inverse maps to the input.
    a, c = cos_diff / cos_y, sin_diff / cos_y
    b, d = -a * tan_x - sin, -c * tan_x + cos
    a, b, c, d = d / scale, -b / scale, -c / scale, a / scale
    x, y = center_x + jnp.asarray(translate[0]), center_y + jnp.asarray(translate[1])
    return _matrix(a, b, center_x - a * x - b * y, c, d, center_y - c * x - d * y)


def perspective_matrix(startpoints: ArrayLike, endpoints: ArrayLike) -> jax.Array:
    """Maps four points of the image to four others.

    Args:
      startpoints: `[4, 2]` or `[N, 4, 2]`, (x, y), in order around the quadrilateral,
        no three of them collinear.
      endpoints: where these points are mapped to, `[4, 2]` or `[N, 4, 2]`.

    Raises:
      ValueError: if the points have another shape.
    """
    start, end = (jnp.asarray(p, float) for p in (startpoints, endpoints))
    for points in (start, end):
        if points.ndim not in (2, 3) or points.shape[-2:] != (4, 2):
            raise ValueError(
                f"Points must be [4, 2] or [N, 4, 2], got shape {points.shape}."
            )
    matrix = chain(_from_square(start), _adjugate(_from_square(end)))
    return matrix / matrix[..., 2:, 2:]


def _from_square(points):
    """The matrix that maps the corners of the unit square to four points.

    Heckbert 1989, "Fundamentals of texture mapping and image warping", section 2.2.3.
    """
    (x0, x1, x2, x3), (y0, y1, y2, y3) = jnp.moveaxis(points, (-1, -2), (0, 1))
    sum_x, sum_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    x12, x32, y12, y32 = x1 - x2, x3 - x2, y1 - y2, y3 - y2
    below = x12 * y32 - x32 * y12
    g = (sum_x * y32 - x32 * sum_y) / below
    h = (x12 * sum_y - sum_x * y12) / below
    return _matrix(
        *(x1 - x0 + g * x1, x3 - x0 + h * x3, x0),
        *(y1 - y0 + g * y1, y3 - y0 + h * y3, y0),
        *(g, h, 1.0),
    )


def _adjugate(matrix):
    """The inverse up to scale, which does not matter to a homography."""
    rows = [matrix[..., i, :] for i in range(3)]
    columns = [jnp.cross(rows[i - 2], rows[i - 1]) for i in range(3)]
    return jnp.stack(columns, -1)


def _sin_cos(degrees):
    """Exact at quarter turns; in float32 the sine of pi is not 0."""
    quarters = jnp.round(degrees / 90)
    rest = jnp.deg2rad(degrees - 90 * quarters)
    sin, cos = jnp.sin(rest), jnp.cos(rest)
    quadrant = quarters.astype(jnp.int32) % 4
    is_first_three = [quadrant == 0, quadrant == 1, quadrant == 2]
    return (
        jnp.select(is_first_three, [sin, cos, -sin], -cos),
        jnp.select(is_first_three, [cos, -sin, -cos], sin),
    )


def _matrix(a, b, c, d, e, f, g: ArrayLike = 0.0, h: ArrayLike = 0.0, i=1.0):
    entries = [jnp.asarray(entry, float) for entry in (a, b, c, d, e, f, g, h, i)]
    shape = jnp.broadcast_shapes(*(entry.shape for entry in entries))
    flat = jnp.stack([jnp.broadcast_to(entry, shape) for entry in entries], -1)
    return flat.reshape(*shape, 3, 3)
