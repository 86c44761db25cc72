"""What torchvision 0.29.1's functional transforms make of one 40 x 48 image.

`tests/reference/ops/image_ops.npz`: measured on tensors; names carry the arguments.
Those of `*_uint8` are of the image in 0 to 255, the others of it in [0, 1].
"""

import jax.numpy as jnp
import numpy as np

from tests.figures import REFERENCE

with np.load(REFERENCE / "ops" / "image_ops.npz") as arrays:
    IMAGE_OPS = dict(arrays)
IMAGE = jnp.asarray(IMAGE_OPS["image_uint8_hwc"], jnp.float32) / 255
# As (x, y): where the corners of the image are and where the perspective has them.
CORNERS = ((0, 0), (47, 0), (47, 39), (0, 39))
PERSPECTIVE_CORNERS = ((4, 3), (44, 1), (46, 36), (2, 38))


def assert_is_figure(name, image, atol=1e-3):
    """`image` in [0, 1] is the figure of that name."""
    figure = IMAGE_OPS[name]
    scale = 255 if figure.dtype == np.uint8 else 1
    np.testing.assert_allclose(image, figure / scale, atol=atol, err_msg=name)
