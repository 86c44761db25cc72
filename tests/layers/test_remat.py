import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnn_flax.layers.remat import remat


class Layer(nn.Module):
    """Reads all previous arrays; has statistics and a hidden map of 8 channels."""

    @nn.compact
    def __call__(self, *features, train=False):
        x = jnp.concatenate(features, axis=-1)
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x)
        x = nn.relu(nn.Conv(8, (3, 3), name="conv1")(x))
        return nn.Conv(2, (3, 3), name="conv2")(x)


class Net(nn.Module):
    """A dense block of such layers."""

    layers: int = 2
    remat: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        features = (x,)
        for i in range(self.layers):
            layer = Layer(name=f"layer{i}")
            if self.remat:
                new, features = remat(layer, *features, train=train)
            else:
                new = layer(*features, train=train)
            features = (*features, new)
        return jnp.concatenate(features, axis=-1)


x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))


def loss(net, variables, x):
    y, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
    return jnp.sum(y**3), new


def gradients(net, variables, x):
    def of(params, x):
        return loss(net, {**variables, "params": params}, x)

    return jax.jit(jax.value_and_grad(of, (0, 1), has_aux=True))(variables["params"], x)


def test_it_changes_no_parameter():
    plain, rematerialized = (
        jax.jit(Net(remat=r).init)(jax.random.key(1), x) for r in (0, 1)
    )
    chex.assert_trees_all_equal(plain, rematerialized)


@pytest.mark.slow
def test_values_gradients_and_statistics_are_those_without_it(float64):
    # In float64 the rounding differences are far below the tolerance.
    wide = jnp.asarray(x, jnp.float64)
    variables = jax.jit(Net().init)(jax.random.key(1), wide)
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)
    chex.assert_trees_all_close(
        gradients(Net(), variables, wide),
        gradients(Net(remat=False), variables, wide),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.slow
def test_hessian_vector_products_are_those_without_it(float64):
    wide = jnp.asarray(x, jnp.float64)
    variables = jax.jit(Net().init)(jax.random.key(1), wide)
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)

    def product(net):
        slope = jax.grad(lambda x: loss(net, variables, x)[0])
        return jax.jit(jax.grad(lambda x: jnp.vdot(slope(x), jnp.ones_like(x))))(wide)

    np.testing.assert_allclose(product(Net()), product(Net(remat=False)), rtol=1e-8)


def temporary_bytes(net):
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)

    def of(params, stats, x):
        return loss(net, {"params": params, "batch_stats": stats}, x)

    step = jax.jit(jax.grad(of, has_aux=True))
    compiled = step.lower(variables["params"], variables["batch_stats"], images)
    return compiled.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_does_not_grow_with_the_square_of_the_depth():
    rematerialized = [temporary_bytes(Net(layers)) for layers in (2, 4, 8)]
    # The last four layers add twice what the two before add, not four times that.
    assert rematerialized[2] - rematerialized[1] < 2.5 * (
        rematerialized[1] - rematerialized[0]
    )
    assert rematerialized[2] < 0.4 * temporary_bytes(Net(8, remat=False))
