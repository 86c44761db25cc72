"""Chains operations into one function, with as few passes over the pixels as possible.

Neighbours in the list are fused if they are of the same kind:

- operations that move pixels, with the same `interpolation` and `fill`: one homography,
  one gather. Pixels are interpolated once rather than at each step, so the result is
  sharper, and pixels that one step moves out of the image another may move back in.
  Flips, crops and quarter turns are exact either way.
- brightness, contrast, saturation, greyscale and inversion: one colour matrix. Values
  are clipped to [0, 1] once, at the end.
- posterize, solarize, equalize and autocontrast: one table of the 256 levels.

Other operations run alone. `resized_crop` reads as many pixels as its window has, so it
is never part of a homography. `fusion_registry` holds what fuses.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnn_flax.augment import colour_matrix, homography, levels
from cnn_flax.augment.arguments import per_image
from cnn_flax.augment.fusion_registry import Operation, read_operation

__all__ = ["Augmentation", "compose"]

# key, images, labels -> images, labels.
Augmentation = Callable[..., tuple[jax.Array, Any]]


def compose(operations: Sequence[Callable[..., Any]]) -> Augmentation:
    """Chains operations into one pure function.

    ```python
    augmentation = compose([
        partial(random_rotation, degrees=15),
        random_horizontal_flip,
        partial(color_jitter, brightness=0.4),
    ])
    images, labels = augmentation(key, images, labels)
    ```

    Args:
      operations: deterministic or random operations of `cnn_flax.augment`, mixing,
        policies, or your own functions of `images`, of `key, images` or of `key,
        images, labels`, in the order of application. Bind other arguments by
        `functools.partial`.

    Returns:
      A function of `key` (one, or one per image `[N]`), `images` (float `[N, H, W, C]`)
      and `labels` (None by default) that returns images and labels. Each operation gets
      its own key: the batch's, folded with its index in the list.

    Raises:
      TypeError: if an item is not such a function.
    """
    read = [read_operation(operation) for operation in operations]
    runs = _runs(read)

    def augmentation(
        key: jax.Array, images: jax.Array, labels: Any = None
    ) -> tuple[jax.Array, Any]:
        index = 0
        for run in runs:
            keys = [_fold(key, index + i) for i in range(len(run))]
            index += len(run)
            if run[0].mixes:
                images, labels = run[0].function(
                    images=images, labels=labels, key=keys[0], **run[0].options
                )
            else:
                images = _apply(run, keys, images)
        return images, labels

    return augmentation


def _fold(key, index):
    fold = functools.partial(jax.random.fold_in, data=index)
    return fold(key) if key.ndim == 0 else jax.vmap(fold)(key)


def _runs(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Groups neighbours that fuse."""
    runs = []
    for operation in operations:
        if runs and all(_fit(operation, other) for other in runs[-1]):
            runs[-1].append(operation)
        else:
            runs.append([operation])
    return runs


def _fit(one, other):
    """Whether two operations fuse: the same kind, sampling pixels the same way."""
    if one.fusion is None or other.fusion is None:
        return False
    sampling = _sampling(one), _sampling(other)
    common = sampling[0].keys() & sampling[1].keys()
    return one.fusion.kind == other.fusion.kind and all(
        _same(sampling[0][name], sampling[1][name]) for name in common
    )


def _sampling(operation):
    """Its `interpolation` and `fill`, as far as it uses them."""
    defaults = operation.fusion.sampling
    return {name: operation.options.get(name, defaults[name]) for name in defaults}


def _same(one, other):
    if isinstance(one, jax.Array) or isinstance(other, jax.Array):
        return one is other
    return one == other


def _apply(run, keys, images):
    if len(run) == 1:
        arguments = run[0].arguments(keys[0], images)
        return run[0].function(images=images, **arguments)
    return _FUSED[run[0].fusion.kind](run, keys, images)


def _warp(run, keys, images):
    sampling, matrices, seen = {}, [], images
    for operation, key in zip(run, keys, strict=True):
        arguments = operation.arguments(key, seen)
        own = _sampling(operation)
        moves = {k: v for k, v in arguments.items() if k not in own}
        matrices.append(operation.fusion.build(seen.shape[1:3], **moves))
        seen = jax.eval_shape(functools.partial(operation.function, **arguments), seen)
        sampling |= own
    # Operations that do not interpolate move whole pixels.
    sampling.setdefault("interpolation", "nearest")
    matrix = homography.chain(*matrices)
    return homography.warp(images, matrix, seen.shape[1:3], **sampling)


def _change_colours(run, keys, images):
    mean = colour_matrix.mean_colour(images.astype(float))
    total = colour_matrix.identity_colours(*mean.shape)
    for operation, key in zip(run, keys, strict=True):
        arguments = _arguments(operation, key, images)
        current_mean = colour_matrix.shift_colour(total, mean)
        matrix = operation.fusion.build(current_mean, **arguments)
        total = colour_matrix.chain_colours(total, matrix)
    return jnp.clip(colour_matrix.change_colours(images, total), 0, 1)


def _look_up_levels(run, keys, images):
    before = levels.to_levels(images)
    counts = levels.level_counts(before)
    total = levels.identity_table(counts)
    for operation, key in zip(run, keys, strict=True):
        arguments = _arguments(operation, key, images)
        table = operation.fusion.build(counts, **arguments)
        total = jnp.take_along_axis(table, total, -1)
        counts = levels.move_counts(counts, table)
    return levels.from_levels(levels.look_up(before, total), images.dtype)


def _arguments(operation, key, images):
    """`Operation.arguments`, each broadcast to `[N]`."""
    arguments = operation.arguments(key, images)
    return {
        name: per_image(name, value, len(images)) for name, value in arguments.items()
    }


_FUSED = {
    "homography": _warp,
    "colour_matrix": _change_colours,
    "level_table": _look_up_levels,
}
