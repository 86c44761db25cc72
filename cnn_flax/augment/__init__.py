"""Image operations on the device.

Images are float `[N, H, W, C]` in [0, 1]. Random operations take a key first: one for
the batch, or one an image.
"""

from cnn_flax.augment.colour import normalize
from cnn_flax.augment.geometry import (
    horizontal_flip,
    random_crop,
    random_horizontal_flip,
    random_resized_crop,
    resized_crop,
)

__all__ = [
    "horizontal_flip",
    "normalize",
    "random_crop",
    "random_horizontal_flip",
    "random_resized_crop",
    "resized_crop",
]
