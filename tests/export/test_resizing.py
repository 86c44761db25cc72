"""Resizing inside the program gives Pillow's pixels, up to a level."""

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_flax.export.resizing import resized_to_centre

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def expected(pixels, short, size, interpolation, squash):
    height, width = pixels.shape[:2]
    least = min(height, width)
    whole = (short, short)
    if not squash:
        whole = (width * short // least, height * short // least)
    left, top = (round((n - size) / 2) for n in whole)
    resized = Image.fromarray(pixels).resize(whole, FILTERS[interpolation])
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_pixels_are_pillows(interpolation, squash):
    resize = jax.jit(
        lambda x: resized_to_centre(
            x, 37, 32, interpolation=interpolation, squash=squash
        )
    )
    # Smaller and larger, wide and high; odd differences round halves to even.
    for shape in ((90, 121, 3), (121, 90, 3), (20, 31, 3), (37, 38, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        difference = np.abs(
            np.asarray(resize(pixels[None])[0])
            - expected(pixels, 37, 32, interpolation, squash)
        )
        assert difference.max() <= 1
        # Halves, which Pillow's fixed-point weights miss.
        assert (difference > 0).mean() < 0.02
