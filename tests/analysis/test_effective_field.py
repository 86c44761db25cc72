import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from cnn_flax import effective_receptive_field
from cnn_flax.analysis import ReceptiveFieldError

IMAGES = jnp.ones((2, 32, 32, 3))


def boxes(x):
    """Three 5x5 average poolings: the weights are a box convolved three times."""
    for _ in range(3):
        x = nn.avg_pool(x, (5, 5), padding="SAME")
    return x


def test_weights_of_stacked_average_poolings_match_the_closed_form():
    field = effective_receptive_field(boxes, {}, IMAGES)
    box = np.ones(5) / 5
    expected = np.convolve(np.convolve(box, box), box)
    row = np.zeros(32)
    row[10:23] = expected
    np.testing.assert_allclose(field.weights, np.outer(row, row), atol=1e-6)
    assert field.position == (16, 16)
    np.testing.assert_allclose(field.centre, 16, atol=1e-4)
    # The variances of three boxes of 5 add up: 3 * (5 ** 2 - 1) / 12.
    np.testing.assert_allclose(field.deviation, np.sqrt(6), rtol=1e-4)
    relative = np.outer(expected, expected) / expected.max() ** 2
    assert field.size == np.sqrt(np.sum(relative > 0.0455))


def test_position_moves_the_field():
    field = effective_receptive_field(boxes, {}, IMAGES, position=(10, 20))
    np.testing.assert_allclose(field.centre, (10, 20), atol=1e-4)


class Net(nn.Module):
    """A channels-first map, and a gate that sees the whole image."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), 2)(x)
        self.sow("intermediates", "map", x)
        y = lax.transpose(x, (0, 3, 1, 2)) * 2
        self.sow("intermediates", "channels_first", y)
        return x * x.mean((1, 2), keepdims=True)


def test_maps_may_be_channels_first_and_global_dependence_is_included():
    shapes = jax.eval_shape(Net().init, jax.random.key(0), IMAGES)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
    images = np.random.default_rng(0).standard_normal(IMAGES.shape).astype(np.float32)
    args = Net(), variables, images
    field, channels_first = (
        effective_receptive_field(*args, at, position=(3, 5))
        for at in ("map", "channels_first")
    )
    np.testing.assert_array_equal(field.weights, channels_first.weights)
    assert np.count_nonzero(field.weights) == 9
    gated = effective_receptive_field(*args, "output", position=(3, 5))
    assert np.count_nonzero(gated.weights) == 32 * 32


@pytest.mark.parametrize("position", [(16, 32), (-1, 0)])
def test_position_outside_the_map_is_refused(position):
    with pytest.raises(ValueError, match="in a map of 32 x 32"):
        effective_receptive_field(boxes, {}, IMAGES, position=position)


def test_an_array_that_is_not_a_map_is_refused():
    with pytest.raises(ReceptiveFieldError, match="no height and width"):
        effective_receptive_field(lambda x: x.mean((1, 2)), {}, IMAGES, "output")


def test_map_without_gradient_is_refused():
    with pytest.raises(ReceptiveFieldError, match="add up to 0"):
        effective_receptive_field(lambda x: nn.relu(-x), {}, IMAGES)


def test_single_image_is_refused():
    with pytest.raises(ValueError, match=r"images\[None\]"):
        effective_receptive_field(boxes, {}, IMAGES[0])
