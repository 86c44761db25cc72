"""Operations on the 256 levels that an image is rounded to.

Each is a table from level to level, one an image and channel, so that several are one
table. What depends on how many pixels have a level (`equalize`, `autocontrast`) takes
the counts at that point of the chain, which follow from the first ones: `move_counts`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

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
    """`[spread, level]`: where torchvision has the levels of each range from 0 on.

    Its float32 quotient is rounded down. Where the true one is whole, rounding decides
    between two levels, and XLA, which multiplies by the reciprocal, would differ.
    """
    levels = np.arange(_LEVELS, dtype=np.float32)
    steps = np.maximum(levels, 1) * np.float32(1 / (_LEVELS - 1))
    return np.minimum(levels / steps[:, None], _LEVELS - 1).astype(np.int32)


_SPREADS = _quotients()


@image_operation
def posterize(images: jax.Array, bits: ArrayLike) -> jax.Array:
    """Keeps the highest bits of each level, as torchvision's `posterize` of bytes.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; rounded to 256 levels.
      bits: how many, in [0, 8]: a number, or one an image `[N]`.

    Returns:
      The shape of `images`, on the 256 levels.

    Raises:
      ValueError: if `bits` is outside its range.
    """
    bits = per_image("bits", bits, len(images), low=0, high=8)
    low = _low_bits(bits)[:, None, None, None]
    return from_levels(_without(to_levels(images), low), images.dtype)


def _low_bits(bits):
    return 8 - bits.astype(jnp.int32)


def _without(levels, low):
    # Shifts: a division is many times slower.
    return levels >> low << low


@image_operation
def equalize(images: jax.Array) -> jax.Array:
    """Spreads the levels so that each range has as many pixels, as Pillow's `equalize`.

    A channel that has too few different pixels for a step stays as it is.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; rounded to 256 levels.

    Returns:
      The shape of `images`, on the 256 levels.
    """
    levels = to_levels(images)
    return from_levels(
        look_up(levels, equalize_table(level_counts(levels))), images.dtype
    )


@image_operation
def autocontrast(images: jax.Array) -> jax.Array:
    """Spreads each channel from its darkest and brightest to 0 and 1, as torchvision's.

    A channel of one level stays as it is.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; rounded to 256 levels.

    Returns:
      The shape of `images`, on the 256 levels.
    """
    levels = to_levels(images)
    n, height, width, channels = levels.shape
    # Whole rows first: a minimum that leaves only channels is many times slower.
    rows = levels.reshape(n, height, width * channels)
    low, high = (
        extreme(extreme(rows, 1).reshape(n, width, channels), 1)
        for extreme in (jnp.min, jnp.max)
    )
    return from_levels(look_up(levels, _spread_table(low, high)), images.dtype)


def _spread_table(low, high):
    """From [low, high] to [0, 255]; where they are equal, no change: `[N, C, 256]`."""
    levels = jnp.arange(_LEVELS)[None, None]
    low, spread = low[..., None], (high - low)[..., None]
    moved = jnp.asarray(_SPREADS)[spread, jnp.clip(levels - low, 0, _LEVELS - 1)]
    return jnp.where(spread == 0, levels, moved)


def to_levels(images: jax.Array) -> jax.Array:
    """The nearest of the 256 levels, int32 0 to 255."""
    return jnp.round(jnp.clip(images, 0, 1) * (_LEVELS - 1)).astype(jnp.int32)


def from_levels(levels: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """From 0 to 255 to [0, 1]."""
    return levels.astype(dtype) / (_LEVELS - 1)


def level_counts(levels: jax.Array) -> jax.Array:
    """How many pixels of each image and channel have each level.

    Args:
      levels: int32 `[N, H, W, C]`, 0 to 255.

    Returns:
      int32 `[N, C, 256]`.
    """
    channels = levels.shape[-1]

    def count(image):
        places = image + _LEVELS * jnp.arange(channels)[None, None]
        empty = jnp.zeros(channels * _LEVELS, jnp.int32)
        counts = empty.at[places.ravel()].add(1, mode="promise_in_bounds")
        return counts.reshape(channels, _LEVELS)

    return _of_each(count, levels)


def look_up(levels: jax.Array, tables: jax.Array) -> jax.Array:
    """What tables `[N, C, 256]` make of levels `[N, H, W, C]`."""
    channels = levels.shape[-1]

    def read(image, table):
        places = image + _LEVELS * jnp.arange(channels)[None, None]
        # Put down first: XLA would compute an entry anew for each pixel that reads it.
        rows = jnp.zeros_like(table).at[jnp.arange(channels)].set(table)
        return rows.ravel().at[places].get(mode="promise_in_bounds")

    return materialize(_of_each(read, levels, tables))


def _of_each(function, *arrays):
    """`jax.vmap`, which for one image would write down its number for each index."""
    if len(arrays[0]) > 1:
        return jax.vmap(function)(*arrays)
    return function(*(array[0] for array in arrays))[None]


def move_counts(counts: jax.Array, tables: jax.Array) -> jax.Array:
    """The counts `[N, C, 256]` of what tables `[N, C, 256]` made of an image."""

    def move(count, table):
        return jnp.zeros_like(count).at[table].add(count, mode="promise_in_bounds")

    return jax.vmap(jax.vmap(move))(counts, tables)


def identity_table(counts: jax.Array) -> jax.Array:
    """The table that changes nothing, of the shape of `counts`: `[N, C, 256]`."""
    return jnp.broadcast_to(jnp.arange(_LEVELS)[None, None], counts.shape)


def equalize_table(counts: jax.Array) -> jax.Array:
    """The table of `equalize`: `[N, C, 256]`."""
    total = counts.cumsum(-1)
    pixels = total[..., -1:]
    # The pixels of the brightest level that there is.
    brightest = jnp.where(total == pixels, counts, 0).max(-1, keepdims=True)
    step = (pixels - brightest) // (_LEVELS - 1)
    darker = total - counts
    table = (darker + step // 2) // jnp.maximum(step, 1)
    moved = jnp.clip(table, 0, _LEVELS - 1)
    return jnp.where(step == 0, identity_table(counts), moved)


def autocontrast_table(counts: jax.Array) -> jax.Array:
    """The table of `autocontrast`: `[N, C, 256]`."""
    some = counts > 0
    levels = identity_table(counts)
    low = jnp.where(some, levels, _LEVELS - 1).min(-1)
    return _spread_table(low, jnp.where(some, levels, 0).max(-1))


def posterize_table(counts: jax.Array, bits: jax.Array) -> jax.Array:
    """The table of `posterize`, `bits` one an image `[N]`: `[N, C, 256]`."""
    return _without(identity_table(counts), _low_bits(bits)[:, None, None])


def solarize_table(counts: jax.Array, threshold: jax.Array) -> jax.Array:
    """The table of `solarize`, `threshold` one an image `[N]`, in [0, 1]."""
    levels = identity_table(counts)
    bright = levels >= (threshold * (_LEVELS - 1))[:, None, None]
    return jnp.where(bright, _LEVELS - 1 - levels, levels)
