import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from cnn_flax import augment
from cnn_flax.augment import levels
from tests.support.image_figures import (
    IMAGE,
    assert_agrees,
    assert_is_figure,
    figures_of,
)

EQUALIZE = jax.jit(augment.equalize)
AUTOCONTRAST = jax.jit(augment.autocontrast)
POSTERIZE = jax.jit(augment.posterize)

# Uniform values, or few distinct ones: both give gaps and long steps.
BYTES = arrays.arrays(
    np.uint8,
    (12, 16, 3),
    elements=st.one_of(st.integers(0, 255), st.sampled_from([3, 100, 101, 250])),
)


def test_levels_are_torchvisions():
    assert_is_figure("equalize_uint8", EQUALIZE(IMAGE), 1e-6)
    assert_is_figure("autocontrast_uint8", AUTOCONTRAST(IMAGE), 1e-6)
    assert_is_figure("posterize_3_uint8", POSTERIZE(IMAGE, 3), 1e-6)


@pytest.mark.parametrize("name", figures_of("equalize", "autocontrast", "posterize"))
def test_levels_agree_with_torchvision(name):
    assert_agrees(name, atol=1e-6)


@given(image=BYTES, bits=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_levels_agree_with_pillow(image, bits):
    pixels = jnp.asarray(image, jnp.float32) / 255
    pillow = Image.fromarray(image)
    for found, expected, most in [
        (EQUALIZE(pixels), ImageOps.equalize(pillow), 0),
        (POSTERIZE(pixels, bits), ImageOps.posterize(pillow, bits), 0),
        # Where the quotient is whole, torchvision rounds differently from Pillow.
        (AUTOCONTRAST(pixels), ImageOps.autocontrast(pillow), 1),
    ]:
        np.testing.assert_allclose(
            found * 255, np.asarray(expected, float), atol=most + 1e-4
        )


@pytest.mark.parametrize("operation", [EQUALIZE, AUTOCONTRAST])
def test_images_of_one_level_are_unchanged(operation):
    images = jnp.broadcast_to(
        jnp.array([0, 77, 255]).reshape(3, 1, 1, 1) / 255, (3, 6, 6, 3)
    )
    np.testing.assert_allclose(operation(images), images, atol=1e-7)


def test_eight_bits_keep_all_levels():
    np.testing.assert_allclose(POSTERIZE(IMAGE, 8), IMAGE, atol=1e-7)


def test_each_image_has_its_own_bits():
    posterized = POSTERIZE(jnp.stack([IMAGE, IMAGE]), jnp.array([2, 5]))
    for image, bits in zip(posterized, (2, 5), strict=True):
        assert len(np.unique(image)) <= 2**bits
        np.testing.assert_array_equal(image, POSTERIZE(IMAGE, bits))


def test_counts_can_be_mapped_by_a_table():
    pixels = levels.to_levels(IMAGE[None])
    counts = levels.level_counts(pixels)
    assert bool((counts.sum(-1) == 40 * 48).all())
    table = levels.equalize_table(counts)
    moved = levels.look_up(pixels, table)
    np.testing.assert_array_equal(
        levels.move_counts(counts, table), levels.level_counts(moved)
    )


def test_both_ways_to_stretch_agree():
    pixels = levels.to_levels(IMAGE[None] * 0.6 + 0.1)
    table = levels.autocontrast_table(levels.level_counts(pixels))
    np.testing.assert_allclose(
        levels.from_levels(levels.look_up(pixels, table), jnp.float32)[0],
        AUTOCONTRAST(IMAGE * 0.6 + 0.1),
        atol=1e-7,
    )


def test_bits_outside_their_range_are_refused():
    with pytest.raises(ValueError, match=r"bits must be in \[0, 8\], got 9"):
        augment.posterize(IMAGE, 9)
