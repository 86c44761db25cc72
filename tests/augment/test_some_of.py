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

# On images of 0.75 these give 0.25, 0.375 and 0.5 in the three orders that matter.
HALF = partial(adjust_brightness, factor=0.5)
COARSE = partial(posterize, bits=1)


def test_each_image_gets_one_of_them_equally_often():
    images = jnp.full((2000, 1, 1, 1), 0.75)
    changed = jax.jit(one_of([invert, HALF, COARSE]))(jax.random.key(0), images)
    values, counts = np.unique(np.round(changed, 3), return_counts=True)
    np.testing.assert_allclose(values, [0.25, 0.375, 0.502])
    assert stats.chisquare(counts).pvalue > 1e-3


def test_several_are_drawn_without_repetition_in_any_order():
    images = jnp.full((2000, 1, 1, 1), 0.75)
    changed = jax.jit(some_of(2, [invert, HALF]))(jax.random.key(0), images)
    values, counts = np.unique(np.round(changed, 3), return_counts=True)
    np.testing.assert_allclose(values, [0.125, 0.625])
    assert stats.chisquare(counts).pvalue > 1e-3


def test_random_operations_draw_for_each_image_by_its_key_alone():
    images = jnp.full((6, 2, 2, 3), 0.5)
    few = jax.jit(some_of(2, [invert, partial(random_brightness, brightness=0.5)]))
    keys = jax.random.split(jax.random.key(0), 6)
    together = few(keys, images)
    assert len(np.unique(together[:, 0, 0, 0])) == 6
    order = jnp.array([3, 3, 5, 0, 1, 2])
    np.testing.assert_array_equal(few(keys[order], images), together[order])


def test_it_is_an_operation_of_compose():
    images = jnp.full((2, 1, 1, 1), 0.75)
    changed, _ = compose([one_of([invert]), one_of([HALF])])(jax.random.key(0), images)
    np.testing.assert_allclose(changed, 0.125)


def test_all_at_once_is_one_by_one(monkeypatch):
    # What other devices than the CPU run.
    images = jax.random.uniform(jax.random.key(1), (8, 3, 3, 1))
    few, key = some_of(2, [invert, HALF, COARSE]), jax.random.key(0)
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
        with pytest.raises(ValueError, match=rf"in \[1, 2\], the operations; got {k}"):
            some_of(k, [invert, HALF])
    with pytest.raises(ValueError, match="mixed all together, not one by one"):
        one_of([mixup])


def test_what_is_drawn_has_a_derivative():
    images = jax.random.uniform(jax.random.key(0), (5, 2, 2, 1))
    change = some_of(2, [invert, HALF])

    def total(images):
        return change(jax.random.key(1), images).sum()

    # In both orders a pixel loses half of what it had gained.
    np.testing.assert_allclose(jax.grad(jax.jit(total))(images), -0.5, rtol=1e-6)
