"""What holds for every operation that has a formulation of its own on a CPU."""

import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tests.support.devices import on_four_devices
from tests.support.formulations import FORMULATIONS, draw

# Sums in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

each = pytest.mark.parametrize(
    "formulation", FORMULATIONS.values(), ids=list(FORMULATIONS)
)


# One of each kind, where compilation takes long.
one_of_each_kind = pytest.mark.parametrize(
    "formulation",
    [
        FORMULATIONS[name]
        for name in (
            "depthwise uneven",
            "grouped uneven",
            "max pool 3x3/2",
            "batch norm",
        )
    ],
    ids=["depthwise", "grouped", "max pool", "batch norm"],
)


def scalar(operation):
    """A scalar function whose gradient differs between elements."""

    def loss(*arguments):
        results = jax.tree.leaves(operation(*arguments))
        return sum(jnp.sum(jnp.sin(y + i)) for i, y in enumerate(results))

    return loss


def gradients(operation, arguments):
    return jax.grad(scalar(operation), tuple(range(len(arguments))))(*arguments)


@each
def test_values_and_gradients_are_those_of_the_plain_operation(formulation, float64):
    ours, plain, shapes = formulation
    arguments = [x.astype(jnp.float64) for x in draw(shapes)]

    def all_of(operation):
        return operation(*arguments), gradients(operation, arguments)

    found, expected = jax.jit(lambda: (all_of(ours), all_of(plain)))()
    chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-9)


@one_of_each_kind
def test_gradients_can_be_differentiated_both_ways(formulation):
    ours, plain, shapes = formulation
    arguments, direction = draw(shapes), draw(shapes, seed=1)

    def both(operation):
        def gradient(*arguments):
            return gradients(operation, arguments)

        def along(*arguments):
            pairs = zip(gradient(*arguments), direction, strict=True)
            return sum(jnp.vdot(g, d) for g, d in pairs)

        forward = jax.jvp(gradient, tuple(arguments), tuple(direction))[1]
        return forward, jax.grad(along, range(len(arguments)))(*arguments)

    found, expected = jax.jit(lambda: (both(ours), both(plain)))()
    chex.assert_trees_all_close(found, expected, **CLOSE)


@one_of_each_kind
def test_it_works_under_vmap_and_remat(formulation):
    ours, _, shapes = formulation
    sets = [draw(shapes, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *sets)

    def mapped():
        return jax.vmap(lambda arguments: gradients(ours, arguments))(stacked)

    def loop():
        each = [gradients(jax.checkpoint(ours), arguments) for arguments in sets]
        return jax.tree.map(lambda *x: jnp.stack(x), *each)

    found, expected = jax.jit(lambda: (mapped(), loop()))()
    chex.assert_trees_all_close(found, expected, **CLOSE)


@one_of_each_kind
def test_bfloat16_is_as_near_as_the_plain_operation(formulation):
    ours, plain, shapes = formulation
    exact = draw(shapes)
    low = [x.astype(jnp.bfloat16) for x in exact]
    first = jax.tree.leaves(jax.jit(ours)(*low))[0]
    assert first.dtype == jax.tree.leaves(jax.eval_shape(ours, *low))[0].dtype
    expected = jax.tree.leaves(jax.jit(plain)(*exact))[0]
    # bfloat16 has 8 bits; two roundings.
    np.testing.assert_allclose(first.astype(float), expected, rtol=0.05, atol=0.1)
    found = jax.jit(lambda: gradients(ours, low))()
    chex.assert_type(found, jnp.bfloat16)
    chex.assert_tree_all_finite(found)


@each
def test_other_platforms_run_the_plain_operation(formulation):
    ours, plain, shapes = formulation
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def operations(operation):
        def both(*arguments):
            return operation(*arguments), gradients(operation, arguments)

        module = export.export(jax.jit(both), platforms=["cuda"])(*arguments)
        text = module.mlir_module()
        groups = re.findall(r"(?:feature|batch)_group_count = \d+", text)
        names = re.findall(r"stablehlo\.(?:convolution|select\w+|slice|pad)\b", text)
        return {*groups, *names}

    assert operations(ours) == operations(plain)


@pytest.mark.slow
def test_four_devices_give_what_one_gives_and_gather_no_batch():
    program = Path(__file__).with_name("four_devices.py")
    report = on_four_devices(program, JAX_ENABLE_X64="1")
    assert report.keys() == FORMULATIONS.keys()
    for name, found in report.items():
        assert found["difference"] < 1e-9, name
        # Sums over the batch, only for parameters and statistics.
        assert set(found["collectives"]) <= {"all-reduce"}, name
