"""Outputs of torchvision 0.29.1's functional transforms on some images.

`tests/reference/ops/image_ops.npz`: on one 40 x 48 image; names carry the arguments.
`torchvision_functional.npz`: on small images, each stored as `image NAME` (13 x 17 in
colour, 8 x 5 in grey, 6 x 6 of one colour, a single pixel). A figure's name is the
image, the function of `torchvision.transforms.v2.functional`, and its arguments as JSON
under our names. All were computed on tensors: `*_uint8` on the image in 0 to 255,
others on the image in float32 in [0, 1].
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax import augment
from tests.support.figures import REFERENCE

with np.load(REFERENCE / "ops" / "image_ops.npz") as arrays:
    IMAGE_OPS = dict(arrays)
IMAGE = jnp.asarray(IMAGE_OPS["image_uint8_hwc"], jnp.float32) / 255
# (x, y) of the corners of the image, and where the perspective maps them.
CORNERS = ((0, 0), (47, 0), (47, 39), (0, 39))
PERSPECTIVE_CORNERS = ((4, 3), (44, 1), (46, 36), (2, 38))

with np.load(REFERENCE / "ops" / "torchvision_functional.npz") as arrays:
    FUNCTIONAL = dict(arrays)

# A program is compiled for each value of these; other arguments are traced.
_STATIC = ("size", "interpolation", "antialias", "kernel_size", "num_output_channels")


def assert_is_figure(name, image, atol=1e-3):
    """Checks `image` in [0, 1] against the figure of that name in `image_ops.npz`."""
    _assert_close(name, image, IMAGE_OPS[name], atol)


def figures_of(*operations):
    """Names of the figures of these operations in `torchvision_functional.npz`."""
    words = {name: name.split()[1].removesuffix("_uint8") for name in FUNCTIONAL}
    return [name for name, word in words.items() if word in operations]


def assert_agrees(name, atol=1e-5):
    """Checks the operation named by a figure in `torchvision_functional.npz`.

    float32 rounds positions, of some pixels, to 1e-6, and colours to 1e-7.
    """
    image, operation, arguments = name.split(" ", 2)
    arguments = {key: _tuples(value) for key, value in json.loads(arguments).items()}
    if operation == "crop":
        static = tuple(arguments)
    else:
        static = tuple(key for key in arguments if key in _STATIC)
    pixels = FUNCTIONAL[f"image {image}"].astype(np.float32) / 255
    found = _compiled(operation.removesuffix("_uint8"), static)(pixels, **arguments)
    _assert_close(name, found, FUNCTIONAL[name], atol)


@functools.cache
def _compiled(operation, static):
    return jax.jit(getattr(augment, operation), static_argnames=static)


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _assert_close(name, image, figure, atol):
    scale = 255 if figure.dtype == np.uint8 else 1
    np.testing.assert_allclose(image, figure / scale, atol=atol, err_msg=name)
