"""Two images become one, and so do their labels: Mixup and CutMix.

Partners are neighbours in the batch: images 0 and 1, 2 and 3, and so on. Each pair has
one draw, from which both its images are made, so that the sum of the labels over the
batch stays what it was. A pair never spans two devices that share a batch evenly:
nothing is sent, and the pairs are the same on any number of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_flax.augment.random import keys_per_image

__all__ = [
    "Boxes",
    "blend_pairs",
    "cutmix",
    "cutmix_or_mixup",
    "draw_cutmix",
    "draw_mixup",
    "mixup",
    "paste_pairs",
]


class Boxes(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right`, the last excluded: int."""

    top: jax.Array
    left: jax.Array
    bottom: jax.Array
    right: jax.Array


def mixup(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    alpha: float = 0.2,
    num_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Blends each image with its neighbour, and their labels alike.

    Zhang et al. 2017, "mixup: Beyond empirical risk minimization",
    https://arxiv.org/abs/1710.09412: `w * x[i] + (1 - w) * x[j]` with `w` from
    Beta(alpha, alpha). The paper draws one `w` a batch and a random partner; here each
    pair of neighbours draws its own.

    Args:
      key: one key, or one an image `[N]`, of which a pair takes its first image's.
      images: float `[N, H, W, C]`; N is even.
      labels: classes, int `[N]`, or probabilities, float `[N, K]`.
      alpha: of the Beta distribution, above 0; 1 draws evenly from [0, 1], less draws
        weights nearer to 0 and 1.
      num_classes: K, where labels are classes.

    Returns:
      Images `[N, H, W, C]` and probabilities `[N, K]`, float32 or wider.

    Raises:
      ValueError: if N is odd, `alpha` is not above 0, or the labels do not fit.
    """
    labels = _soft(images, labels, num_classes)
    return blend_pairs(images, labels, draw_mixup(_pair_keys(key, images), alpha))


def cutmix(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    alpha: float = 1.0,
    num_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Pastes a box of its neighbour into each image; labels weigh by the areas.

    Yun et al. 2019, "CutMix: Regularization strategy to train strong classifiers with
    localizable features", https://arxiv.org/abs/1905.04899. The paper draws one box a
    batch and a random partner; here each pair of neighbours draws its own.

    Args:
      key: one key, or one an image `[N]`, of which a pair takes its first image's.
      images: float `[N, H, W, C]`; N is even.
      labels: classes, int `[N]`, or probabilities, float `[N, K]`.
      alpha: of the Beta distribution of the area outside the box, above 0.
      num_classes: K, where labels are classes.

    Returns:
      Images `[N, H, W, C]` and probabilities `[N, K]`, float32 or wider.

    Raises:
      ValueError: if N is odd, `alpha` is not above 0, or the labels do not fit.
    """
    labels = _soft(images, labels, num_classes)
    _, height, width, _ = images.shape
    boxes = draw_cutmix(_pair_keys(key, images), height, width, alpha)
    return paste_pairs(images, labels, boxes)


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
    """One of the two, with equal probability, for all of the batch.

    The choice is the batch's, so that only what was chosen is computed.

    Args:
      key: one key; where the batch is split over devices, the same on each.
      images: float `[N, H, W, C]`; N is even.
      labels: classes, int `[N]`, or probabilities, float `[N, K]`.
      cutmix_alpha: see `cutmix`.
      mixup_alpha: see `mixup`.
      num_classes: K, where labels are classes.
      keys: one an image `[N]`, for the pairs' draws; by default they follow from `key`
        and the image's position.

    Returns:
      Images `[N, H, W, C]` and probabilities `[N, K]`, float32 or wider.

    Raises:
      ValueError: as `cutmix` and `mixup`, or if `key` is more than one.
    """
    if key.ndim:
        raise ValueError(
            "cutmix_or_mixup chooses once a batch and takes one key, got "
            f"{key.shape[0]}; give those of the images as keys."
        )
    labels = _soft(images, labels, num_classes)
    key_choice, key_pairs = jax.random.split(key)
    pairs = _pair_keys(key_pairs if keys is None else keys, images)
    _, height, width, _ = images.shape
    _check_alpha(cutmix_alpha)
    _check_alpha(mixup_alpha)

    def cut():
        boxes = draw_cutmix(pairs, height, width, cutmix_alpha)
        return paste_pairs(images, labels, boxes)

    def mix():
        return blend_pairs(images, labels, draw_mixup(pairs, mixup_alpha))

    return jax.lax.cond(jax.random.bernoulli(key_choice), cut, mix)


def draw_mixup(keys: jax.Array, alpha: float) -> jax.Array:
    """Weights from Beta(alpha, alpha), one a key: float `[M]` in [0, 1]."""
    _check_alpha(alpha)
    return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)


