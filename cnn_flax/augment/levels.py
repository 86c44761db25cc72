"""Operations on images quantized to 256 levels, and their lookup tables.

Each operation is a table from level to level, per image and channel, so that several
compose into one. `equalize` and `autocontrast` depend on the histogram at their point
of the chain; `move_counts` computes it from the histogram of the images.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from cnn_flax.augment import fusion_registry
from cnn_flax.augment.arguments import image_operation, per_image
from cnn_flax.layers.cpu.materialize import materialize

__all__ = [
    "autocontrast",
    "autocontrast_table",
    "equalize",
    "equalize_table",
    "from_levels",
    "identity_table",
    "level_counts",
    "look_up",
    "move_counts",
    "posterize",
    "posterize_table",
    "solarize_table",
    "to_levels",
]

_LEVELS = 256


def _quotients() -> np.ndarray:
    """`[range, level]`: torchvision's stretch of each range [0, range] to [0, 255].

    It rounds a float32 quotient down. Where the exact quotient is whole, float32
    rounding decides between two levels; XLA multiplies by the reciprocal and would
    differ.
    """
    levels = np.arange(_LEVELS, dtype=np.float32)
    steps = np.maximum(levels, 1) * np.float32(1 / (_LEVELS - 1))
    return np.minimum(levels / steps[:, None], _LEVELS - 1).astype(np.int32)


_STRETCHED = _quotients()


def to_levels(images: jax.Array) -> jax.Array:
    """Rounds [0, 1] to the 256 levels, int32 0 to 255."""
    return jnp.round(jnp.clip(images, 0, 1) * (_LEVELS - 1)).astype(jnp.int32)


def from_levels(levels: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Converts levels 0 to 255 to floats in [0, 1]."""
    return levels.astype(dtype) / (_LEVELS - 1)


def level_counts(levels: jax.Array) -> jax.Array:
    """Histogram of each image and channel.

    Args:
      levels: int32 `[N, H, W, C]`, 0 to 255.

    Returns:
      int32 `[N, C, 256]`.
    """
    channels = levels.shape[-1]

    def count(image):
        index = image + _LEVELS * jnp.arange(channels)[None, None]
        empty = jnp.zeros(channels * _LEVELS, jnp.int32)
        counts = empty.at[index.ravel()].add(1, mode="promise_in_bounds")
        return counts.reshape(channels, _LEVELS)

    return _of_each(count, levels)


def look_up(levels: jax.Array, tables: jax.Array) -> jax.Array:
    """Maps levels `[N, H, W, C]` by tables `[N, C, 256]`."""
    channels = levels.shape[-1]

    def read(image, table):
        index = image + _LEVELS * jnp.arange(channels)[None, None]
        # A copy: XLA would recompute an entry for each pixel that reads it.
        rows = jnp.zeros_like(table).at[jnp.arange(channels)].set(table)
        return rows.ravel().at[index].get(mode="promise_in_bounds")

    return materialize(_of_each(read, levels, tables))


def _of_each(function, *arrays):
    """`jax.vmap`, but without a batch index per pixel where there is one image."""
    if len(arrays[0]) == 1:
        return function(*(array[0] for array in arrays))[None]
    return jax.vmap(function)(*arrays)


def move_counts(counts: jax.Array, tables: jax.Array) -> jax.Array:
    """The histogram after a table; both `[N, C, 256]`."""

    def move(count, table):
        return jnp.zeros_like(count).at[table].add(count, mode="promise_in_bounds")

    return jax.vmap(jax.vmap(move))(counts, tables)


def identity_table(counts: jax.Array) -> jax.Array:
    """The identity table, of the shape of `counts`: `[N, C, 256]`."""
    return jnp.broadcast_to(jnp.arange(_LEVELS)[None, None], counts.shape)


