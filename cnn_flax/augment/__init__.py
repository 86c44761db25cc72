"""Image operations on the device.

Images are float `[N, H, W, C]` in [0, 1], or one image `[H, W, C]`; bfloat16 is
computed in float32. Numeric arguments of a deterministic operation may be scalars or
per-image arrays `[N]`.

A random operation takes a key first: one for the batch, or one per image. It comes as
two functions: `draw_NAME(key, n, ...)` returns per-image arguments of a deterministic
operation, to inspect, plot or reapply; `random_NAME(key, images, ...)` draws and
applies:

    draw = draw_rotation(key, len(images), degrees=15)      # {"degrees": [N]}
    images = rotate(images, **draw)

An image's draw depends on its key only. `compose` chains operations and fuses
neighbours.
"""

from cnn_flax.augment.augmix import augmix, draw_augmix, mix_chains
from cnn_flax.augment.auto_augment import auto_augment, draw_auto_augment
from cnn_flax.augment.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_gamma,
    adjust_hue,
    adjust_saturation,
    invert,
    normalize,
    rgb_to_grayscale,
    solarize,
)
from cnn_flax.augment.compose import compose
from cnn_flax.augment.erasing import add_noise, erase
from cnn_flax.augment.filters import adjust_sharpness, gaussian_blur
from cnn_flax.augment.geometry import (
    affine,
    center_crop,
    crop,
    horizontal_flip,
    perspective,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    vertical_flip,
)
from cnn_flax.augment.levels import autocontrast, equalize, posterize
from cnn_flax.augment.mixing import (
    blend_pairs,
    cutmix,
    cutmix_or_mixup,
    draw_cutmix,
    draw_mixup,
    mixup,
    paste_pairs,
)
from cnn_flax.augment.noisy_student import (
    draw_noisy_student_augment,
    noisy_student_augment,
)
from cnn_flax.augment.policy_table import OPERATIONS, apply_operations
from cnn_flax.augment.rand_augment import (
    draw_rand_augment,
    draw_trivial_augment,
    rand_augment,
    trivial_augment,
)
from cnn_flax.augment.random_colour import (
    color_jitter,
    draw_brightness,
    draw_grayscale,
    draw_jitter,
    jitter,
    random_brightness,
    random_grayscale,
)
from cnn_flax.augment.random_erasing import (
    cutout,
    draw_cutout,
    draw_erasing,
    random_erasing,
)
from cnn_flax.augment.random_filters import (
    draw_gaussian_blur,
    draw_gaussian_noise,
    gaussian_noise,
    random_gaussian_blur,
)
from cnn_flax.augment.random_geometry import (
    draw_affine,
    draw_crop,
    draw_flip,
    draw_perspective,
    draw_resized_crop,
    draw_rotation,
    draw_shear,
    random_affine,
    random_crop,
    random_horizontal_flip,
    random_perspective,
    random_resized_crop,
    random_rotation,
    random_shear,
    random_vertical_flip,
)
from cnn_flax.augment.resample import resize, resized_crop
from cnn_flax.augment.some_of import one_of, some_of

__all__ = [
    "OPERATIONS",
    "add_noise",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "adjust_sharpness",
    "affine",
    "apply_operations",
    "augmix",
    "auto_augment",
    "autocontrast",
    "blend_pairs",
    "center_crop",
    "color_jitter",
    "compose",
    "crop",
    "cutmix",
    "cutmix_or_mixup",
    "cutout",
    "draw_affine",
    "draw_augmix",
    "draw_auto_augment",
    "draw_brightness",
    "draw_crop",
    "draw_cutmix",
    "draw_cutout",
    "draw_erasing",
    "draw_flip",
    "draw_gaussian_blur",
    "draw_gaussian_noise",
    "draw_grayscale",
    "draw_jitter",
    "draw_mixup",
    "draw_noisy_student_augment",
    "draw_perspective",
    "draw_rand_augment",
    "draw_resized_crop",
    "draw_rotation",
    "draw_shear",
    "draw_trivial_augment",
    "equalize",
    "erase",
    "gaussian_blur",
    "gaussian_noise",
    "horizontal_flip",
    "invert",
    "jitter",
    "mix_chains",
    "mixup",
    "noisy_student_augment",
    "normalize",
    "one_of",
    "paste_pairs",
    "perspective",
    "posterize",
    "rand_augment",
    "random_affine",
    "random_brightness",
    "random_crop",
    "random_erasing",
    "random_gaussian_blur",
    "random_grayscale",
    "random_horizontal_flip",
    "random_perspective",
    "random_resized_crop",
    "random_rotation",
    "random_shear",
    "random_vertical_flip",
    "resize",
    "resized_crop",
    "rgb_to_grayscale",
    "rotate",
    "shear_x",
    "shear_y",
    "solarize",
    "some_of",
    "translate_x",
    "translate_y",
    "trivial_augment",
    "vertical_flip",
]
