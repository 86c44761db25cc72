from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnn_flax.augment import mixing
from cnn_flax.augment.mixing import cutmix, cutmix_or_mixup, mixup

SHAPE = (6, 5, 7, 2)
K = 4


def batch(n=6, seed=0):
    """Random images, and classes."""
    rng = np.random.default_rng(seed)
    images = rng.random((n, *SHAPE[1:]), np.float32)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, K, n))


# Compiled once for all values that a test tries.
MIX = {
    name: jax.jit(partial(mix, num_classes=K))
    for name, mix in (("mixup", mixup), ("cutmix", cutmix), ("either", cutmix_or_mixup))
}
every_mix = pytest.mark.parametrize(
    "mix", ["mixup", "cutmix", pytest.param("either", marks=pytest.mark.slow)]
)


def test_blending_by_hand():
    images = jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1)
    labels = jnp.eye(2)
    mixed, soft = mixing.blend_pairs(images, labels, jnp.array([0.75]))
    np.testing.assert_array_equal(mixed.ravel(), [0.25, 0.75])
    np.testing.assert_array_equal(soft, [[0.75, 0.25], [0.25, 0.75]])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_what_has_no_weight_does_not_touch_the_blend(weight):
    images = jnp.array([jnp.nan, 0.5]).reshape(2, 1, 1, 1)
    mixed, soft = mixing.blend_pairs(images, jnp.eye(2), jnp.array([weight]))
    own = [jnp.nan, 0.5]
    np.testing.assert_array_equal(mixed.ravel(), own if weight else own[::-1])
    np.testing.assert_array_equal(soft, jnp.eye(2) if weight else 1 - jnp.eye(2))


