"""`jax.export` with symbolic sizes gives what `jax.jit` gives at each size."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import export

from cnn_flax import layers


def assert_exports(function, shapes, specification="b,h,w,4", constraints=()):
    """Exports a function of maps and its gradient, and compares both at some shapes."""
    sizes = export.symbolic_shape(specification, constraints=constraints)
    arguments = jax.ShapeDtypeStruct(sizes, jnp.float32)

    @jax.jit
    def value_and_gradient(x):
        loss = lambda x: jnp.square(function(x)).sum()  # noqa: E731
        return function(x), jax.grad(loss)(x)

    exported = export.export(value_and_gradient, platforms=["cpu", "cuda", "tpu"])
    program = exported(arguments)
    for i, shape in enumerate(shapes):
        x = jax.random.normal(jax.random.key(i), shape)
        chex.assert_trees_all_close(program.call(x), value_and_gradient(x), rtol=1e-5)


CONVOLUTIONS = {
    "dense": dict(kernel_size=(3, 3), strides=2, padding=1),
    "dense same": dict(kernel_size=(3, 2), strides=2),
    "dense dilated": dict(kernel_size=(3, 3), strides=3, kernel_dilation=2),
    "1x1": dict(kernel_size=(1, 1), strides=2),
    "1x1 padded": dict(kernel_size=(1, 1), strides=2, padding=((1, 0), (0, 2))),
    "depthwise": dict(kernel_size=(3, 3), strides=2, padding=1, feature_group_count=4),
    "depthwise same": dict(kernel_size=(5, 3), strides=2, feature_group_count=4),
    "grouped": dict(kernel_size=(3, 3), strides=2, padding=1, feature_group_count=2),
    "valid": dict(kernel_size=(5, 5), padding="VALID"),
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution(arguments):
    conv = layers.Conv(4, **arguments)
    variables = conv.init(jax.random.key(0), jnp.zeros((1, 9, 8, 4)))
    assert_exports(
        partial(conv.apply, variables),
        [(2, 9, 8, 4), (1, 6, 7, 4)],
        constraints=("h >= 5", "w >= 5"),
    )


OPERATORS = {
    "max_pool": partial(layers.max_pool, window=3, stride=2, padding=1),
    "max_pool ceil": partial(layers.max_pool, window=3, stride=2, ceil_mode=True),
    "avg_pool": partial(layers.avg_pool, window=3, stride=2),
    "global_avg_pool": layers.global_avg_pool,
    "adaptive_avg_pool": partial(layers.adaptive_avg_pool, size=(6, 3)),
    "local_response_norm": layers.local_response_norm,
    "grid_sample": lambda x: layers.grid_sample(
        x, jnp.linspace(-1.2, 1.2, x.shape[0] * 12).reshape(-1, 2, 3, 2)
    ),
    "deform_conv2d": lambda x: layers.deform_conv2d(
        x,
        jnp.full((*x.shape[:3], 18), 0.3),
        jnp.ones((3, 3, 4, 2)),
        padding=1,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_an_operator(operator):
    assert_exports(
        operator, [(2, 9, 8, 4), (1, 3, 4, 4)], constraints=("h >= 2", "w >= 2")
    )


def test_a_norm_in_training():
    norm = layers.BatchNorm(use_running_average=False)
    variables = norm.init(jax.random.key(0), jnp.zeros((1, 2, 2, 4)))

    def train(x):
        y, new = norm.apply(variables, x, mutable=["batch_stats"])
        return y * jnp.arange(4.0).reshape(1, 1, 1, 4) + new["batch_stats"]["var"].sum()

    assert_exports(train, [(2, 5, 4, 4), (4, 1, 3, 4)])


def test_drop_path():
    drop_path = layers.DropPath(0.5)
    assert_exports(
        lambda x: drop_path.apply(
            {}, x, deterministic=False, rngs={"dropout": jax.random.key(0)}
        ),
        [(4, 2, 2, 4)],
    )


@pytest.mark.parametrize(
    ("name", "least"), [("grid_sample", 2), ("deform_conv2d", 2), ("max_pool ceil", 2)]
)
def test_sizes_that_may_be_too_small_are_refused(name, least):
    with pytest.raises(ValueError, match=f"at least {least} x {least} px.*constraints"):
        assert_exports(OPERATORS[name], [])
