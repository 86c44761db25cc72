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
from cnn_flax.augment.mixing import cutmix, cutmix_or_mixup, mixup

__all__ = [
    "cutmix",
    "cutmix_or_mixup",
    "horizontal_flip",
    "mixup",
    "normalize",
    "random_crop",
    "random_horizontal_flip",
    "random_resized_crop",
    "resized_crop",
]