def test_pasting_by_hand():
    images = jnp.stack([jnp.zeros((3, 4, 1)), jnp.ones((3, 4, 1))])
    box = (jnp.array([side]) for side in (1, 0, 2, 3))
    mixed, soft = mixing.paste_pairs(images, jnp.eye(2), *box)
    np.testing.assert_array_equal(
        mixed[0, ..., 0], [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    )
    np.testing.assert_array_equal(mixed[1], 1 - mixed[0])
    np.testing.assert_array_equal(soft, [[0.5, 0.5], [0.5, 0.5]])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
@every_mix
def test_labels_stay_probabilities_and_keep_their_sum_over_the_batch(mix, seed):
    images, labels = batch(seed=seed)
    mixed, soft = MIX[mix](jax.random.key(seed), images, labels)
    assert soft.shape == (6, K) and mixed.shape == SHAPE
    assert (soft >= 0).all() and (mixed >= 0).all() and (mixed <= 1).all()
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    counts = np.bincount(labels, minlength=K)
    np.testing.assert_allclose(soft.sum(0), counts, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_weight_of_a_label_is_the_fraction_of_its_pixels(seed):
    # Pixels of image i have the value i.
    images = jnp.arange(6.0)[:, None, None, None] + jnp.zeros(SHAPE)
    pairs, soft = MIX["cutmix"](jax.random.key(seed), images, jnp.array([0, 1] * 3))
    own = (pairs == jnp.arange(6.0)[:, None, None, None]).mean((1, 2, 3))
    np.testing.assert_allclose(soft[jnp.arange(6), jnp.arange(6) % 2], own, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_weights_have_the_beta_distribution(alpha):
    weights = mixing.draw_mixup(jax.random.key(0), 8000, alpha)["weight"]
    beta = stats.beta(alpha, alpha).cdf
    # A small alpha puts many weights so near 1 that float32 cannot resolve them.
    low, high = beta([0.001, 0.999])
    quantiles = beta(np.asarray(weights, float))
    inside = quantiles[(low < quantiles) & (quantiles < high)]
    assert stats.kstest(inside, "uniform", (low, high - low)).pvalue > 1e-3
    for outside, p in ((quantiles <= low, low), (quantiles >= high, 1 - high)):
        assert stats.binomtest(int(outside.sum()), 4000, p).pvalue > 1e-3


def test_boxes_have_the_drawn_area_and_lie_anywhere():
    n, height, width = 8000, 400, 300
    draw = mixing.draw_cutmix(jax.random.key(0), n, (height, width, 3))
    top, left = np.asarray(draw["top"]), np.asarray(draw["left"])
    rows, columns = np.asarray(draw["height"]), np.asarray(draw["width"])
    assert min(top.min(), left.min(), rows.min(), columns.min()) >= 0
    assert (top + rows).max() <= height and (left + columns).max() <= width
    whole = (top > 0) & (left > 0) & (top + rows < height) & (left + columns < width)
    # The image's aspect ratio, where the border clips nothing.
    np.testing.assert_allclose(rows[whole] / height, columns[whole] / width, atol=0.01)
    # Central boxes are unclipped up to an area of 9/16; the area is uniform.
    middle = abs(top + rows / 2 - height / 2) < height / 10
    middle &= abs(left + columns / 2 - width / 2) < width / 10
    side = (rows / height)[middle & (rows < 0.75 * height)]
    assert len(side) > 60
    assert stats.kstest(side**2, "uniform", (0, 0.75**2)).pvalue > 1e-3


def test_centres_of_boxes_are_uniform():
    # Half sides are 2 of 8 pixels; a clipped box starts at 0.
    draw = mixing.draw_cutmix(jax.random.key(1), 8000, (8, 8, 3), alpha=1e6)
    for start in (draw["top"], draw["left"]):
        counts = np.bincount(np.asarray(start), minlength=6)
        expected = [1500, 500, 500, 500, 500, 500]
        assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.slow
def test_a_batch_is_mixed_by_either_method_equally_often():
    images, labels = batch()
    keys = jax.random.split(jax.random.key(0), 400)
    # A pasted image has only pixels of one image or the other.
    other = np.asarray(mixing._neighbours(images))
    pasted = []
    for key in keys:
        mixed = np.asarray(MIX["either"](key, images, labels)[0])
        pasted.append(((mixed == images) | (mixed == other)).all())
    assert stats.binomtest(int(sum(pasted)), 400, 0.5).pvalue > 1e-3


@every_mix
def test_a_pairs_draw_depends_on_its_key_only(mix):
    images, labels = batch()
    keys = jax.random.split(jax.random.key(0), 6)

    def run(rows):
        images_, labels_, keys_ = images[rows], labels[rows], keys[rows]
        if mix == "either":
            return MIX[mix](jax.random.key(3), images_, labels_, keys=keys_)
        return MIX[mix](keys_, images_, labels_)

    whole = run(slice(None))
    # Other pairs at other positions; the second image's key is not used.
    moved = run(jnp.array([4, 5, 0, 1, 4, 5]))
    for before, after in zip(whole, moved, strict=True):
        np.testing.assert_array_equal(before[:2], after[2:4])
        np.testing.assert_array_equal(after[:2], after[4:])
    keys = jnp.repeat(keys[::2], 2)
    for before, after in zip(whole, run(slice(None)), strict=True):
        np.testing.assert_array_equal(before, after)


def test_each_pair_draws_its_own():
    images = jnp.broadcast_to(batch(2)[0][None], (3, 2, *SHAPE[1:])).reshape(SHAPE)
    for mix in ("mixup", "cutmix"):
        mixed, _ = MIX[mix](jax.random.key(0), images, jnp.zeros(6, int))
        assert (mixed[0] != mixed[2]).any() and (mixed[2] != mixed[4]).any()


def test_soft_labels_stay_soft_and_images_keep_their_dtype():
    images, labels = batch()
    soft = 0.9 * jax.nn.one_hot(labels, K) + 0.1 / K
    mixed, mixed_soft = MIX["cutmix"](
        jax.random.key(0), images.astype(jnp.bfloat16), soft
    )
    assert mixed.dtype == jnp.bfloat16 and mixed_soft.dtype == jnp.float32
    _, hard = MIX["cutmix"](jax.random.key(0), images, labels)
    np.testing.assert_allclose(mixed_soft, 0.9 * hard + 0.1 / K, atol=1e-6)


def test_bad_arguments_are_refused():
    key, (images, labels) = jax.random.key(0), batch()
    for mix in (mixup, cutmix, cutmix_or_mixup):
        with pytest.raises(
            ValueError, match="neighbours, got an odd number of them: 5"
        ):
            mix(key, images[:5], labels[:5], num_classes=K)
        with pytest.raises(
            ValueError, match="int classes, and need num_classes; got int32"
        ):
            mix(key, images, labels)
        with pytest.raises(ValueError, match="got float32 and num_classes=4"):
            mix(key, images, labels.astype(float), num_classes=K)
        with pytest.raises(ValueError, match=r"got \(5,\) for 6 images"):
            mix(key, images, labels[:5], num_classes=K)
        with pytest.raises(ValueError, match=r"num_classes is 4 for labels \(6, 3\)"):
            mix(key, images, jnp.ones((6, 3)) / 3, num_classes=K)
        with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
            mix(key, images, labels, 0.0, num_classes=K)
    with pytest.raises(ValueError, match="takes one key, got 6"):
        cutmix_or_mixup(jax.random.split(key, 6), images, labels, num_classes=K)
