"""Programs of our augmentations and of dm-pix's, for worker processes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import repeated
from benchmarks.worker_process import Program
from cnn_flax import augment

__all__ = ["dm_pix", "ours"]

_Info = dict[str, Any]


def ours(task: str, batch_size: int, size: int, window: int) -> tuple[Program, _Info]:
    """An augmentation by `cnn_flax.augment`; see `benchmarks.augmentation`."""
    augmentation: Any = {
        "resized crop + flip": augment.compose(
            [
                partial(augment.random_resized_crop, size=window),
                augment.random_horizontal_flip,
            ]
        ),
        "rotate": augment.compose([partial(augment.random_rotation, degrees=30)]),
        "rand_augment": augment.compose([augment.rand_augment]),
        "colour jitter": augment.compose(
            [
                partial(
                    augment.color_jitter,
                    brightness=0.4,
                    contrast=0.4,
                    saturation=0.4,
                    hue=0.1,
                )
            ]
        ),
    }[task]
    return _program(lambda key, images: augmentation(key, images)[0], batch_size, size)


def dm_pix(task: str, batch_size: int, size: int, window: int) -> tuple[Program, _Info]:
    """An augmentation by dm-pix; see `benchmarks.augmentation`."""
    import dm_pix  # pyright: ignore[reportMissingImports]

    del window

    def rotate(key: jax.Array, image: jax.Array) -> jax.Array:
        angle = jax.random.uniform(key, (), minval=-jnp.pi / 6, maxval=jnp.pi / 6)
        return dm_pix.rotate(image, angle)

    def jitter(key: jax.Array, image: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        image = dm_pix.random_brightness(keys[0], image, 0.4)
        image = dm_pix.random_contrast(keys[1], image, 0.6, 1.4)
        image = dm_pix.random_saturation(keys[2], image, 0.6, 1.4)
        return jnp.clip(dm_pix.random_hue(keys[3], image, 0.1), 0, 1)

    augmentation = {"rotate": rotate, "colour jitter": jitter}[task]

    def batched(key: jax.Array, images: jax.Array) -> jax.Array:
        return jax.vmap(augmentation)(jax.random.split(key, len(images)), images)

    return _program(batched, batch_size, size)


def _program(
    function: Callable[[jax.Array, jax.Array], jax.Array], batch_size: int, size: int
) -> tuple[Program, _Info]:
    shape = (batch_size, size, size, 3)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

    @jax.jit
    def step(count: int, images: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(1), count)
        return function(key, images.astype(jnp.float32) / 255)

    counts = iter(range(2**31))
    return repeated(lambda: step(next(counts), images)), {}
