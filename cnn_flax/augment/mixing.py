"""Two images become one, and so do their labels: Mixup and CutMix.

Partners are neighbours in the batch: images 0 and 1, 2 and 3, and so on. Each pair has
one draw, from which both its images are made, so that the sum of the labels over the
batch stays what it was. A pair never spans two devices that share a batch evenly:
nothing is sent, and the pairs are the same on any number of them.
"""

import jax
import jax.numpy as jnp

from cnn_flax.augment.erasing import erase
from cnn_flax.augment.prng import Draw, keys_per_image

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
    return blend_pairs(images, labels, **draw_mixup(key, len(images), alpha))


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
    keys = keys_per_image(key_pairs if keys is None else keys, images)
    n, *shape = images.shape
    # Both before either is chosen, so that bad arguments are refused.
    box = draw_cutmix(keys, n, tuple(shape), cutmix_alpha)
    blend = draw_mixup(keys, n, mixup_alpha)
    return jax.lax.cond(
        jax.random.bernoulli(key_choice),
        lambda: paste_pairs(images, labels, **box),
        lambda: blend_pairs(images, labels, **blend),
    )


def draw_mixup(key: jax.Array, n: int, alpha: float = 0.2) -> Draw:
    """Weights of the pairs, from Beta(alpha, alpha): `weight`, float `[n / 2]`.

    Args:
      key: one key, or one an image `[n]`, of which a pair takes its first image's.
      n: how many images, even.
      alpha: see `mixup`.

    Raises:
      ValueError: if `n` is odd or `alpha` is not above 0.
    """
    return jax.vmap(lambda key: {"weight": _beta(key, alpha)})(_pair_keys(key, n))


def draw_cutmix(
    key: jax.Array, n: int, shape: tuple[int, ...], alpha: float = 1.0
) -> Draw:
    """Boxes of the pairs: `top`, `left`, `height` and `width`, int32 `[n / 2]`.

    As torchvision: with `w` from Beta(alpha, alpha), half the height is
    `floor(sqrt(1 - w) * H / 2)`, the width likewise, the centre is any pixel, and what
    is outside the image is cut off.

    Args:
      key: one key, or one an image `[n]`, of which a pair takes its first image's.
      n: how many images, even.
      shape: of an image, (H, W, C).
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
    """Start and length of a part of `size` pixels: `half` of it about any pixel."""
    half = jnp.floor(half * size).astype(jnp.int32)
    centre = jax.random.randint(key, (), 0, size)
    start = jnp.maximum(centre - half, 0)
    return start, jnp.minimum(centre + half, size) - start


def _beta(key, alpha):
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}.")
    return jax.random.beta(key, alpha, alpha)


def _pair_keys(key, n):
    _check_even(n)
    return keys_per_image(key, n)[::2]


def blend_pairs(
    images: jax.Array, labels: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Each image and label becomes `w * its own + (1 - w) * its neighbour's`.

    Args:
      images: float `[N, H, W, C]`; N is even.
      labels: probabilities, float `[N, K]`.
      weight: the pairs' `w`, float `[N / 2]` in [0, 1].

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
    """Each image has its neighbour's pixels in the pair's box; labels weigh by area.

    Args:
      images: float `[N, H, W, C]`; N is even.
      labels: probabilities, float `[N, K]`.
      top: of the pairs' boxes, which lie within the image, int `[N / 2]`.
      left: likewise.
      height: likewise.
      width: likewise.

    Returns:
      Images `[N, H, W, C]` and labels `[N, K]`.

    Raises:
      ValueError: if N is odd.
    """
    _check_even(len(images))
    top, left, height, width = (jnp.repeat(x, 2) for x in (top, left, height, width))
    pasted = erase(images, top, left, height, width, value=_neighbours(images))
    share = height * width / (images.shape[1] * images.shape[2])
    return pasted, _blend(labels, 1 - share)


def _neighbours(rows: jax.Array) -> jax.Array:
    return rows.reshape(-1, 2, *rows.shape[1:])[:, ::-1].reshape(rows.shape)


def _blend(rows: jax.Array, weights: jax.Array) -> jax.Array:
    weights = weights.astype(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))
    return weights * rows + (1 - weights) * _neighbours(rows)


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


def _check_even(n: int) -> None:
    if n % 2:
        raise ValueError(
            f"Images are mixed in pairs of neighbours, got {n}, an odd number of them."
        )
