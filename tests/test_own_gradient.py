from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax.own_gradient import with_gradient

X, DIRECTION = jnp.arange(1.0, 4.0), jnp.array([1.0, -2.0, 0.5])


def cube(tree, y):
    """x**3 + y, with 10 times its gradient, so that it can be told apart."""

    def function(tree, y):
        return {"cube": tree["x"] ** 3 + y}

    def gradient(arguments, saved, cotangent):
        tree, _ = arguments
        slope = 30 * saved / tree["x"]  # 10 * 3 * x**2
        return {"x": slope * cotangent["cube"]}, 10 * cotangent["cube"].sum()

    def save(arguments, result):
        return result["cube"] - arguments[1]

    return with_gradient(function, gradient, save)(tree, y)["cube"]


def of_x(x):
    return cube({"x": x}, 2.0)


def test_the_gradient_is_the_given_one_and_forward_mode_is_derived():
    y, back = jax.vjp(lambda x, y: cube({"x": x}, y), X, 1.0)
    np.testing.assert_allclose(y, X**3 + 1)
    expected = 30 * X**2 * DIRECTION, 10 * DIRECTION.sum()
    chex.assert_trees_all_close(back(DIRECTION), expected, rtol=1e-6)
    y, slope = jax.jvp(of_x, (X,), (DIRECTION,))
    np.testing.assert_allclose(y, X**3 + 2)
    np.testing.assert_allclose(slope, 3 * X**2 * DIRECTION, rtol=1e-6)


def test_it_works_in_transformations():
    slopes = jnp.diag(3 * X**2)
    np.testing.assert_allclose(jax.jacfwd(of_x)(X), slopes, rtol=1e-6)
    np.testing.assert_allclose(jax.jacrev(of_x)(X), 10 * slopes, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(of_x))(X), slopes, rtol=1e-6)
    _, along = jax.linearize(jax.checkpoint(of_x), X)
    np.testing.assert_allclose(jax.vmap(along)(jnp.eye(3)), slopes, rtol=1e-6)

    def by_element(x, y):
        return jax.vmap(lambda x: cube({"x": x}, y))(x).sum()

    x, y = jax.grad(by_element, (0, 1))(X, 2.0)  # The reverse of a batch.
    np.testing.assert_allclose(x, 30 * X**2, rtol=1e-6)
    np.testing.assert_allclose(y, 30)

    def slope(x):  # Of a batch.
        return jax.jvp(jax.vmap(of_x), (x,), (DIRECTION,))[1].sum()

    np.testing.assert_allclose(jax.grad(slope)(X), 6 * X * DIRECTION, rtol=1e-6)

    def total(x, _):
        return x + of_x(x), None

    def scanned(x):
        return jax.lax.scan(total, x, None, length=1)[0].sum()

    np.testing.assert_allclose(jax.grad(scanned)(X), 1 + 30 * X**2, rtol=1e-6)


def test_second_derivatives_in_every_order_of_modes():
    def gradient(x):
        return jax.grad(lambda x: of_x(x).sum())(x)

    def slope(x):
        return jax.jvp(of_x, (x,), (DIRECTION,))[1]

    along = partial(jax.jvp, primals=(X,), tangents=(DIRECTION,))
    # Of a given gradient, 30 * x**2, what JAX derives; of a derived slope likewise.
    np.testing.assert_allclose(along(gradient)[1], 60 * X * DIRECTION, rtol=1e-6)
    reverse = jax.grad(lambda x: jnp.vdot(gradient(x), DIRECTION))(X)
    np.testing.assert_allclose(reverse, 60 * X * DIRECTION, rtol=1e-6)
    np.testing.assert_allclose(along(slope)[1], 6 * X * DIRECTION**2, rtol=1e-6)
    reverse = jax.grad(lambda x: slope(x).sum())(X)
    np.testing.assert_allclose(reverse, 6 * X * DIRECTION, rtol=1e-6)

    def moving(x):  # The direction depends on x: x**2, whose slope is 2 * x.
        return jax.jvp(of_x, (x,), (x**2,))[1]  # 3 * x**4

    np.testing.assert_allclose(along(moving)[1], 12 * X**3 * DIRECTION, rtol=1e-6)
