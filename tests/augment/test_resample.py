import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_flax import augment
from tests.support.image_figures import (
    IMAGE,
    IMAGE_OPS,
    assert_agrees,
    assert_is_figure,
    figures_of,
)

RESIZE, RESIZED_CROP = (
    jax.jit(operation, static_argnames=("size", "interpolation", "antialias"))
    for operation in (augment.resize, augment.resized_crop)
)
BOXES = np.array([(0, 0, 40, 48), (2, 3, 27, 15), (39, 47, 1, 1), (1, 0, 9, 2)])


def test_an_antialiased_crop_agrees_with_torchvision():
    crop = RESIZED_CROP(IMAGE, 5, 7, 20, 30, 32)
    assert_is_figure("resized_crop_5_7_20_30_to_32x32_bilinear_antialias", crop, 1e-6)
    whole = RESIZED_CROP(IMAGE, 0, 0, 40, 48, (16, 24))
    assert_is_figure("resized_crop_0_0_40_48_to_16x24_bilinear_antialias", whole, 1e-6)


@pytest.mark.parametrize("name", figures_of("resize", "resized_crop"))
def test_resizing_agrees_with_torchvision(name):
    assert_agrees(name)


@pytest.mark.parametrize("size", [(7, 61), (40, 5), (90, 100)])
def test_resizing_agrees_with_pillow(size):
    image = Image.fromarray(IMAGE_OPS["image_uint8_hwc"])
    expected = image.resize(size[::-1], Image.Resampling.BILINEAR)
    resized = RESIZE(IMAGE, size) * 255
    # Pillow rounds to levels after each of its two passes.
    np.testing.assert_allclose(resized, np.asarray(expected, float), atol=1)


def test_a_resized_crop_by_hand():
    # Columns 1 to 2 of 0, 2, 4, 8 at four positions: two beyond the outer centres, two
    # between.
    image = jnp.array([0.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
    crop = RESIZED_CROP(image, 0, 1, 1, 2, (1, 4))
    np.testing.assert_allclose(crop.ravel(), [2, 2.5, 3.5, 4])


@pytest.mark.parametrize("antialias", [True, False])
def test_each_image_has_its_own_window(antialias):
    images = jnp.stack([IMAGE, 1 - IMAGE, IMAGE**2, IMAGE[::-1]])
    crops = RESIZED_CROP(images, *BOXES.T, size=(6, 30), antialias=antialias)
    for image, crop, (top, left, height, width) in zip(
        images, crops, BOXES, strict=True
    ):
        window = image[top : top + height, left : left + width]
        expected = jax.image.resize(window, (6, 30, 3), "linear", antialias=antialias)
        np.testing.assert_allclose(crop, expected, atol=1e-5)


@pytest.mark.parametrize("antialias", [True, False])
def test_pixels_outside_the_window_do_not_touch_the_crop(antialias):
    image = jnp.array([jnp.nan, 2.0, 4.0, jnp.inf]).reshape(1, 4, 1)
    crop = RESIZED_CROP(image, 0, 1, 1, 2, (1, 4), antialias=antialias)
    np.testing.assert_allclose(crop.ravel(), [2, 2.5, 3.5, 4])


def test_the_same_size_changes_nothing():
    np.testing.assert_array_equal(RESIZE(IMAGE, (40, 48)), IMAGE)


def test_one_number_is_the_shorter_side():
    assert RESIZE(IMAGE, 10).shape == (10, 12, 3)
    assert RESIZE(IMAGE.swapaxes(0, 1), 20).shape == (24, 20, 3)


def test_values_stay_in_range():
    images = jnp.broadcast_to(jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1), (2, 9, 11, 3))
    for size in ((3, 40), (9, 2)):
        resized = RESIZE(images, size)
        np.testing.assert_allclose(resized[1], 1, rtol=1e-6)
        np.testing.assert_array_equal(resized[0], 0)


def test_bad_arguments_are_refused():
    for match, call in [
        ("got 'cubic'", lambda: augment.resize(IMAGE, 3, "cubic")),
        ("size must be a positive whole number", lambda: augment.resize(IMAGE, 2.5)),
        (
            "ends at pixel 41 of images whose height is 40",
            lambda: augment.resized_crop(IMAGE, 1, 0, 40, 9, 3),
        ),
        (
            "height must be at least 1, got 0",
            lambda: augment.resized_crop(IMAGE, 1, 0, 0, 9, 3),
        ),
        (
            "left must be at least 0, got -1",
            lambda: augment.resized_crop(IMAGE, 1, -1, 5, 9, 3),
        ),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
