import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers.cpu.materialize import materialize

SHAPES = [(2, 5, 7, 3), (2, 5, 7, 1), (1, 1, 1, 1), (3, 4, 6, 2)]


def _images(shape, dtype=jnp.float32):
    return jax.random.uniform(jax.random.key(0), shape, dtype)


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, -1e30])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_unchanged(shape, number):
    images = _images(shape)
    np.testing.assert_array_equal(materialize(images), images)
    np.testing.assert_array_equal(jax.jit(materialize)(images), images)
    by_image = jax.vmap(lambda image: materialize(image[None])[0])(images)
    strange = images.at[0, 0, 0, 0].set(number)
    np.testing.assert_array_equal(jax.jit(materialize)(strange), strange)
    np.testing.assert_array_equal(by_image, images)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_unchanged(shape):
    images = _images(shape)

    def loss(images):
        return jnp.sum(jnp.sin(3 * materialize(jnp.square(images))))

    expected = jnp.cos(3 * jnp.square(images)) * 3 * 2 * images
    np.testing.assert_allclose(jax.grad(loss)(images), expected, rtol=1e-5, atol=1e-6)
    _, tangents = jax.jvp(materialize, (images,), (images + 1,))
    np.testing.assert_array_equal(tangents, images + 1)


def test_float64_keeps_its_last_bits(float64):
    images = _images(SHAPES[0], jnp.float64)
    assert materialize(images).dtype == jnp.float64
    np.testing.assert_array_equal(materialize(images), images)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 5, 7, 1)])
def test_xla_does_not_remove_the_loop(shape):
    def twice(images):
        once = materialize(jnp.sin(images))
        return once + jnp.flip(once, 1)

    text = jax.jit(twice).lower(_images(shape)).compile().as_text()
    assert " while(" in text
