import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax import augment
from tests.support.windows import CENTRED, check_windows


def numbered(n, height=4, width=5):
    """Images with all pixels distinct."""
    size = n * height * width
    return jnp.arange(1.0, size + 1).reshape(n, height, width, 1) / size


def test_random_flip_flips_an_image_or_leaves_it_unchanged():
    images = numbered(400)
    flipped = augment.random_horizontal_flip(jax.random.key(0), images, p=0.3)
    is_flipped = (flipped == augment.horizontal_flip(images)).all((1, 2, 3))
    is_same = (flipped == images).all((1, 2, 3))
    assert bool((is_flipped ^ is_same).all())
    assert stats.binomtest(int(is_flipped.sum()), 400, 0.3).pvalue > 1e-3


@pytest.mark.slow
def test_random_crop_cuts_every_window_equally_often():
    images = jnp.broadcast_to(numbered(1, 3, 4), (3000, 3, 4, 1))
    crops = augment.random_crop(jax.random.key(0), images, size=(2, 3))
    corners, counts = np.unique(crops[:, 0, 0, 0], return_counts=True)
    np.testing.assert_allclose(corners, images[0, :2, :2, 0].ravel())
    assert stats.chisquare(counts).pvalue > 1e-3
    for crop in crops[:8]:
        i, j = np.argwhere(images[0, :, :, 0] == crop[0, 0, 0])[0]
        np.testing.assert_array_equal(crop, images[0, i : i + 2, j : j + 3])


def test_padding_is_zeros_on_every_side():
    images = jnp.ones((500, 2, 2, 1))
    crops = augment.random_crop(jax.random.key(0), images, size=2, padding=2)
    shown = set(np.asarray(crops.sum((1, 2, 3))).tolist())
    assert shown == {0.0, 1.0, 2.0, 4.0}


def boxes(height, width, *, scale, ratio, count=4000):
    draw = augment.draw_resized_crop(
        jax.random.key(0), count, (height, width, 3), scale, ratio
    )
    return np.stack([draw[side] for side in ("top", "left", "height", "width")])


@pytest.mark.slow
def test_windows_have_the_requested_area_and_aspect_ratio():
    check_windows(boxes)


@pytest.mark.parametrize(("size", "ratio", "box"), CENTRED)
def test_windows_that_do_not_fit_fall_back_to_the_centre(size, ratio, box):
    found = boxes(*size, scale=(1.0, 1.0), ratio=ratio, count=3).T
    np.testing.assert_array_equal(found, [box] * 3)


def test_a_window_of_the_whole_image_leaves_it_unchanged():
    images = numbered(3, 6, 6)
    crops = augment.random_resized_crop(
        jax.random.key(0), images, 6, scale=(1.0, 1.0), ratio=(1.0, 1.0)
    )
    np.testing.assert_array_equal(crops, images)


def test_bad_arguments_are_refused():
    key, images = jax.random.key(0), numbered(2)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 2"):
        augment.random_horizontal_flip(key, images, p=2)
    with pytest.raises(
        ValueError, match="8 x 8 does not fit into padded images of 6 x 7"
    ):
        augment.random_crop(key, images, size=8, padding=1)
    with pytest.raises(ValueError, match=r"keys of shape \(3,\) for 2 images"):
        augment.random_crop(jax.random.split(key, 3), images, size=2)
    for scale in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.1)):
        with pytest.raises(ValueError, match=r"scale must be a range in \(0, 1\]"):
            augment.random_resized_crop(key, images, 2, scale=scale)
    with pytest.raises(ValueError, match="ratio must be a range above 0"):
        augment.random_resized_crop(key, images, 2, ratio=(2, 1))
