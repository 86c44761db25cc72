import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax.augment import OPERATIONS, auto_augment, draw_auto_augment
from tests.support.policy_figures import PATH, our_name, our_strength

N = 20_000
SHAPE = (14, 17, 3)


def pairs(policy):
    """torchvision's indices, probabilities, strengths and signs, each `[25, 2]`."""
    with np.load(PATH) as stored:
        names, probabilities, strengths, signed = (
            stored[f"pairs/{policy}/{what}"]
            for what in ("names", "probabilities", "strengths", "signed")
        )
    names = [our_name(str(name)) for name in names.ravel()]
    strengths = map(our_strength, names, strengths.ravel().astype(np.float32))
    indices = np.array([OPERATIONS.index(name) for name in names])
    shape = probabilities.shape
    strengths = np.array(list(strengths), np.float32).reshape(shape)
    return indices.reshape(shape), probabilities, strengths, signed


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_pairs_are_drawn_as_torchvisions(policy):
    draw = draw_auto_augment(jax.random.key(0), N, SHAPE, policy)
    operation, strength = np.asarray(draw["operation"]), np.asarray(draw["strength"])
    # Expected and observed frequencies of each pair of operations and strengths.
    expected, found = {}, {}
    indices, probabilities, strengths, signed = pairs(policy)
    for row in range(25):
        for first in _ways(indices, probabilities, strengths, signed, (row, 0)):
            for then in _ways(indices, probabilities, strengths, signed, (row, 1)):
                way = (*first[:2], *then[:2])
                share = first[2] * then[2] / 25
                expected[way] = expected.get(way, 0) + share
    for (a, b), (x, y) in zip(operation, strength, strict=True):
        way = a, x, b, y
        found[way] = found.get(way, 0) + 1
    assert found.keys() <= {way for way, share in expected.items() if share}
    # Rare pairs are pooled.
    ways = [way for way, share in expected.items() if share * N >= 5]
    counts = np.array([found.get(way, 0) for way in ways])
    shares = np.array([expected[way] for way in ways])
    if shares.sum() < 1 - 1e-6:
        counts = np.append(counts, N - counts.sum())
        shares = np.append(shares, 1 - shares.sum())
    assert stats.chisquare(counts, shares * N).pvalue > 1e-3


def _ways(indices, probabilities, strengths, signed, at):
    """Possible outcomes of one operation: index, strength and probability."""
    probability, strength = probabilities[at], strengths[at]
    yield 0, np.float32(0), 1 - probability
    signs = (1, -1) if signed[at] and strength else (1,)
    for sign in signs:
        yield indices[at], sign * strength, probability / len(signs)


@pytest.mark.slow
def test_an_images_draw_depends_on_its_key_only():
    images = jax.random.uniform(jax.random.key(1), (6, 8, 8, 3))
    keys = jax.random.split(jax.random.key(0), 6)
    order = jnp.array([3, 3, 5, 0, 1, 2])
    policy = jax.jit(auto_augment, static_argnames="policy")
    together = policy(keys, images, policy="cifar10")
    moved = policy(keys[order], images[order], policy="cifar10")
    np.testing.assert_array_equal(together[order], moved)
    assert (together >= 0).all() and (together <= 1).all()
    assert (together != images).any()


def test_an_unknown_policy_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'cifar'. Nearest: cifar10. Policies: ima"):
        draw_auto_augment(jax.random.key(0), 1, SHAPE, "cifar")
