import numpy as np
import pytest
from PIL import Image

from tests.support.windows import CENTRED, check_windows
from train.data.random_windows import RandomWindows


def boxes(height, width, *, scale, ratio, count=4000):
    windows = RandomWindows(0, scale, ratio)
    return np.array([windows.sample(i, height, width) for i in range(count)]).T


def test_windows_have_the_given_area_and_aspect_ratio():
    check_windows(boxes)


@pytest.mark.parametrize(("size", "ratio", "box"), CENTRED)
def test_without_a_window_that_fits_the_centre_is_cropped(size, ratio, box):
    found = boxes(*size, scale=(1.0, 1.0), ratio=ratio, count=3).T
    np.testing.assert_array_equal(found, [box] * 3)


def test_a_window_depends_on_seed_and_position_but_not_on_the_resolution():
    windows = RandomWindows(3, (0.08, 1.0))
    found = [windows.sample(i, 400, 600) for i in range(200)]
    assert found == [windows.sample(i, 400, 600) for i in range(200)]
    other = [RandomWindows(4, (0.08, 1.0)).sample(i, 400, 600) for i in range(200)]
    assert len({*found, *other}) > 390
    for i, box in enumerate(found):
        # Sides and positions are rounded to whole pixels.
        half = windows.sample(i, 200, 300)
        np.testing.assert_allclose(np.multiply(half, 2), box, atol=3)


def test_a_window_is_cropped_and_resized_with_antialiasing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3), np.uint8)
    windows = RandomWindows(0, (0.5, 1.0))
    top, left, height, width = windows.sample(7, 60, 90)
    box = (left, top, left + width, top + height)
    cropped = Image.fromarray(image).crop(box)
    expected = np.asarray(cropped.resize((16, 16), Image.Resampling.BICUBIC))
    found = windows.crop(image, 7, 16, "bicubic")
    np.testing.assert_array_equal(found, expected)
    grey = windows.crop(image[..., :1], 7, 16, "bicubic")
    np.testing.assert_array_equal(grey[..., 0], expected[..., 0])


def test_at_the_target_side_the_window_has_the_given_size():
    windows = RandomWindows(0, (0.08, 1.0))
    for position in range(50):
        target_side = windows.target_side(position, 100, 3000, 4000)
        _, _, height, width = windows.sample(position, 3000, 4000)
        assert 100 <= min(height, width) * target_side / 3000 <= 101
