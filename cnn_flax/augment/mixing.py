"""Mixup and CutMix: mix pairs of images and their labels.

Partners are neighbours in the batch: images 0 and 1, 2 and 3, and so on. Both images of
a pair are mixed by one draw, so that the sum of the labels over the batch does not
change. In an evenly sharded batch no pair spans two devices: there is no communication,
and the pairs are the same on any number of devices.
"""

import jax
import jax.numpy as jnp

from cnn_flax.augment.arguments import weighed
from cnn_flax.augment.erasing import erase
from cnn_flax.augment.prng import Draw, keys_per_image
from cnn_flax.layers.arguments import finite_number, whole_number

__all__ = [
    "blend_pairs",
    "cutmix",
    "cutmix_or_mixup",
    "draw_cutmix",
    "draw_mixup",
    "mixup",
    "paste_pairs",
]


def mixup(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    alpha: float = 0.2,
    num_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Blends each image with its neighbour, and their labels with the same weights.

    Zhang et al. 2017, "mixup: Beyond empirical risk minimization",
    https://arxiv.org/abs/1710.09412: `w * x[i] + (1 - w) * x[j]` with `w` from
    Beta(alpha, alpha). The paper draws one `w` per batch and random partners; here each
    pair of neighbours draws its own `w`.

    Args:
      key: one key, or one per image `[N]`; a pair uses its first image's.
      images: float `[N, H, W, C]`; N is even.
      labels: classes, int `[N]`, or probabilities, float `[N, K]`.
      alpha: parameter of the Beta distribution, above 0; 1 is uniform in [0, 1],
        smaller values favour weights near 0 and 1.
      num_classes: K; needed if labels are classes.

    Returns:
      Images `[N, H, W, C]` and probabilities `[N, K]`, float32 or wider.

    Raises:
      ValueError: if N is odd, `alpha` is not above 0, or the labels do not fit.
    """
    labels = _soft(images, labels, num_classes)
    return blend_pairs(images, labels, **draw_mixup(key, len(images), alpha))


def cutmix(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    alpha: float = 1.0,
    num_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Pastes a box of its neighbour into each image; weighs labels by area.

    Yun et al. 2019, "CutMix: Regularization strategy to train strong classifiers with
    localizable features", https://arxiv.org/abs/1905.04899. The paper draws one box per
    batch and random partners; here each pair of neighbours draws its own box.

    Args:
      key: one key, or one per image `[N]`; a pair uses its first image's.
      images: float `[N, H, W, C]`; N is even.
      labels: classes, int `[N]`, or probabilities, float `[N, K]`.
      alpha: parameter of the Beta distribution of the area outside the box, above 0.
      num_classes: K; needed if labels are classes.

    Returns:
      Images `[N, H, W, C]` and probabilities `[N, K]`, float32 or wider.

    Raises:
      ValueError: if N is odd, `alpha` is not above 0, or the labels do not fit.
    """
    labels = _soft(images, labels, num_classes)
    draw = draw_cutmix(key, len(images), images.shape[1:], alpha)
    return paste_pairs(images, labels, **draw)


def cutmix_or_mixup(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    cutmix_alpha: float = 1.0,
    mixup_alpha: float = 0.2,
    num_classes: int | None = None,
    *,
    keys: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Applies one of the two to the whole batch, with equal probability.

    The choice is made once per batch, so that only one of them is computed.

    Args:
      key: one key; if the batch is sharded over devices, the same on each.
      images: float `[N, H, W, C]`; N is even.
      labels: classes, int `[N]`, or probabilities, float `[N, K]`.
      cutmix_alpha: see `cutmix`.
      mixup_alpha: see `mixup`.
      num_classes: K; needed if labels are classes.
      keys: one per image `[N]`, for the pairs' draws; by default derived from `key` and
        the image's index.

    Returns:
      Images `[N, H, W, C]` and probabilities `[N, K]`, float32 or wider.

    Raises:
      ValueError: same as `cutmix` and `mixup`, or if `key` is not a single key.
    """
    if key.ndim:
        raise ValueError(
            "cutmix_or_mixup chooses once per batch and takes one key, got "
            f"{key.shape[0]}; pass per-image keys as `keys`."
        )
    labels = _soft(images, labels, num_classes)
    key_choice, key_pairs = jax.random.split(key)
    keys = keys_per_image(key_pairs if keys is None else keys, images)
    n, *shape = images.shape

    # Each key is used in the branch that is taken alone. Both are traced, so that bad
    # arguments of either are refused.
    def paste():
        box = draw_cutmix(keys, n, tuple(shape), cutmix_alpha)
        return paste_pairs(images, labels, **box)

    def blend():
        return blend_pairs(images, labels, **draw_mixup(keys, n, mixup_alpha))

    return jax.lax.cond(jax.random.bernoulli(key_choice), paste, blend)


def draw_mixup(key: jax.Array, n: int, alpha: float = 0.2) -> Draw:
    """Draws a weight per pair from Beta(alpha, alpha): `weight`, float `[n / 2]`.

    Args:
      key: one key, or one per image `[n]`; a pair uses its first image's.
      n: number of images, even.
      alpha: see `mixup`.

    Raises:
      ValueError: if `n` is odd or `alpha` is not above 0.
    """
    return jax.vmap(lambda key: {"weight": _beta(key, alpha)})(_pair_keys(key, n))


def draw_cutmix(
    key: jax.Array, n: int, shape: tuple[int, ...], alpha: float = 1.0
) -> Draw:
    """Draws a box per pair: `top`, `left`, `height` and `width`, int32 `[n / 2]`.

    As torchvision: with `w` from Beta(alpha, alpha), half the height is `floor(sqrt(1 -
    w) * H / 2)`, half the width `floor(sqrt(1 - w) * W / 2)`. The centre is uniform
    over the pixels, and the box is clipped to the image.

    Args:
      key: one key, or one per image `[n]`; a pair uses its first image's.
      n: number of images, even.
      shape: (H, W, C) of an image.
      alpha: see `cutmix`.

    Raises:
      ValueError: if `n` is odd or `alpha` is not above 0.
    """

    def draw(key):
        key_weight, key_row, key_column = jax.random.split(key, 3)
        half = jnp.sqrt(1 - _beta(key_weight, alpha)) / 2
        top, height = _span(key_row, half, shape[0])
        left, width = _span(key_column, half, shape[1])
        return {"top": top, "left": left, "height": height, "width": width}

    return jax.vmap(draw)(_pair_keys(key, n))


def _span(key, half, size):
    """Start and length of an interval: random centre +- `half * size`, clipped."""
    half = jnp.floor(half * size).astype(jnp.int32)
    centre = jax.random.randint(key, (), 0, size)
    start = jnp.maximum(centre - half, 0)
    return start, jnp.minimum(centre + half, size) - start


def _beta(key, alpha):
    alpha = finite_number("alpha", alpha)
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}.")
    return jax.random.beta(key, alpha, alpha)


def _pair_keys(key, n):
    _check_even(n)
    return keys_per_image(key, n)[::2]


def blend_pairs(
    images: jax.Array, labels: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Blends pairs of images and labels: `w * own + (1 - w) * neighbour`.

    Args:
      images: float `[N, H, W, C]`; N is even.
      labels: probabilities, float `[N, K]`.
      weight: `w` per pair, float `[N / 2]` in [0, 1].

    Returns:
      Images `[N, H, W, C]` and labels `[N, K]`.

    Raises:
      ValueError: if N is odd.
    """
    _check_even(len(images))
    weight = jnp.repeat(weight, 2)
    return _blend(images, weight), _blend(labels, weight)


def paste_pairs(
    images: jax.Array,
    labels: jax.Array,
    top: jax.Array,
    left: jax.Array,
    height: jax.Array,
    width: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Replaces each pair's box by the neighbour's pixels; weighs labels by area.

    Args:
      images: float `[N, H, W, C]`; N is even.
      labels: probabilities, float `[N, K]`.
      top: pixels above each pair's box, int `[N / 2]`. Boxes lie within the image.
      left: pixels left of the box, int `[N / 2]`.
      height: of the box, int `[N / 2]`.
      width: of the box, int `[N / 2]`.

    Returns:
      Images `[N, H, W, C]` and labels `[N, K]`.

    Raises:
      ValueError: if N is odd.
    """
    _check_even(len(images))
    top, left, height, width = (jnp.repeat(x, 2) for x in (top, left, height, width))
    pasted = erase(images, top, left, height, width, value=_neighbours(images))
    area = height * width / (images.shape[1] * images.shape[2])
    return pasted, _blend(labels, 1 - area)


def _neighbours(rows: jax.Array) -> jax.Array:
    return rows.reshape(-1, 2, *rows.shape[1:])[:, ::-1].reshape(rows.shape)


def _blend(rows: jax.Array, weights: jax.Array) -> jax.Array:
    weights = weights.astype(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))
    return weighed(weights, rows) + weighed(1 - weights, _neighbours(rows))


def _soft(images: jax.Array, labels: jax.Array, num_classes: int | None) -> jax.Array:
    """Converts labels to probabilities `[N, K]`, float32 or wider."""
    dtype = jnp.promote_types(jnp.float32, images.dtype)
    labels = jnp.asarray(labels)
    if labels.shape[:1] != images.shape[:1] or labels.ndim not in (1, 2):
        raise ValueError(
            f"Labels must be [N] or [N, K], got {labels.shape} for {len(images)} "
            "images."
        )
    if labels.ndim == 1:
        if num_classes is None or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                "Labels [N] must be int classes, and need num_classes; got "
                f"{labels.dtype} and num_classes={num_classes}."
            )
        num_classes = whole_number("num_classes", num_classes)
        return jax.nn.one_hot(labels, num_classes, dtype=dtype)
    if num_classes not in (None, labels.shape[1]):
        raise ValueError(f"num_classes is {num_classes} for labels {labels.shape}.")
    return labels.astype(dtype)


def _check_even(n: int) -> None:
    if n % 2:
        raise ValueError(
            f"Images are mixed in pairs of neighbours, got an odd number of them: {n}."
        )