def equalize_table(counts: jax.Array) -> jax.Array:
    """The table of `equalize`: `[N, C, 256]`."""
    total = counts.cumsum(-1)
    pixels = total[..., -1:]
    # Pixels of the brightest level present.
    brightest = jnp.where(total == pixels, counts, 0).max(-1, keepdims=True)
    step = (pixels - brightest) // (_LEVELS - 1)
    darker = total - counts
    table = (darker + step // 2) // jnp.maximum(step, 1)
    table = jnp.clip(table, 0, _LEVELS - 1)
    return jnp.where(step == 0, identity_table(counts), table)


def _stretch_table(low, high):
    """Maps [low, high] to [0, 255]; the identity if they are equal: `[N, C, 256]`."""
    levels = jnp.arange(_LEVELS)[None, None]
    low, extent = low[..., None], (high - low)[..., None]
    table = jnp.asarray(_STRETCHED)[extent, jnp.clip(levels - low, 0, _LEVELS - 1)]
    return jnp.where(extent == 0, levels, table)


def autocontrast_table(counts: jax.Array) -> jax.Array:
    """The table of `autocontrast`: `[N, C, 256]`."""
    is_present = counts > 0
    levels = identity_table(counts)
    low = jnp.where(is_present, levels, _LEVELS - 1).min(-1)
    return _stretch_table(low, jnp.where(is_present, levels, 0).max(-1))


def _low_bits(bits):
    return 8 - bits.astype(jnp.int32)


def _clear_bits(levels, low):
    # By shifts: a division is many times slower.
    return levels >> low << low


def posterize_table(counts: jax.Array, bits: jax.Array) -> jax.Array:
    """The table of `posterize`; `bits` is `[N]`: `[N, C, 256]`."""
    return _clear_bits(identity_table(counts), _low_bits(bits)[:, None, None])


def solarize_table(counts: jax.Array, threshold: jax.Array) -> jax.Array:
    """The table of `solarize`; `threshold` is `[N]`: `[N, C, 256]`."""
    levels = identity_table(counts)
    bright = levels >= (threshold * (_LEVELS - 1))[:, None, None]
    return jnp.where(bright, _LEVELS - 1 - levels, levels)


@fusion_registry.as_level_table(posterize_table)
@image_operation
def posterize(images: jax.Array, bits: ArrayLike) -> jax.Array:
    """Keeps the highest bits of each level, as torchvision's `posterize` on uint8.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; quantized to 256 levels.
      bits: number of bits, in [0, 8]: a number, or one per image `[N]`.

    Returns:
      The shape of `images`, on the 256 levels.

    Raises:
      ValueError: if `bits` is out of range.
    """
    bits = per_image("bits", bits, len(images), low=0, high=8)
    low = _low_bits(bits)[:, None, None, None]
    return from_levels(_clear_bits(to_levels(images), low), images.dtype)


@fusion_registry.as_level_table(equalize_table)
@image_operation
def equalize(images: jax.Array) -> jax.Array:
    """Equalizes each channel's histogram, as Pillow's `equalize`.

    A channel with too few pixels beyond its brightest level is unchanged.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; quantized to 256 levels.

    Returns:
      The shape of `images`, on the 256 levels.
    """
    levels = to_levels(images)
    return from_levels(
        look_up(levels, equalize_table(level_counts(levels))), images.dtype
    )


@fusion_registry.as_level_table(autocontrast_table)
@image_operation
def autocontrast(images: jax.Array) -> jax.Array:
    """Stretches each channel to the range [0, 1], as torchvision's `autocontrast`.

    A channel of a single level is unchanged.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; quantized to 256 levels.

    Returns:
      The shape of `images`, on the 256 levels.
    """
    levels = to_levels(images)
    n, height, width, channels = levels.shape
    # Reduce rows first: reducing to channels in one step is many times slower.
    rows = levels.reshape(n, height, width * channels)
    low, high = (
        extreme(extreme(rows, 1).reshape(n, width, channels), 1)
        for extreme in (jnp.min, jnp.max)
    )
    return from_levels(look_up(levels, _stretch_table(low, high)), images.dtype)
