import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cnn_flax import augment
from tests.support.image_figures import (
    IMAGE,
    assert_agrees,
    assert_is_figure,
    figures_of,
)

BLUR = jax.jit(augment.gaussian_blur, static_argnames="kernel_size")
SHARPEN = jax.jit(augment.adjust_sharpness)


def test_filters_are_torchvisions():
    assert_is_figure("gaussian_blur_5_1.3", BLUR(IMAGE, 5, 1.3), 1e-6)
    for factor in (0.2, 1.8):
        assert_is_figure(f"sharpness_{factor}", SHARPEN(IMAGE, factor), 1e-6)


@pytest.mark.parametrize("name", figures_of("gaussian_blur", "adjust_sharpness"))
def test_filters_agree_with_torchvision(name):
    assert_agrees(name, atol=1e-6)


@given(st.floats(0.3, 3))
@settings(max_examples=10, deadline=None)
def test_blur_agrees_with_scipy(sigma):
    expected = ndimage.gaussian_filter(
        np.asarray(IMAGE, float), sigma, mode="mirror", radius=4, axes=(0, 1)
    )
    np.testing.assert_allclose(BLUR(IMAGE, 9, sigma), expected, atol=1e-6)


def test_zero_strength_changes_nothing():
    images = jnp.stack([IMAGE, IMAGE])
    blurred = BLUR(images, 5, jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(blurred[0], IMAGE)
    assert not np.allclose(blurred[1], IMAGE, atol=0.05)
    np.testing.assert_array_equal(SHARPEN(IMAGE, 1), IMAGE)


def test_a_single_pixel_is_unchanged_by_blur():
    pixel = IMAGE[:1, :1]
    np.testing.assert_allclose(BLUR(pixel, 5, 1.0), pixel, rtol=1e-6)


@given(st.floats(0, 20))
@settings(max_examples=10, deadline=None)
def test_sharpened_values_stay_in_range(factor):
    sharp = SHARPEN(IMAGE, factor)
    assert sharp.min() >= 0 and sharp.max() <= 1


def test_bad_arguments_are_refused():
    for match, call in [
        ("kernel_size must be an odd number", lambda: augment.gaussian_blur(IMAGE, 4)),
        ("sigma must be at least 0", lambda: augment.gaussian_blur(IMAGE, 3, -1)),
        ("factor must be at least 0", lambda: augment.adjust_sharpness(IMAGE, -1)),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
