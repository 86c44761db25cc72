import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cnn_flax import augment
from tests.support.image_figures import IMAGE, assert_agrees, figures_of

MOVES = ("rotate", "affine", "perspective", "crop", "center_crop")
ROTATE = jax.jit(augment.rotate, static_argnames="fill")
AFFINE = jax.jit(augment.affine)


@pytest.mark.parametrize("name", figures_of(*MOVES))
def test_moves_agree_with_torchvision(name):
    assert_agrees(name)


def test_flips_reverse_an_axis():
    image = jnp.arange(6.0).reshape(2, 3, 1)
    np.testing.assert_array_equal(augment.horizontal_flip(image), image[:, ::-1])
    np.testing.assert_array_equal(augment.vertical_flip(image), image[::-1])
    np.testing.assert_array_equal(augment.vertical_flip(image, False), image)


def test_only_the_chosen_images_are_flipped():
    images = jnp.arange(12.0).reshape(2, 2, 3, 1)
    flipped = augment.horizontal_flip(images, jnp.array([False, True]))
    np.testing.assert_array_equal(flipped[0], images[0])
    np.testing.assert_array_equal(flipped[1], images[1, :, ::-1])


@pytest.mark.parametrize(
    ("flip", "axis"), [(augment.horizontal_flip, -2), (augment.vertical_flip, -3)]
)
def test_the_gradient_of_a_flip_is_flipped(flip, axis):
    images, weights = jax.random.uniform(jax.random.key(0), (2, 3, 4, 5, 2))
    where = jnp.array([True, False, True])
    gradient = jax.grad(lambda images: jnp.sum(weights * flip(images, where)))(images)
    expected = weights.at[::2].set(jnp.flip(weights, axis)[::2])
    np.testing.assert_array_equal(gradient, expected)


@given(where=st.lists(st.booleans(), min_size=2, max_size=2))
@settings(max_examples=4, deadline=None)
def test_a_flip_is_its_own_inverse(where):
    images = jnp.stack([IMAGE, 1 - IMAGE])
    for flip in (augment.horizontal_flip, augment.vertical_flip):
        twice = flip(flip(images, jnp.array(where)), jnp.array(where))
        np.testing.assert_array_equal(twice, images)


@pytest.mark.slow
def test_neutral_arguments_change_nothing():
    images = jnp.stack([IMAGE, 1 - IMAGE])
    zeros = jnp.zeros(2)
    corners = np.array([(0, 0), (47, 0), (47, 39), (0, 39)])
    for moved in (
        augment.rotate(images, zeros),
        augment.affine(images),
        augment.shear_x(images, 0),
        augment.shear_y(images, zeros),
        augment.translate_x(images, 0),
        augment.translate_y(images, zeros),
        augment.crop(images, zeros, zeros, 40, 48),
    ):
        np.testing.assert_array_equal(moved, images)
    # Solved in float32: positions are off by 1e-5 pixels.
    still = augment.perspective(images, corners, corners)
    np.testing.assert_allclose(still, images, atol=1e-4)


def test_whole_pixel_translations_are_exact():
    right = augment.translate_x(IMAGE, 3)
    np.testing.assert_array_equal(right[:, 3:], IMAGE[:, :-3])
    assert not right[:, :3].any()
    down = augment.translate_y(IMAGE, 5, interpolation="nearest", fill=1.0)
    np.testing.assert_array_equal(down[5:], IMAGE[:-5])
    assert bool((down[:5] == 1).all())


@given(angle=st.floats(-360, 360), fill=st.sampled_from([0.0, 0.3]))
@settings(max_examples=20, deadline=None)
def test_rotation_agrees_with_scipy(angle, fill):
    # scipy's `grid-constant` also weighs each outside neighbour as the fill.
    radians = np.deg2rad(angle)
    turn = np.array(
        [[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]]
    )
    image = np.asarray(IMAGE[:30, :41, 0], float)
    centre = (np.array(image.shape) - 1) / 2
    expected = ndimage.affine_transform(
        image,
        turn,
        centre - turn @ centre,
        order=1,
        mode="grid-constant",
        cval=fill,
    )
    turned = ROTATE(IMAGE[:30, :41, :1], angle, fill=fill)[..., 0]
    # Positions are rounded to about 1e-6 pixels; values change by at most 1 per pixel.
    np.testing.assert_allclose(turned, expected, atol=2e-5)


@given(
    angle=st.floats(-180, 180),
    move=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    scale=st.floats(0.1, 5),
    shear=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
)
@settings(max_examples=20, deadline=None)
def test_values_stay_in_range(angle, move, scale, shear):
    moved = AFFINE(IMAGE, angle, move, scale, shear)
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6  # Weights sum to 1 up to rounding.


def test_each_image_has_its_own_arguments():
    images = jnp.stack([IMAGE, 1 - IMAGE])
    angles, moves = jnp.array([10.0, -70.0]), jnp.array([2.0, -3.5])
    together = AFFINE(images, angles, (moves, 1.0), 1.1, (0.0, angles))
    for i in range(2):
        alone = AFFINE(images[i], angles[i], (moves[i], 1.0), 1.1, (0.0, angles[i]))
        np.testing.assert_allclose(together[i], alone, atol=1e-6)


def test_per_image_crops_equal_single_crops():
    images = jnp.stack([IMAGE, 1 - IMAGE])
    top, left = jnp.array([-3, 30]), jnp.array([5, 40])
    together = augment.crop(images, top, left, 17, 12)
    for i in range(2):
        alone = augment.crop(images[i], int(top[i]), int(left[i]), 17, 12)
        np.testing.assert_array_equal(together[i], alone)


def test_bad_arguments_are_refused():
    images = jnp.zeros((2, 4, 4, 3))
    for match, call in [
        (
            "degrees must be a number, or one per image for 2 images",
            lambda: augment.rotate(images, jnp.zeros(3)),
        ),
        ("degrees must be finite", lambda: augment.rotate(images, float("nan"))),
        ("scale must be at least", lambda: augment.affine(images, scale=0)),
        (
            "size must be a positive whole number",
            lambda: augment.crop(images, 0, 0, 0, 4),
        ),
        (
            "size must be a positive whole number",
            lambda: augment.center_crop(images, (1, 2, 3)),
        ),
        ("got shape", lambda: augment.horizontal_flip(images[0, 0])),
        ("one of bilinear", lambda: augment.rotate(images, 3, "bicubic")),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(TypeError, match="divide by 255"):
        augment.vertical_flip(jnp.zeros((4, 4, 3), jnp.uint8))
