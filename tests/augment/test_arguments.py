from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax import augment
from tests.support.random_operations import RANDOM

KEY = jax.random.key(0)
EMPTY = jnp.zeros((0, 12, 16, 3))
IMAGES = jnp.linspace(0, 1, 2 * 12 * 16 * 3).reshape(2, 12, 16, 3)
POLICIES = {
    "augmix": augment.augmix,
    "auto_augment": augment.auto_augment,
    "noisy_student_augment": augment.noisy_student_augment,
    "rand_augment": augment.rand_augment,
    "trivial_augment": augment.trivial_augment,
    "one_of": augment.one_of([augment.equalize, augment.invert]),
    "compose": lambda key, images: augment.compose(
        [
            partial(augment.random_rotation, degrees=5),
            augment.random_horizontal_flip,
            partial(augment.color_jitter, brightness=0.1),
            augment.random_grayscale,
            augment.autocontrast,
            augment.equalize,
        ]
    )(key, images)[0],
}
DETERMINISTIC = {
    "autocontrast": augment.autocontrast,
    "equalize": augment.equalize,
    "posterize": partial(augment.posterize, bits=3),
    "adjust_contrast": partial(augment.adjust_contrast, factor=0.5),
    "adjust_sharpness": partial(augment.adjust_sharpness, factor=0.5),
    "gaussian_blur": partial(augment.gaussian_blur, kernel_size=3),
    "rotate": partial(augment.rotate, degrees=30),
    "erase": partial(augment.erase, top=1, left=1, height=2, width=3),
    "resized_crop": partial(
        augment.resized_crop, top=0, left=0, height=4, width=4, size=(12, 16)
    ),
    "crop": partial(augment.crop, top=0, left=0, height=12, width=16),
}


@pytest.mark.parametrize(
    "operation", (RANDOM | POLICIES).values(), ids=RANDOM | POLICIES
)
def test_no_images_are_augmented_to_no_images(operation):
    assert jax.eval_shape(operation, KEY, EMPTY).shape == EMPTY.shape


@pytest.mark.parametrize("operation", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_no_images_are_changed_to_no_images(operation):
    assert operation(EMPTY).shape == EMPTY.shape


@pytest.mark.parametrize(
    "mix", [augment.mixup, augment.cutmix, augment.cutmix_or_mixup]
)
def test_no_images_are_mixed_to_no_images(mix):
    images, labels = mix(KEY, EMPTY, jnp.zeros(0, int), num_classes=5)
    chex.assert_shape((images, labels), [EMPTY.shape, (0, 5)])


@pytest.mark.slow
def test_numpys_numbers_are_pythons():
    for call, number in (
        (lambda n: augment.resize(IMAGES, n), 8),  # The short side, not a square.
        (lambda n: augment.center_crop(IMAGES, n), 8),
        (lambda n: augment.gaussian_blur(IMAGES, n), 3),
        (lambda n: augment.random_crop(KEY, IMAGES, 8, padding=n), 2),
        (lambda n: augment.draw_rand_augment(KEY, 2, IMAGES.shape[1:], n), 1),
        (lambda n: augment.mixup(KEY, IMAGES, jnp.arange(2), num_classes=n), 3),
        (lambda n: augment.random_horizontal_flip(KEY, IMAGES, n), 1),
        (lambda n: augment.draw_rotation(KEY, 2, n), 20),
        (lambda n: augment.color_jitter(KEY, IMAGES, brightness=n), 1),
        (lambda n: augment.draw_shear(KEY, 2, x=n), 20),
    ):
        chex.assert_trees_all_equal(call(np.int64(number)), call(number))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.rand_augment(KEY, IMAGES, num_ops=2.0), "num_ops .* 2.0"),
        (
            lambda: augment.rand_augment(KEY, IMAGES, magnitude=True),
            "magnitude .* True",
        ),
        (
            lambda: augment.trivial_augment(KEY, IMAGES, num_magnitude_bins=None),
            "num_magnitude_bins .* None",
        ),
        (lambda: augment.augmix(KEY, IMAGES, severity=3.0), "severity .* 3.0"),
        (lambda: augment.augmix(KEY, IMAGES, mixture_width=True), "mixture_width"),
        (lambda: augment.augmix(KEY, IMAGES, chain_depth="1"), "chain_depth"),
        (lambda: augment.some_of(2.0, [augment.invert] * 3), "k must be .* 2.0"),
        (lambda: augment.random_crop(KEY, IMAGES, True), "size must be .* True"),
        (lambda: augment.random_crop(KEY, IMAGES, 8, 1.5), "padding .* 1.5"),
        (lambda: augment.gaussian_blur(IMAGES, 3.0), "kernel_size .* 3.0"),
        (
            lambda: augment.mixup(KEY, IMAGES, jnp.arange(2), num_classes=0),
            "num_classes must be at least 1, got 0",
        ),
        (
            lambda: augment.cutmix(KEY, IMAGES, jnp.arange(2), num_classes=2.0),
            "num_classes must be a whole number, got 2.0",
        ),
        (
            lambda: augment.mixup(KEY, IMAGES, jnp.arange(2), None, num_classes=2),
            "alpha must be a number, got None",
        ),
        (lambda: augment.random_horizontal_flip(KEY, IMAGES, True), "p must .* True"),
        (lambda: augment.random_rotation(KEY, IMAGES, None), "degrees must .* None"),
        (
            lambda: augment.random_resized_crop(KEY, IMAGES, 8, scale=0.5),
            "scale must be a range .* 0.5",
        ),
        (
            lambda: augment.random_erasing(KEY, IMAGES, ratio=np.float32(1)),
            "ratio must be a range",
        ),
        (
            lambda: augment.random_affine(KEY, IMAGES, 5, translate=0.1),
            "translate must be two fractions",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
