"""AugMix: blends each image with augmented copies of itself."""

import jax
import jax.numpy as jnp

from cnn_flax.augment.arguments import image_operation
from cnn_flax.augment.policy_space import Space, draw_operations, strengths
from cnn_flax.augment.policy_table import apply_operations
from cnn_flax.augment.prng import Draw, image_keys, keys_per_image
from cnn_flax.layers.arguments import finite_number, whole_number

__all__ = ["augmix", "draw_augmix", "mix_chains"]

_BINS = 10
_MAX_DEPTH = 3
_NAMES = (
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "posterize"),
    *("solarize", "autocontrast", "equalize"),
    *("brightness", "color", "contrast", "sharpness"),
)


def augmix(
    key: jax.Array,
    images: jax.Array,
    severity: int = 3,
    mixture_width: int = 3,
    chain_depth: int = -1,
    alpha: float = 1.0,
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 0,
) -> jax.Array:
    """Blends each image with copies augmented by chains of mild operations.

    Hendrycks et al. 2019, "AugMix: A simple data processing method to improve
    robustness and uncertainty", https://arxiv.org/abs/1912.02781. Operations,
    magnitudes and weights are those of torchvision's `AugMix`, with all operations. The
    paper's consistency loss is not included.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      severity: number of magnitudes to draw from, the weakest of 10.
      mixture_width: chains per image.
      chain_depth: operations per chain; -1 draws 1, 2 or 3.
      alpha: concentration of the weights' Dirichlet distributions, above 0.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image: a number, or one per channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if an argument is out of range.
    """
    draw = draw_augmix(
        *image_keys(key, images),
        images.shape[-3:],
        severity,
        mixture_width,
        chain_depth,
        alpha,
    )
    return mix_chains(images, **draw, interpolation=interpolation, fill=fill)


def draw_augmix(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    severity: int = 3,
    mixture_width: int = 3,
    chain_depth: int = -1,
    alpha: float = 1.0,
) -> Draw:
    """Arguments of `mix_chains`: `operation`, `strength` and `weight`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      severity: see `augmix`.
      mixture_width: see `augmix`.
      chain_depth: see `augmix`.
      alpha: see `augmix`.

    Raises:
      ValueError: same as `augmix`.
    """
    severity = whole_number("severity", severity, least=None)
    if not 1 <= severity <= _BINS:
        raise ValueError(f"severity must be in [1, {_BINS}], got {severity}.")
    mixture_width = whole_number("mixture_width", mixture_width)
    chain_depth = whole_number("chain_depth", chain_depth, least=None)
    if chain_depth < 1 and chain_depth != -1:
        raise ValueError(f"chain_depth must be at least 1, or -1; got {chain_depth}.")
    alpha = finite_number("alpha", alpha)
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}.")
    depth = _MAX_DEPTH if chain_depth == -1 else chain_depth
    keys = jax.vmap(lambda k: jax.random.split(k, 4))(keys_per_image(key, n))
    key_operations, key_depth, key_weights, key_own = keys.T
    shape_ = (n, mixture_width, depth)
    draw = draw_operations(
        key_operations, n, _space(severity, shape), mixture_width * depth
    )
    draw = {name: values.reshape(shape_) for name, values in draw.items()}
    if chain_depth == -1:
        depths = jax.vmap(
            lambda k: jax.random.randint(k, (mixture_width, 1), 1, _MAX_DEPTH + 1)
        )(key_depth)
        # Operations beyond a chain's depth are the identity.
        is_used = jnp.arange(depth)[None, None] < depths
        draw = {name: jnp.where(is_used, v, 0) for name, v in draw.items()}
    weights = _dirichlet(key_weights, alpha, mixture_width)
    own = _dirichlet(key_own, alpha, 2)
    weight = jnp.concatenate([own[:, :1], own[:, 1:] * weights], 1)
    return draw | {"weight": weight}


@image_operation
def mix_chains(
    images: jax.Array,
    operation: jax.Array,
    strength: jax.Array,
    weight: jax.Array,
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 0,
) -> jax.Array:
    """Weighted sum of each image and its copies augmented by chains of operations.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      operation: indices into `OPERATIONS`, `[N, M, L]`: M chains of L operations.
      strength: of each operation, `[N, M, L]`; see `apply_operations`.
      weight: of the image itself, then of each chain, `[N, 1 + M]`.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image: a number, or one per channel.

    Returns:
      The shape of `images`.
    """
    n, chains, depth = operation.shape
    copies = jnp.repeat(images, chains, 0)
    flat = (x.reshape(n * chains, depth) for x in (operation, strength))
    changed = apply_operations(
        copies, *flat, interpolation=interpolation, fill=fill
    ).reshape(n, chains, *images.shape[1:])
    weight = weight.astype(images.dtype)[..., None, None, None]
    total = weight[:, 0] * images
    for chain in range(chains):
        total = total + weight[:, 1 + chain] * changed[:, chain]
    return jnp.clip(total, 0, 1)  # Weights sum to 1 but for rounding.


def _dirichlet(keys: jax.Array, alpha: float, count: int) -> jax.Array:
    """Weights that sum to 1, `[N, count]`."""
    alphas = jnp.full(count, alpha)
    return jax.vmap(lambda key: jax.random.dirichlet(key, alphas))(keys)


def _space(severity: int, shape: tuple[int, ...]) -> Space:
    """Same as torchvision's `AugMix._augmentation_space`, up to the severity."""
    height, width = shape[:2]
    move = (width / 3, height / 3)
    space = strengths(
        _NAMES, _BINS, shear=0.3, move=move, degrees=30, factor=0.9, keep=(4, 4)
    )
    return {name: (steps[:severity], signed) for name, (steps, signed) in space.items()}
