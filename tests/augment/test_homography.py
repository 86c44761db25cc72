import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_flax.augment import homography
from tests.support.image_figures import (
    CORNERS,
    IMAGE,
    PERSPECTIVE_CORNERS,
    assert_is_figure,
)

SIZE = IMAGE.shape[:2]
WARP = jax.jit(homography.warp, static_argnames=("size", "interpolation", "fill"))
PERSPECTIVE = jax.jit(homography.perspective_matrix)


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("rotate_30_bilinear", homography.rotation_matrix(SIZE, 30)),
        ("rotate_-77_bilinear", homography.rotation_matrix(SIZE, -77)),
        ("shear_x_20_bilinear", homography.shear_matrix(SIZE, x=20)),
        ("shear_y_-15_bilinear", homography.shear_matrix(SIZE, y=-15)),
        (
            "affine_10_3_-2_1.2_5_bilinear",
            homography.affine_matrix(SIZE, 10, (3, -2), 1.2, (5, 0)),
        ),
        (
            "perspective_bilinear",
            homography.perspective_matrix(CORNERS, PERSPECTIVE_CORNERS),
        ),
        ("horizontal_flip", homography.flip_matrix(SIZE, True)),
        ("vertical_flip", homography.flip_matrix(SIZE, vertical=True)),
    ],
)
def test_warps_agree_with_torchvision(name, matrix):
    assert_is_figure(name, WARP(IMAGE, matrix), atol=2e-5)


@pytest.mark.parametrize("turns", range(-5, 6))
def test_quarter_turns_are_exact(turns):
    image = IMAGE[:40, :40]
    turned = WARP(image, homography.rotation_matrix((40, 40), 90 * turns))
    np.testing.assert_array_equal(turned, jnp.rot90(image, turns))


def test_a_neighbour_outside_counts_as_fill():
    # Half a pixel to the right: the first pixel is half outside.
    matrix = homography.translation_matrix(x=0.5)
    image = jnp.array([[[0.8], [0.4]]])
    np.testing.assert_allclose(WARP(image, matrix).ravel(), [0.4, 0.6])
    np.testing.assert_allclose(WARP(image, matrix, fill=1.0).ravel(), [0.9, 0.6])
    nearest = WARP(image, homography.translation_matrix(x=1.0), None, "nearest", 0.3)
    np.testing.assert_allclose(nearest.ravel(), [0.3, 0.8])


def test_fill_may_be_per_channel_or_per_image():
    away = homography.translation_matrix(x=9.0)
    images = jnp.zeros((2, 1, 1, 3))
    colour = homography.warp(images, away, fill=(0.1, 0.2, 0.3))
    np.testing.assert_allclose(colour[1].ravel(), [0.1, 0.2, 0.3])
    grey = homography.warp(images, away, fill=jnp.array([0.25, 0.5]))
    np.testing.assert_array_equal(grey[:, 0, 0, 0], [0.25, 0.5])


def test_each_image_has_its_own_matrix():
    images = jnp.stack([IMAGE, IMAGE[::-1]])
    matrices = homography.rotation_matrix(SIZE, jnp.array([12.0, -40.0]))
    together = WARP(images, matrices)
    for i in range(2):
        np.testing.assert_allclose(together[i], WARP(images[i], matrices[i]), atol=1e-6)


def test_a_chain_maps_points_as_its_matrices_in_sequence():
    moves = [
        homography.affine_matrix(SIZE, 20, (3, 1), 0.8, (4, -7)),
        homography.perspective_matrix(CORNERS, PERSPECTIVE_CORNERS),
        homography.resized_crop_matrix(2, 3, 30, 20, (16, 24)),
        homography.crop_matrix(jnp.array([1, 2]), jnp.array([0, 4])),
    ]
    point = jnp.array([5.0, 7.0, 1.0])
    expected = point
    for move in reversed(moves):
        expected = move @ expected[..., None]
        expected = expected[..., 0]
    found = homography.chain(*moves) @ point
    np.testing.assert_allclose(
        found[:, :2] / found[:, 2:], expected[:, :2] / expected[:, 2:], rtol=1e-5
    )


@given(st.tuples(*[st.floats(-8, 8)] * 8), st.tuples(*[st.floats(-8, 8)] * 8))
@settings(max_examples=50, deadline=None)
def test_a_perspective_maps_each_end_point_to_its_start(starts, ends):
    square = np.array(CORNERS, float)
    start = square + np.reshape(starts, (4, 2))
    end = square + np.reshape(ends, (4, 2))
    matrix = np.asarray(PERSPECTIVE(start, end), float)
    places = np.c_[end, np.ones(4)] @ matrix.T
    np.testing.assert_allclose(places[:, :2] / places[:, 2:], start, atol=1e-3)


@pytest.mark.slow
def test_odd_sizes_and_single_pixels():
    for height, width in ((1, 1), (1, 7), (5, 3)):
        image = IMAGE[:height, :width, :1]
        half_turn = homography.rotation_matrix((height, width), 180)
        np.testing.assert_array_equal(
            homography.warp(image, half_turn), image[::-1, ::-1]
        )


def test_bfloat16_is_returned_as_bfloat16():
    matrix = homography.rotation_matrix(SIZE, 30)
    turned = homography.warp(IMAGE.astype(jnp.bfloat16), matrix)
    assert turned.dtype == jnp.bfloat16
    # Two roundings to 8 bits.
    np.testing.assert_allclose(
        turned.astype(jnp.float32), WARP(IMAGE, matrix), atol=2**-8
    )


def test_bad_arguments_are_refused():
    matrix = homography.identity_matrix()
    for match, arguments in [
        ("one of bilinear, nearest; got 'cubic'", (IMAGE, matrix, None, "cubic")),
        (r"matrices of shape \(2, 3, 3\) for 1 images", (IMAGE, jnp.ones((2, 3, 3)))),
        (r"shape \(40, 48\)", (IMAGE[..., 0], matrix)),
        ("fill has 2 values for images of 3", (IMAGE, matrix, None, "nearest", (1, 2))),
        ("size must be a positive whole number", (IMAGE, matrix, 0)),
    ]:
        with pytest.raises(ValueError, match=match):
            homography.warp(*arguments)
    with pytest.raises(TypeError, match="got uint8: divide by 255"):
        homography.warp(jnp.zeros((2, 2, 3), jnp.uint8), matrix)
    with pytest.raises(ValueError, match=r"got shape \(4, 3\)"):
        homography.perspective_matrix(CORNERS, np.ones((4, 3)))
