import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax import augment


def test_normalize_works_channel_by_channel():
    images = jnp.array([0.5, 1.0]).reshape(1, 1, 1, 2)
    normal = augment.normalize(images, mean=(0.25, 0.5), std=(0.25, 2.0))
    np.testing.assert_array_equal(normal.ravel(), [1.0, 0.25])


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.5, 0.5), (0.5, 0.0))])
def test_statistics_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(ValueError, match="2 channels take as many means"):
        augment.normalize(jnp.ones((1, 1, 1, 2)), mean, std)
