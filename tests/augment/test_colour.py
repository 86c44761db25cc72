import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_flax import augment
from tests.support.image_figures import (
    IMAGE,
    IMAGE_OPS,
    assert_agrees,
    assert_is_figure,
    figures_of,
)

OPERATIONS = {
    name: jax.jit(getattr(augment, f"adjust_{name}"))
    for name in ("brightness", "contrast", "saturation", "hue", "gamma")
}
SOLARIZE = jax.jit(augment.solarize)


@pytest.mark.parametrize(
    "name",
    [n for n in IMAGE_OPS if n.split("_")[0] in OPERATIONS],
)
def test_adjustments_are_torchvisions(name):
    operation, number = name.split("_")
    assert_is_figure(name, OPERATIONS[operation](IMAGE, float(number)), 1e-6)


def test_grey_inverted_and_solarized_are_torchvisions():
    assert_is_figure("grayscale", augment.rgb_to_grayscale(IMAGE, 3), 1e-6)
    assert_is_figure("invert", augment.invert(IMAGE), 1e-7)
    assert_is_figure("solarize_0.5", SOLARIZE(IMAGE, 0.5), 1e-7)
    assert_is_figure("solarize_128_uint8", SOLARIZE(IMAGE, 128 / 255), 1e-6)


@pytest.mark.parametrize(
    "name",
    figures_of(
        *(f"adjust_{name}" for name in OPERATIONS),
        *("solarize", "invert", "rgb_to_grayscale"),
    ),
)
def test_colours_agree_with_torchvision(name):
    assert_agrees(name, atol=2e-6)


@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    hue=st.floats(-0.5, 0.5, allow_subnormal=False),
)
@settings(max_examples=60, deadline=None)
def test_hue_agrees_with_the_standard_library(colour, hue):
    pixel = np.array(colour, np.float32) / 255
    h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
    turned = OPERATIONS["hue"](pixel.reshape(1, 1, 3), hue)
    expected = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    np.testing.assert_allclose(turned.ravel(), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "neutral"),
    [("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0), ("gamma", 1)],
)
def test_the_neutral_value_changes_nothing(name, neutral):
    np.testing.assert_array_equal(OPERATIONS[name](IMAGE, neutral), IMAGE)
    # Only one of two images has it.
    images = jnp.stack([IMAGE, IMAGE])
    both = OPERATIONS[name](images, jnp.array([neutral, 0.25]))
    np.testing.assert_array_equal(both[0], IMAGE)
    assert not np.allclose(both[1], IMAGE, atol=0.05)


@given(name=st.sampled_from(sorted(OPERATIONS)), number=st.floats(-0.5, 20, width=32))
@settings(max_examples=60, deadline=None)
def test_values_stay_in_range(name, number):
    number = min(number, 0.5) if name == "hue" else max(number, 0.0)
    adjusted = OPERATIONS[name](IMAGE, number)
    assert adjusted.min() >= -1e-6
    assert adjusted.max() <= 1 + 1e-6


def test_inversion_is_its_own_inverse_where_it_is_applied():
    images = jnp.stack([IMAGE, IMAGE])
    once = augment.invert(images, jnp.array([True, False]))
    np.testing.assert_array_equal(once[1], IMAGE)
    np.testing.assert_allclose(augment.invert(once[0]), IMAGE, atol=1e-7)


def test_grey_images_stay_grey():
    grey = IMAGE[..., :1]
    np.testing.assert_array_equal(augment.adjust_hue(grey, 0.3), grey)
    np.testing.assert_array_equal(augment.adjust_saturation(grey, 0.3), grey)
    np.testing.assert_array_equal(augment.rgb_to_grayscale(grey), grey)


def test_bfloat16_is_computed_in_float32():
    low = augment.adjust_contrast(IMAGE.astype(jnp.bfloat16), 0.7)
    assert low.dtype == jnp.bfloat16
    rounded = augment.adjust_contrast(
        IMAGE.astype(jnp.bfloat16).astype(jnp.float32), 0.7
    )
    np.testing.assert_array_equal(low, rounded.astype(jnp.bfloat16))


def test_normalize_works_per_channel():
    images = jnp.array([0.5, 1.0]).reshape(1, 1, 1, 2)
    normal = augment.normalize(images, mean=(0.25, 0.5), std=(0.25, 2.0))
    np.testing.assert_array_equal(normal.ravel(), [1.0, 0.25])


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.5, 0.5), (0.5, 0.0))])
def test_statistics_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(ValueError, match="2 channels need 2 means and 2 positive"):
        augment.normalize(jnp.ones((1, 1, 1, 2)), mean, std)


def test_bad_arguments_are_refused():
    two_channels = jnp.zeros((2, 2, 2))
    for match, call in [
        (
            "factor must be at least 0, got -1",
            lambda: augment.adjust_brightness(IMAGE, -1),
        ),
        (r"hue must be in \[-0.5, 0.5\]", lambda: augment.adjust_hue(IMAGE, 0.6)),
        ("gamma must be at least 0", lambda: augment.adjust_gamma(IMAGE, -0.1)),
        ("1 or 3 channels, got 2", lambda: augment.adjust_contrast(two_channels, 1)),
        ("must be 1 or 3, got 2", lambda: augment.rgb_to_grayscale(IMAGE, 2)),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
