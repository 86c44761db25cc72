import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax import augment


def numbered(n, height=4, width=5):
    """Images whose pixels all differ."""
    size = n * height * width
    return jnp.arange(1.0, size + 1).reshape(n, height, width, 1) / size


def test_horizontal_flip_mirrors_columns():
    image = jnp.array([[[1.0], [2.0], [3.0]]])
    np.testing.assert_array_equal(
        augment.horizontal_flip(image), [[[3.0], [2.0], [1.0]]]
    )


def test_random_flip_flips_an_image_or_leaves_it():
    images = numbered(400)
    flipped = augment.random_horizontal_flip(jax.random.key(0), images, p=0.3)
    is_flipped = (flipped == augment.horizontal_flip(images)).all((1, 2, 3))
    is_same = (flipped == images).all((1, 2, 3))
    assert bool((is_flipped ^ is_same).all())
    assert stats.binomtest(int(is_flipped.sum()), 400, 0.3).pvalue > 1e-3


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


@pytest.mark.parametrize(
    "operation",
    [
        lambda key, x: augment.random_horizontal_flip(key, x),
        lambda key, x: augment.random_crop(key, x, 4, padding=2),
    ],
)
def test_an_images_draw_depends_on_its_key_alone(operation):
    images = numbered(6, 4, 4)
    keys = jax.random.split(jax.random.key(0), 6)
    together = operation(keys, images)
    for i in range(6):
        alone = operation(keys[i : i + 1], images[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])
    np.testing.assert_array_equal(jax.jit(operation)(keys, images), together)
    key = jax.random.key(3)
    np.testing.assert_array_equal(
        operation(key, images)[:2], operation(key, images[:2])
    )


def test_bad_arguments_are_refused():
    key, images = jax.random.key(0), numbered(2)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 2"):
        augment.random_horizontal_flip(key, images, p=2)
    with pytest.raises(ValueError, match="8 x 8 does not fit into images of 6 x 7"):
        augment.random_crop(key, images, size=8, padding=1)
    with pytest.raises(ValueError, match=r"keys of shape \(3,\) for 2 images"):
        augment.random_crop(jax.random.split(key, 3), images, size=2)
