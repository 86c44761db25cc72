import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from cnn_flax.analysis import (
    ReceptiveFieldError,
    deformable_sampling_points,
    receptive_field,
)
from cnn_flax.layers import DeformConv

IMAGE = jnp.ones((33, 33, 3))


class Net(nn.Module):
    """Two deformable layers at stride 2, a pointwise one between them."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), 2, padding=1, name="stem")(x)
        x = DeformConv(4, (3, 3), padding=1, name="first")(x)
        x = nn.relu(nn.Conv(4, (1, 1), name="between")(x))
        return DeformConv(4, (3, 3), strides=2, padding=1, modulated=True, name="last")(
            x
        )


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(Net().init, jax.random.key(0), IMAGE[None])
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)


def with_offsets(variables, **biases):
    """Makes the offset branches of some layers return constant biases."""
    flat = traverse_util.flatten_dict(variables)
    for path, leaf in flat.items():
        if "offset" in path:
            bias = biases.get(path[1], 0) if path[-1] == "bias" else 0
            flat[path] = jnp.zeros_like(leaf) + bias
    return traverse_util.unflatten_dict(flat)


def grid(centre, step):
    """The nine points of a 3x3 grid about a centre, in row-major order."""
    shifts = step * (np.indices((3, 3)).reshape(2, -1).T - 1)
    return np.array(centre) + shifts


def test_without_offsets_the_points_are_the_kernels_taps(variables):
    # Position (4, 4) at stride 4 is centred on pixel 16, its taps two pixels apart.
    points = deformable_sampling_points(Net(), with_offsets(variables), IMAGE)
    np.testing.assert_allclose(points, grid((16, 16), 2))
    two = deformable_sampling_points(Net(), with_offsets(variables), IMAGE, levels=2)
    expected = np.concatenate([grid(point, 2) for point in points])
    np.testing.assert_allclose(two, expected)


def test_offsets_move_the_taps(variables):
    offsets = np.zeros(27)
    offsets[0:2] = 1.25, -0.5  # The first tap: down and left.
    points = deformable_sampling_points(
        Net(), with_offsets(variables, last=offsets), IMAGE, position=(2, 3)
    )
    expected = grid((8.0, 12.0), 2)
    expected[0] += 2 * np.array([1.25, -0.5])
    np.testing.assert_allclose(points, expected, atol=1e-5)


def test_offsets_of_the_layer_before_are_those_of_the_nearest_position(variables):
    moved = with_offsets(variables, last=np.full(27, 0.6), first=np.full(18, -0.25))
    points = deformable_sampling_points(Net(), moved, IMAGE, levels=2)
    # 0.6 positions down and right rounds to one position.
    expected = [grid(p, 2) - 0.5 for p in grid((18, 18), 2)]
    np.testing.assert_allclose(points, np.concatenate(expected), atol=1e-5)


def test_a_map_between_layers_samples_through_the_layer_before_it(variables):
    points = deformable_sampling_points(
        Net(), with_offsets(variables), IMAGE, "between", position=(8, 8)
    )
    np.testing.assert_allclose(points, grid((16, 16), 2))


def test_points_lie_within_the_undeformed_field(variables):
    field = receptive_field(Net(), 33)
    points = deformable_sampling_points(
        Net(), with_offsets(variables), IMAGE, levels=2, position=(0, 0)
    )
    assert points.min() >= -field.padding[0]
    assert points.max() <= field.size[0] - field.padding[0] - 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"levels": 3}, ReceptiveFieldError, "are 2 deformable .* levels=3"),
        ({"levels": 0}, ValueError, "levels must be 1 or more"),
        ({"at": "stem"}, ReceptiveFieldError, "are 0 deformable convolutions"),
        ({"at": "lst"}, ReceptiveFieldError, "Nearest: last"),
        ({"position": (9, 0)}, ValueError, "map of 9 x 9"),
    ],
)
def test_bad_arguments_are_refused(variables, arguments, error, message):
    with pytest.raises(error, match=message):
        deformable_sampling_points(Net(), variables, IMAGE, **arguments)


def test_function_and_batch_are_refused(variables):
    with pytest.raises(TypeError, match="must be a flax.linen.Module"):
        deformable_sampling_points(jnp.sin, {}, IMAGE)
    with pytest.raises(ValueError, match=r"image must be \[H, W, C\]"):
        deformable_sampling_points(Net(), variables, IMAGE[None])
