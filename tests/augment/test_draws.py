import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax import augment
from cnn_flax.augment.fusion_registry import DRAWS, read_operation
from tests.support.random_operations import RANDOM, SHAPE

N = 6


def draw_all(key, n):
    return {
        name: read_operation(operation).draw(key, n, SHAPE)
        for name, operation in RANDOM.items()
    }


def assert_equal(one, other):
    # Compilers may order the sums within a normal draw differently.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, other)


def rows(draw, start, stop):
    return jax.tree.map(lambda values: values[start:stop], draw)


def test_every_random_operation_is_tested_and_registered():
    public = {
        name
        for name in augment.__all__
        if name.startswith("random_")
        or name in ("color_jitter", "cutout", "gaussian_noise")
    }
    assert public == set(RANDOM)
    assert {getattr(augment, name) for name in public} == set(DRAWS)


@pytest.mark.slow
def test_an_images_draw_depends_on_its_key_only():
    draws = jax.jit(draw_all, static_argnums=1)
    keys = jax.random.split(jax.random.key(0), N)
    together = draws(keys, N)
    assert_equal(rows(together, 3, 5), draws(keys[3:5], 2))
    # Two images have different draws.
    drawn = jax.tree.leaves(together["random_affine"])
    assert all(len(np.unique(values)) > 1 for values in drawn)
    # With one key per batch, the first images have the same draws in a smaller batch.
    key = jax.random.key(1)
    assert_equal(rows(draws(key, N), 0, 2), draws(key, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOM)
def test_a_draw_applied_is_the_random_operation(name):
    images = jax.random.uniform(jax.random.key(2), (2, *SHAPE))
    key = jax.random.key(7)
    read = read_operation(RANDOM[name])

    @jax.jit
    def both(key, images):
        replayed = read.function(images, **read.arguments(key, images))
        return RANDOM[name](key, images), replayed

    drawn, replayed = both(key, images)
    np.testing.assert_array_equal(drawn, replayed)
    assert drawn.shape == images.shape
    assert -1e-6 <= drawn.min() and drawn.max() <= 1 + 1e-6


@pytest.mark.slow
def test_vmap_over_keys_and_images_is_the_batch():
    images = jax.random.uniform(jax.random.key(2), (N, *SHAPE))
    keys = jax.random.split(jax.random.key(0), N)

    @jax.jit
    def both(keys, images):
        return [
            (RANDOM[name](keys, images), jax.vmap(RANDOM[name])(keys, images))
            for name in ("random_rotation", "random_erasing", "random_horizontal_flip")
        ]

    for batch, mapped in both(keys, images):
        np.testing.assert_allclose(batch, mapped, atol=1e-6)


@pytest.mark.slow
def test_probability_0_changes_nothing():
    images = jax.random.uniform(jax.random.key(2), (N, *SHAPE))
    for name in (
        *("color_jitter", "cutout", "gaussian_noise", "random_affine"),
        *("random_brightness", "random_erasing", "random_gaussian_blur"),
        *("random_grayscale", "random_rotation", "random_shear"),
    ):
        operation = RANDOM[name]
        same = jax.jit(lambda x, o=operation: o(jax.random.key(0), x, p=0.0))(images)
        # A chain of colour matrices rounds.
        np.testing.assert_allclose(same, images, atol=1e-6, err_msg=name)


# Distributions: the draws of many images against their definition.

COUNT = 4000
KEY = jax.random.key(5)


def is_uniform(values, low, high):
    values = np.asarray(values, float)
    return stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def has_frequency(truth, p):
    return stats.binomtest(int(np.sum(truth)), len(truth), p).pvalue > 1e-3


def test_angles_are_uniform():
    degrees = augment.draw_rotation(KEY, COUNT, 30, p=0.7)["degrees"]
    turned = np.asarray(degrees)[np.asarray(degrees) != 0]
    assert has_frequency(degrees != 0, 0.7)
    assert is_uniform(turned, -30, 30)
    one_sided = augment.draw_rotation(KEY, COUNT, (5, 10))["degrees"]
    assert is_uniform(one_sided, 5, 10)


def test_affine_arguments_are_uniform():
    draw = augment.draw_affine(
        KEY, COUNT, (100, 200, 3), 10, (0.1, 0.3), (0.5, 2.0), (-3, 4, 5, 6)
    )
    assert is_uniform(draw["angle"], -10, 10)
    assert is_uniform(draw["scale"], 0.5, 2)
    assert is_uniform(draw["shear"][0], -3, 4)
    assert is_uniform(draw["shear"][1], 5, 6)
    # Whole pixels: the ends are half as likely as the others.
    for pixels, most in zip(draw["translate"], (20, 30), strict=True):
        values, counts = np.unique(pixels, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(-most, most + 1))
        expected = np.full(2 * most + 1, COUNT / (2 * most))
        expected[[0, -1]] /= 2
        assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_shears_are_uniform():
    x, y = augment.draw_shear(KEY, COUNT, x=15, y=(-2, 8))["shear"]
    assert is_uniform(x, -15, 15)
    assert is_uniform(y, -2, 8)


def test_corners_move_inwards_by_whole_pixels():
    draw = augment.draw_perspective(KEY, COUNT, (20, 31, 3), 0.5, p=1.0)
    moves = np.abs(np.asarray(draw["endpoints"] - draw["startpoints"]))
    for axis, most in ((0, 7), (1, 5)):
        for corner in range(4):
            counts = np.bincount(moves[:, corner, axis].astype(int))
            assert len(counts) == most + 1
            assert stats.chisquare(counts).pvalue > 1e-3
    inside = np.asarray(draw["endpoints"])
    assert inside.min() >= 0 and (inside.max((0, 1)) <= (30, 19)).all()
    half = augment.draw_perspective(KEY, COUNT, (999, 999, 3))
    # All eight moves being 0 by chance is negligible.
    assert has_frequency((half["endpoints"] != half["startpoints"]).any((1, 2)), 0.5)


def test_jitter_and_its_order_are_uniform():
    draw = augment.draw_jitter(KEY, COUNT, 0.4, (0.5, 1.5), 2.0, 0.1)
    assert is_uniform(draw["brightness"], 0.6, 1.4)
    assert is_uniform(draw["contrast"], 0.5, 1.5)
    assert is_uniform(draw["saturation"], 0, 3)
    assert is_uniform(draw["hue"], -0.1, 0.1)
    _, counts = np.unique(np.asarray(draw["order"]), axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3
    assert set(augment.draw_jitter(KEY, 2, contrast=0.1)) == {"contrast", "order"}


def test_brightness_blur_and_grey_have_the_requested_distribution():
    assert is_uniform(augment.draw_brightness(KEY, COUNT, 0.3)["factor"], 0.7, 1.3)
    sigma = augment.draw_gaussian_blur(KEY, COUNT, (0.5, 1.5))["sigma"]
    assert has_frequency(sigma > 0, 0.5)
    assert is_uniform(sigma[sigma > 0], 0.5, 1.5)
    factor = augment.draw_grayscale(KEY, COUNT, p=0.2)["factor"]
    assert has_frequency(factor == 0, 0.2)
    assert set(np.unique(factor)) == {0.0, 1.0}


@pytest.mark.slow
def test_noise_is_normal():
    noise = augment.draw_gaussian_noise(KEY, 50, (9, 9, 3), sigma=0.2)["noise"]
    assert stats.kstest(np.ravel(noise), stats.norm(0, 0.2).cdf).pvalue > 1e-3
    ranged = augment.draw_gaussian_noise(KEY, 400, (40, 40, 3), sigma=(0.1, 0.5))
    # 4,800 values give the deviation to 1 %.
    assert is_uniform(np.std(ranged["noise"], (1, 2, 3)), 0.1, 0.5)


def test_erased_windows_have_the_requested_area_and_aspect_ratio():
    draw = augment.draw_erasing(
        KEY, COUNT, (300, 300, 3), scale=(0.1, 0.2), ratio=(0.5, 2.0), p=0.6
    )
    top, left, height, width = (
        np.asarray(draw[name]) for name in ("top", "left", "height", "width")
    )
    erased = height > 0
    assert has_frequency(erased, 0.6)
    assert is_uniform((height * width / 300**2)[erased], 0.1, 0.2)
    assert is_uniform(np.log2(height[erased] / width[erased]), -1, 1)
    for start, side in ((top, height), (left, width)):
        # Uniform over the positions that fit.
        assert is_uniform(((start + 0.5) / (301 - side))[erased], 0, 1)


def test_an_image_that_no_window_fits_is_not_erased():
    draw = augment.draw_erasing(KEY, 20, (8, 8, 3), scale=(1.0, 1.0), p=1.0)
    assert not draw["height"].any()


def test_the_centre_of_a_cutout_is_any_pixel():
    draw = augment.draw_cutout(KEY, COUNT, (6, 5, 3), size=4)
    centres = np.asarray(5 * (draw["top"] + 2) + draw["left"] + 2)
    assert stats.chisquare(np.bincount(centres, minlength=30)).pvalue > 1e-3
    assert set(np.unique(draw["height"])) == {4}


def test_bad_arguments_are_refused():
    images = jnp.zeros((2, 4, 4, 3))
    for match, call in [
        (
            r"p must be in \[0, 1\]",
            lambda: augment.random_rotation(KEY, images, 3, p=2),
        ),
        (
            "degrees must be a number of at least 0",
            lambda: augment.draw_rotation(KEY, 2, -3),
        ),
        (
            r"range \(low, high\) in \[-0.5, 0.5\], got 0.6",
            lambda: augment.color_jitter(KEY, images, hue=0.6),
        ),
        ("two fractions", lambda: augment.random_affine(KEY, images, translate=(2, 0))),
        (
            "scale must be a range",
            lambda: augment.random_affine(KEY, images, scale=(0, 1)),
        ),
        (
            "distortion_scale must be in",
            lambda: augment.random_perspective(KEY, images, 1.5),
        ),
        ("sigma must be a range", lambda: augment.gaussian_noise(KEY, images, -1.0)),
        (
            "size must be a positive whole number",
            lambda: augment.cutout(KEY, images, 0),
        ),
        (
            "ratio must be a range",
            lambda: augment.random_erasing(KEY, images, ratio=(0, 1)),
        ),
        (
            r"keys of shape \(3,\) for 2",
            lambda: augment.random_rotation(jax.random.split(KEY, 3), images, 3),
        ),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
