"""One small case of deformable convolution v2."""

from typing import Any

import jax

from cnn_flax.layers import deform_conv2d

__all__ = ["arguments", "loss"]


def arguments(
    n=2, size=(6, 7), channels=4, features=5, reach=1.0, lead=()
) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0), 5)
    return {
        "x": jax.random.normal(keys[0], (*lead, n, *size, channels)),
        "offset": reach * jax.random.normal(keys[1], (*lead, n, *size, 18)),
        "weight": jax.random.normal(keys[2], (3, 3, channels, features)),
        "bias": jax.random.normal(keys[3], (features,)),
        "mask": jax.random.uniform(keys[4], (*lead, n, *size, 9)),
    }


def loss(arguments):
    return (deform_conv2d(**arguments, padding=1) ** 2).sum()
