import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers import grid_sample
from tests.support import figures

MODES = ("bilinear", "nearest")
PADDING_MODES = ("zeros", "border", "reflection")


def reference():
    """torch 2.14.1's, in float64 and in our layout.

    For each case the output, and the gradients of `sum(y * cotangent)`. The first grid
    has pixels' centres, their edges, the image's ends and what is beyond them; the
    second is random.
    """
    with np.load(figures.REFERENCE / "ops" / "grid_sample.npz") as file:
        return {
            key: file[key] if "grid" in key else file[key].transpose(0, 2, 3, 1)
            for key in file.files
        }


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("mode", MODES)
def test_value_and_gradients_are_torchs(mode, padding_mode, align_corners, float64):
    figure = {key: jnp.asarray(value) for key, value in reference().items()}
    y, pull_back = jax.vjp(
        lambda x, grid: grid_sample(x, grid, mode, padding_mode, align_corners),
        figure["x"],
        figure["grid"],
    )
    x_gradient, grid_gradient = pull_back(figure["cotangent"])
    case = f"{mode}_{padding_mode}_{'corners' if align_corners else 'edges'}"
    for actual, name in [
        (y, "y"),
        (x_gradient, "grad_x"),
        (grid_gradient, "grad_grid"),
    ]:
        np.testing.assert_allclose(
            actual, figure[f"{case}/{name}"], rtol=1e-12, atol=1e-12, err_msg=name
        )


def test_float32_is_close_to_float64():
    figure = {key: jnp.asarray(value) for key, value in reference().items()}
    y = grid_sample(figure["x"], figure["grid"])
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, figure["bilinear_zeros_edges/y"], atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_grid_of_the_pixels_centres_gives_the_image(mode, align_corners):
    x = jax.random.normal(jax.random.key(0), (2, 4, 8, 3))

    def centres(size):
        end = 1 if align_corners else 1 - 1 / size
        return jnp.linspace(-end, end, size)

    grid = jnp.stack(jnp.meshgrid(centres(8), centres(4)), -1)
    grid = jnp.broadcast_to(grid, (2, 4, 8, 2))
    y = grid_sample(x, grid, mode, align_corners=align_corners)
    np.testing.assert_allclose(y, x, atol=1e-5)


@pytest.mark.parametrize("padding_mode", PADDING_MODES[1:])
@pytest.mark.parametrize("align_corners", [False, True])
def test_an_image_of_one_pixel_reads_that_pixel(padding_mode, align_corners):
    x = jnp.full((1, 1, 1, 2), 3.0)
    grid = 4 * jax.random.normal(jax.random.key(0), (1, 5, 5, 2))
    y = grid_sample(x, grid, padding_mode=padding_mode, align_corners=align_corners)
    np.testing.assert_allclose(y, jnp.full((1, 5, 5, 2), 3.0), rtol=1e-6)


def test_bfloat16_images_have_float32_positions():
    # bfloat16 cannot distinguish pixels if 512 of them lie between -1 and 1.
    x = (jnp.arange(512) % 2).reshape(1, 1, 512, 1).astype(jnp.bfloat16)
    column = (jnp.arange(512.0) * 2 + 1) / 512 - 1
    grid = jnp.stack([column, jnp.zeros(512)], -1).reshape(1, 1, 512, 2)
    y = grid_sample(x, grid)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(float), x.astype(float))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_jit_equals_eager_and_vmap_equals_a_loop(mode):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (3, 2, 4, 5, 2))
    grid = jax.random.normal(keys[1], (3, 2, 6, 7, 2))
    eager = jnp.stack([grid_sample(*a, mode) for a in zip(x, grid, strict=True)])
    sample = jax.jit(jax.vmap(lambda x, grid: grid_sample(x, grid, mode)))
    chex.assert_trees_all_close(sample(x, grid), eager, atol=1e-6)


def test_images_are_gathered_one_by_one():
    # Flattened over N, every device would gather the whole of a sharded batch.
    program = str(
        jax.make_jaxpr(grid_sample)(jnp.ones((4, 5, 6, 2)), jnp.ones((4, 3, 3, 2)))
    )
    gathers = program.count("= gather[")
    assert gathers == 4 == program.count("operand_batching_dims=(0,)")


def test_no_images_give_no_output():
    y = grid_sample(jnp.ones((0, 5, 6, 3)), jnp.ones((0, 4, 4, 2)))
    chex.assert_shape(y, (0, 4, 4, 3))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"mode": "bicubic"}, ValueError, "bilinear, nearest; got 'bicubic'"),
        (
            {"padding_mode": "wrap"},
            ValueError,
            "padding_mode is one of zeros, border, reflection; got 'wrap'",
        ),
        (
            {"grid": jnp.ones((3, 4, 4, 2))},
            ValueError,
            r"got the shapes \(2, 5, 6, 3\) and \(3, 4, 4, 2\)",
        ),
        ({"grid": jnp.ones((2, 4, 4, 3))}, ValueError, r"\(2, 4, 4, 3\)"),
        ({"x": jnp.ones((5, 6, 3))}, ValueError, r"\(5, 6, 3\) and \(2, 4, 4, 2\)"),
        (
            {"x": jnp.ones((2, 5, 6, 3), "uint8")},
            TypeError,
            "x must have a float dtype, got uint",
        ),
        (
            {"grid": jnp.ones((2, 4, 4, 2), int)},
            TypeError,
            "grid must have a float dtype, got",
        ),
    ],
)
def test_bad_arguments_are_refused(changes, error, message):
    given = {"x": jnp.ones((2, 5, 6, 3)), "grid": jnp.ones((2, 4, 4, 2)), **changes}
    with pytest.raises(error, match=message):
        grid_sample(**given)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_pixel_that_is_not_read_may_be_anything(mode, bad):
    """Positions outside read no pixel, though those inside the image are at hand."""
    x = jnp.full((1, 6, 6, 2), bad).at[:, 1:-1, 1:-1].set(1)
    positions = jnp.array([[-9.0, 0.0], [9.0, 9.0], [0.0, -jnp.inf], [0.0, 0.0]])

    def sample(x, grid):
        return grid_sample(x, grid, mode)

    values, back = jax.vjp(sample, x, positions[None, :, None])
    np.testing.assert_array_equal(values[0, :3, 0], jnp.zeros((3, 2)))
    np.testing.assert_array_equal(values[0, 3, 0], jnp.ones(2))
    of_x, of_grid = back(jnp.ones_like(values))
    chex.assert_tree_all_finite((of_x, of_grid))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_the_other_pixel_of_an_edge_is_not_read(mode):
    # Half a pixel outside: the only corner inside is pixel 0.
    x = jnp.array([2.0, jnp.nan, jnp.nan]).reshape(1, 1, 3, 1)
    grid = jnp.array([-1.0 - 0.2 / 3, 0.0]).reshape(1, 1, 1, 2)
    value = grid_sample(x, grid, mode)
    # The position is -0.6: the nearest is outside, the first pixel weighs 0.4.
    expected = {"bilinear": 0.8, "nearest": 0.0}[mode]
    np.testing.assert_allclose(value, np.full((1, 1, 1, 1), expected), rtol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_position_that_is_nan_reads_nan(mode):
    grid = jnp.array([[jnp.nan, 0.0], [0.0, jnp.nan], [0.0, 0.0]])[None, :, None]
    values = grid_sample(jnp.ones((1, 3, 3, 2)), grid, mode)
    np.testing.assert_array_equal(jnp.isnan(values[0, :, 0, 0]), [True, True, False])
