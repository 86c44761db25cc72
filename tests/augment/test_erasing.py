import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax import augment
from tests.support.image_figures import IMAGE, assert_agrees, figures_of


@pytest.mark.parametrize("name", figures_of("erase"))
def test_erasing_agrees_with_torchvision(name):
    assert_agrees(name, atol=0)


def test_each_image_has_its_own_window_and_value():
    images = jnp.stack([IMAGE, IMAGE])
    erased = augment.erase(
        images, jnp.array([-2, 38]), 4, 6, jnp.array([3, 0]), jnp.array([0.5, 1.0])
    )
    expected = np.array(IMAGE)
    expected[:4, 4:7] = 0.5
    np.testing.assert_array_equal(erased[0], expected)
    np.testing.assert_array_equal(erased[1], IMAGE)  # A width of 0.


def test_a_value_may_be_a_colour_or_whole_images():
    colour = augment.erase(IMAGE, 0, 0, 2, 2, (0.1, 0.2, 0.3))
    np.testing.assert_allclose(colour[1, 1], [0.1, 0.2, 0.3])
    whole = augment.erase(IMAGE, 0, 0, 40, 24, 1 - IMAGE)
    np.testing.assert_array_equal(whole[:, :24], 1 - IMAGE[:, :24])
    np.testing.assert_array_equal(whole[:, 24:], IMAGE[:, 24:])


def test_noise_is_added_and_clipped():
    noisy = augment.add_noise(IMAGE, jnp.full(IMAGE.shape, 0.25))
    np.testing.assert_array_equal(noisy, jnp.minimum(IMAGE + 0.25, 1))


def test_a_value_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="value has 2 values for images of 3"):
        augment.erase(IMAGE, 0, 0, 2, 2, (0.1, 0.2))
