import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax.augment import OPERATIONS, augmix, draw_augmix, mix_chains
from tests.support.policy_figures import strengths_of

KEY, N, SHAPE = jax.random.key(0), 1000, (14, 17, 3)


@pytest.fixture(scope="module")
def draw():
    return draw_augmix(KEY, N, SHAPE, severity=3, alpha=2.0)


@pytest.mark.slow
def test_chains_have_one_to_three_mild_operations(draw):
    operation, strength = np.asarray(draw["operation"]), np.asarray(draw["strength"])
    assert operation.shape == strength.shape == (N, 3, 3)
    depth = (operation > 0).sum(-1)
    assert stats.chisquare(np.bincount(depth.ravel())[1:]).pvalue > 1e-3
    # The identity is not drawn; it pads the chains.
    assert (np.diff(np.sign(operation), axis=-1) <= 0).all()
    tables = strengths_of("strengths/augmix")
    counts = np.bincount(operation[operation > 0], minlength=len(OPERATIONS))
    of_tables = [counts[OPERATIONS.index(name)] for name in tables]
    assert counts.sum() == sum(of_tables)
    assert stats.chisquare(of_tables).pvalue > 1e-3
    for name, table in tables.items():
        found = strength[operation == OPERATIONS.index(name)]
        assert set(np.abs(found).tolist()) == set(table[:3].tolist())


def test_chains_have_the_requested_number_and_depth():
    options = {"mixture_width": 2, "chain_depth": 4}
    shapes = jax.eval_shape(lambda key: draw_augmix(key, 5, SHAPE, **options), KEY)
    assert shapes["operation"].shape == shapes["strength"].shape == (5, 2, 4)
    assert shapes["weight"].shape == (5, 3)


@pytest.mark.slow
def test_weights_have_their_distribution(draw):
    weight = np.asarray(draw["weight"])
    assert weight.shape == (N, 4)
    np.testing.assert_allclose(weight.sum(1), 1, rtol=1e-5)
    # Beta marginals: of two components, and of one against the other two.
    own = stats.beta(2, 2)
    assert stats.kstest(weight[:, 0], own.cdf).pvalue > 1e-3
    first = weight[:, 1] / (1 - weight[:, 0])
    assert stats.kstest(first, stats.beta(2, 4).cdf).pvalue > 1e-3


def test_a_blend_by_hand():
    images = jnp.full((1, 2, 2, 1), 0.25)
    invert, brightness = map(OPERATIONS.index, ("invert", "brightness"))
    operation = jnp.array([[[invert, 0], [invert, brightness]]])
    strength = jnp.array([[[0.0, 0.0], [0.0, -0.5]]])
    weight = jnp.array([[0.5, 0.25, 0.25]])
    mixed = mix_chains(images, operation, strength, weight)
    # 0.25, then 0.75, and half of that.
    expected = 0.5 * 0.25 + 0.25 * 0.75 + 0.25 * 0.375
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


@pytest.mark.slow
def test_an_images_draw_depends_on_its_key_only():
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    keys, order = jax.random.split(KEY, 4), jnp.array([3, 3, 0, 1])
    policy = jax.jit(augmix)
    together, moved = policy(keys, images), policy(keys[order], images[order])
    np.testing.assert_array_equal(together[order], moved)
    assert (together >= 0).all() and (together <= 1).all()
    assert (together != images).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"severity": 0}, r"severity must be in \[1, 10\], got 0"),
        ({"mixture_width": 0}, "mixture_width must be at least 1, got 0"),
        ({"chain_depth": 0}, "chain_depth must be at least 1, or -1; got 0"),
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_augmix(KEY, 1, SHAPE, **options)
