from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax.augment import (
    adjust_brightness,
    compose,
    invert,
    mixup,
    one_of,
    posterize,
    random_brightness,
    some_of,
)

# On an image of 0.75 inverting gives 0.25, halving 0.375, and one bit 0.502.
HALF = partial(adjust_brightness, factor=0.5)
ONE_BIT = partial(posterize, bits=1)


def test_one_of_chooses_uniformly_per_image():
    images = jnp.full((2000, 1, 1, 1), 0.75)
    changed = jax.jit(one_of([invert, HALF, ONE_BIT]))(jax.random.key(0), images)
    values, counts = np.unique(np.round(changed, 3), return_counts=True)
    np.testing.assert_allclose(values, [0.25, 0.375, 0.502])
    assert stats.chisquare(counts).pvalue > 1e-3


def test_some_of_draws_without_replacement_in_random_order():
    images = jnp.full((2000, 1, 1, 1), 0.75)
    changed = jax.jit(some_of(2, [invert, HALF]))(jax.random.key(0), images)
    values, counts = np.unique(np.round(changed, 3), return_counts=True)
    np.testing.assert_allclose(values, [0.125, 0.625])
    assert stats.chisquare(counts).pvalue > 1e-3


def test_random_operations_draw_by_the_images_key_only():
    images = jnp.full((6, 2, 2, 3), 0.5)
    few = jax.jit(some_of(2, [invert, partial(random_brightness, brightness=0.5)]))
    keys = jax.random.split(jax.random.key(0), 6)
    together = few(keys, images)
    assert len(np.unique(together[:, 0, 0, 0])) == 6
    order = jnp.array([3, 3, 5, 0, 1, 2])
    np.testing.assert_array_equal(few(keys[order], images), together[order])


def test_one_of_can_be_composed():
    images = jnp.full((2, 1, 1, 1), 0.75)
    changed, _ = compose([one_of([invert]), one_of([HALF])])(jax.random.key(0), images)
    np.testing.assert_allclose(changed, 0.125)


def test_batched_equals_one_by_one(monkeypatch):
    # The batched path is the one of accelerators.
    images = jax.random.uniform(jax.random.key(1), (8, 3, 3, 1))
    few, key = some_of(2, [invert, HALF, ONE_BIT]), jax.random.key(0)
    one_by_one = few(key, images)
    choose = jax.lax.platform_dependent
    monkeypatch.setattr(
        jax.lax,
        "platform_dependent",
        lambda *args, cpu, default: choose(*args, default=default),
    )
    np.testing.assert_allclose(few(key, images), one_by_one, atol=1e-6)


def test_bad_arguments_are_refused():
    for k in (0, 3):
        with pytest.raises(
            ValueError, match=rf"in \[1, 2\], the number of operations; got {k}"
        ):
            some_of(k, [invert, HALF])
    with pytest.raises(ValueError, match="Mixing acts on the whole batch"):
        one_of([mixup])


def test_the_chosen_operations_are_differentiable():
    images = jax.random.uniform(jax.random.key(0), (5, 2, 2, 1))
    change = some_of(2, [invert, HALF])

    def total(images):
        return change(jax.random.key(1), images).sum()

    # In either order the slope is that of inverting, -1, times that of halving.
    np.testing.assert_allclose(jax.grad(jax.jit(total))(images), -0.5, rtol=1e-6)
