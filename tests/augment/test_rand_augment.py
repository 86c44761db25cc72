import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax.augment import (
    OPERATIONS,
    draw_rand_augment,
    draw_trivial_augment,
    rand_augment,
    trivial_augment,
)
from tests.support.policy_figures import strengths_of

KEY, N = jax.random.key(0), 4000
SIGNED = [name.startswith(("shear", "translate", "rotate")) for name in OPERATIONS]
FACTORS = ("brightness", "color", "contrast", "sharpness")


def check_uniform(operation):
    """All 14 equally often: without `invert` and EfficientNet's two."""
    counts = np.bincount(np.ravel(operation), minlength=len(OPERATIONS))
    assert (counts[14:] == 0).all()
    assert stats.chisquare(counts[:14]).pvalue > 1e-3


def check_signs(strength):
    negative = int((strength < 0).sum())
    assert stats.binomtest(negative, int((strength != 0).sum()), 0.5).pvalue > 1e-3


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_rand_augment_draws_uniformly_with_torchvisions_strengths(magnitude):
    draw = draw_rand_augment(KEY, N, (14, 17, 3), num_ops=2, magnitude=magnitude)
    operation, strength = (np.asarray(draw[k]) for k in ("operation", "strength"))
    assert operation.shape == strength.shape == (N, 2)
    check_uniform(operation)
    for name, table in strengths_of("strengths/rand").items():
        found = strength[operation == OPERATIONS.index(name)]
        np.testing.assert_array_equal(np.abs(found), table[magnitude])
        is_signed = name in FACTORS or SIGNED[OPERATIONS.index(name)]
        if is_signed and table[magnitude]:
            check_signs(found)
        else:
            assert (found >= 0).all()
    # The second operation does not depend on the first.
    pairs = np.histogram2d(*operation.T, bins=14)[0]
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


def test_trivial_augment_draws_magnitudes_too():
    draw = draw_trivial_augment(KEY, N)
    operation, strength = (np.ravel(draw[k]) for k in ("operation", "strength"))
    check_uniform(operation)
    for name, table in strengths_of("strengths/trivial").items():
        found = np.abs(strength[operation == OPERATIONS.index(name)])
        values, expected = np.unique(table, return_counts=True)
        counts = (found[:, None] == values).sum(0)
        assert counts.sum() == len(found)  # No other strength.
        if len(values) > 1:
            expected = expected / 31 * len(found)
            assert stats.chisquare(counts, expected).pvalue > 1e-3
    check_signs(strength[np.isin(operation, np.flatnonzero(SIGNED))])


@pytest.mark.slow
def test_an_images_draw_depends_on_its_key_only():
    images = jax.random.uniform(jax.random.key(1), (6, 8, 8, 3))
    keys, order = jax.random.split(KEY, 6), jnp.array([3, 3, 5, 0, 1, 2])
    policy = jax.jit(rand_augment)
    together, moved = policy(keys, images), policy(keys[order], images[order])
    np.testing.assert_array_equal(together[order], moved)
    assert (together >= 0).all() and (together <= 1).all()
    assert (together != images).any()


@pytest.mark.slow
def test_vmap_over_single_images_equals_the_batch():
    images = jax.random.uniform(jax.random.key(1), (6, 8, 8, 3))
    keys = jax.random.split(KEY, 6)
    # Under vmap each call has one image, [H, W, C].
    mapped = jax.vmap(trivial_augment)(keys, images)
    np.testing.assert_allclose(mapped, trivial_augment(keys, images), atol=1e-6)


def test_bad_arguments_are_refused():
    key, images = jax.random.key(0), jnp.zeros((2, 4, 4, 3))
    with pytest.raises(ValueError, match="num_ops must be at least 1, got 0"):
        rand_augment(key, images, num_ops=0)
    for magnitude in (-1, 31):
        with pytest.raises(ValueError, match=rf"in \[0, 31\) .*; got {magnitude}"):
            rand_augment(key, images, magnitude=magnitude)
    with pytest.raises(ValueError, match="num_magnitude_bins must be at least 2"):
        trivial_augment(key, images, num_magnitude_bins=1)