def draw_cutmix(keys: jax.Array, height: int, width: int, alpha: float) -> Boxes:
    """Boxes of CutMix, one a key: int `[M]` each.

    As torchvision: with `w` from Beta(alpha, alpha), the half sides are
    `floor(sqrt(1 - w) * height / 2)` and that of `width`, the centre is anywhere in the
    image, and what is outside the image is cut off.
    """
    _check_alpha(alpha)

    def draw(key):
        key_weight, key_row, key_column = jax.random.split(key, 3)
        side = jnp.sqrt(1 - jax.random.beta(key_weight, alpha, alpha)) / 2

        def span(key, size):
            half = jnp.floor(side * size).astype(jnp.int32)
            centre = jax.random.randint(key, (), 0, size)
            return jnp.maximum(centre - half, 0), jnp.minimum(centre + half, size)

        top, bottom = span(key_row, height)
        left, right = span(key_column, width)
        return Boxes(top, left, bottom, right)

    return jax.vmap(draw)(keys)


def blend_pairs(
    images: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Each image and label becomes `w * its own + (1 - w) * its neighbour's`.

    Args:
      images: float `[N, H, W, C]`; N is even.
      labels: probabilities, float `[N, K]`.
      weights: the pairs' `w`, float `[N / 2]` in [0, 1].

    Returns:
      Images `[N, H, W, C]` and labels `[N, K]`.

    Raises:
      ValueError: if N is odd.
    """
    _check_even(images)
    weights = jnp.repeat(weights, 2)
    return _blend(images, weights), _blend(labels, weights)


def paste_pairs(
    images: jax.Array, labels: jax.Array, boxes: Boxes
) -> tuple[jax.Array, jax.Array]:
    """Each image has its neighbour's pixels in the pair's box; labels weigh by area.

    Args:
      images: float `[N, H, W, C]`; N is even.
      labels: probabilities, float `[N, K]`.
      boxes: the pairs', int `[N / 2]` each, within the image.

    Returns:
      Images `[N, H, W, C]` and labels `[N, K]`.

    Raises:
      ValueError: if N is odd.
    """
    _check_even(images)
    _, height, width, _ = images.shape
    boxes = Boxes(*(jnp.repeat(side, 2)[:, None] for side in boxes))
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows = (boxes.top <= rows) & (rows < boxes.bottom)
    in_columns = (boxes.left <= columns) & (columns < boxes.right)
    is_inside = in_rows[:, :, None] & in_columns[:, None, :]
    images = jnp.where(is_inside[..., None], _neighbours(images), images)
    area = (boxes.bottom - boxes.top) * (boxes.right - boxes.left)
    return images, _blend(labels, 1 - area[:, 0] / (height * width))


def _neighbours(rows: jax.Array) -> jax.Array:
    return rows.reshape(-1, 2, *rows.shape[1:])[:, ::-1].reshape(rows.shape)


def _blend(rows: jax.Array, weights: jax.Array) -> jax.Array:
    weights = weights.astype(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))
    return weights * rows + (1 - weights) * _neighbours(rows)


def _pair_keys(key: jax.Array, images: jax.Array) -> jax.Array:
    _check_even(images)
    return keys_per_image(key, images)[::2]


def _soft(images: jax.Array, labels: jax.Array, num_classes: int | None) -> jax.Array:
    """Probabilities `[N, K]`, float32 or wider."""
    dtype = jnp.promote_types(jnp.float32, images.dtype)
    labels = jnp.asarray(labels)
    if labels.shape[:1] != images.shape[:1] or labels.ndim not in (1, 2):
        raise ValueError(
            f"Labels are [N] or [N, K], got {labels.shape} for {len(images)} images."
        )
    if labels.ndim == 1:
        if num_classes is None or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                "Labels [N] are classes, int, and need num_classes; got "
                f"{labels.dtype} and num_classes={num_classes}."
            )
        return jax.nn.one_hot(labels, num_classes, dtype=dtype)
    if num_classes not in (None, labels.shape[1]):
        raise ValueError(f"num_classes is {num_classes} for labels {labels.shape}.")
    return labels.astype(dtype)


def _check_even(images: jax.Array) -> None:
    if len(images) % 2:
        raise ValueError(
            f"Images are mixed in pairs of neighbours, got {len(images)}, an odd "
            "number of them."
        )


def _check_alpha(alpha: float) -> None:
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}.")
