import numpy as np
import pytest
from PIL import Image

from tests.windows import CENTRED, check_windows
from train.data.window import Windows


def boxes(height, width, *, scale, ratio, count=4000):
    windows = Windows(0, scale, ratio)
    return np.array([windows.draw(i, height, width) for i in range(count)]).T


def test_windows_have_the_area_and_the_proportions_that_were_asked_for():
    check_windows(boxes)


@pytest.mark.parametrize(("size", "ratio", "box"), CENTRED)
def test_what_does_not_fit_is_cut_in_the_centre(size, ratio, box):
    found = boxes(*size, scale=(1.0, 1.0), ratio=ratio, count=3).T
    np.testing.assert_array_equal(found, [box] * 3)


def test_a_window_follows_from_the_seed_and_the_place_and_not_from_the_resolution():
    windows = Windows(3, (0.08, 1.0))
    found = [windows.draw(i, 400, 600) for i in range(200)]
    assert found == [windows.draw(i, 400, 600) for i in range(200)]
    other = [Windows(4, (0.08, 1.0)).draw(i, 400, 600) for i in range(200)]
    assert len({*found, *other}) > 390
    for i, box in enumerate(found):
        # Sides are rounded to whole pixels, and so the places.
        half = windows.draw(i, 200, 300)
        np.testing.assert_allclose(np.multiply(half, 2), box, atol=3)


def test_a_window_is_cut_out_and_resized_with_antialiasing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3), np.uint8)
    windows = Windows(0, (0.5, 1.0))
    top, left, height, width = windows.draw(7, 60, 90)
    box = (left, top, left + width, top + height)
    cropped = Image.fromarray(image).crop(box)
    expected = np.asarray(cropped.resize((16, 16), Image.Resampling.BICUBIC))
    found = windows.cut(image, 7, 16, "bicubic")
    np.testing.assert_array_equal(found, expected)
    grey = windows.cut(image[..., :1], 7, 16, "bicubic")
    np.testing.assert_array_equal(grey[..., 0], expected[..., 0])


def test_the_short_side_makes_the_window_as_large_as_asked():
    windows = Windows(0, (0.08, 1.0))
    for position in range(50):
        least = windows.least(position, 100, 3000, 4000)
        _, _, height, width = windows.draw(position, 3000, 4000)
        assert 100 <= min(height, width) * least / 3000 <= 101
