"""Every random operation with arguments, for tests that run over all of them."""

from functools import partial

from cnn_flax import augment

SHAPE = (12, 16, 3)

RANDOM = {
    "color_jitter": partial(
        augment.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
    ),
    "cutout": partial(augment.cutout, size=5),
    "gaussian_noise": augment.gaussian_noise,
    "random_affine": partial(
        augment.random_affine,
        degrees=20,
        translate=(0.2, 0.1),
        scale=(0.8, 1.2),
        shear=(-5, 5, -10, 10),
    ),
    "random_brightness": partial(augment.random_brightness, brightness=0.5),
    "random_crop": partial(augment.random_crop, size=(12, 16), padding=3),
    "random_erasing": augment.random_erasing,
    "random_gaussian_blur": partial(augment.random_gaussian_blur, kernel_size=3),
    "random_grayscale": partial(augment.random_grayscale, p=0.5),
    "random_horizontal_flip": augment.random_horizontal_flip,
    "random_perspective": augment.random_perspective,
    "random_resized_crop": partial(augment.random_resized_crop, size=(12, 16)),
    "random_rotation": partial(augment.random_rotation, degrees=30),
    "random_shear": partial(augment.random_shear, x=15, y=(5, 10)),
    "random_vertical_flip": augment.random_vertical_flip,
}
