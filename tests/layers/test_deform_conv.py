import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
import textwrap
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers import Conv, DeformConv, deform_conv2d
from tests.support import figures
from tests.support.deformable import arguments, loss

# torchvision 0.29.1's, from `ops/deform_conv2d`: see its "source".
OPS = figures.REFERENCE / "ops"
CASES = json.loads((OPS / "deform_conv2d.json").read_text())["cases"]


def reference(name, dtype):
    """A case in our layouts: arguments, their gradients, output and cotangent."""
    arrays = {}
    with np.load(OPS / "deform_conv2d.npz") as file:
        for key in file.files:
            case, _, array = key.partition("/")
            if case == name:
                axes = {"weight": (2, 3, 1, 0), "bias": (0,)}
                axes = axes.get(array.removeprefix("grad_"), (0, 2, 3, 1))
                arrays[array] = jnp.asarray(file[key].transpose(axes), dtype)
    names = [n for n in ("x", "offset", "weight", "bias", "mask") if n in arrays]
    return (
        {n: arrays[n] for n in names},
        {n: arrays[f"grad_{n}"] for n in names},
        arrays["y"],
        arrays["cotangent"],
    )


def geometry(name):
    case = CASES[name]
    return {
        "stride": tuple(case["stride"]),
        "padding": tuple(case["padding"]),
        "dilation": tuple(case["dilation"]),
        "feature_groups": case["groups"],
        "offset_groups": case["offset_groups"],
    }


@partial(jax.jit, static_argnums=2)
def _value_and_gradients(arguments, cotangent, geometry):
    y, pull_back = jax.vjp(
        lambda arrays: deform_conv2d(**arrays, **dict(geometry)), arguments
    )
    return y, pull_back(cotangent)[0]


def value_and_gradients(arguments, cotangent, **geometry):
    return _value_and_gradients(arguments, cotangent, tuple(geometry.items()))


def assert_close(actual, expected, tolerance):
    """Each entry relative to the largest one."""
    chex.assert_trees_all_equal_structs(actual, expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_value_and_every_gradient_are_torchvisions_in_float64(name, float64):
    arguments, gradients, y, cotangent = reference(name, jnp.float64)
    actual = value_and_gradients(arguments, cotangent, **geometry(name))
    assert actual[0].dtype == jnp.float64
    # The figures are stored in float32.
    assert_close(actual, (y, gradients), 5e-7)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.slow] * (name != "v2_groups2_offset_groups2")
        )
        for name in CASES
    ],
)
def test_value_and_every_gradient_are_torchvisions_in_float32(name):
    arguments, gradients, y, cotangent = reference(name, jnp.float32)
    actual = value_and_gradients(arguments, cotangent, **geometry(name))
    # Sums of up to 72 products, each with an error of 6e-8.
    assert_close(actual, (y, gradients), 2e-6)


# Against the definition, pixel by pixel.


def loop(x, offset, weight, bias, mask, stride, padding, dilation, groups):
    """v2's equation 1 with v1's equations 3 and 4, corner by corner."""
    feature_groups, offset_groups = groups
    n, height, width, channels = x.shape
    kh, kw, group_channels, features = weight.shape
    y = np.zeros((*offset.shape[:3], features))
    for i, p, q in np.ndindex(*offset.shape[:3]):
        for k, m, c in np.ndindex(kh, kw, channels):
            tap = (c * offset_groups // channels) * kh * kw + k * kw + m
            dy, dx = offset[i, p, q, 2 * tap : 2 * tap + 2]
            at_y = p * stride[0] - padding[0] + k * dilation[0] + dy
            at_x = q * stride[1] - padding[1] + m * dilation[1] + dx
            value = 0.0
            for row, column in itertools.product(
                (math.floor(at_y), math.floor(at_y) + 1),
                (math.floor(at_x), math.floor(at_x) + 1),
            ):
                if 0 <= row < height and 0 <= column < width:
                    near = (1 - abs(at_y - row)) * (1 - abs(at_x - column))
                    value += near * x[i, row, column, c]
            first = c // group_channels * (features // feature_groups)
            for f in range(first, first + features // feature_groups):
                y[i, p, q, f] += (
                    weight[k, m, c % group_channels, f] * value * mask[i, p, q, tap]
                )
    return y + bias


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups", "offsets"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1), (1, 1), "between pixels"),
        ((2, 3), (2, 1), (0, 2), (1, 2), (2, 1), "between pixels"),
        ((3, 2), (1, 3), (2, 1), (2, 1), (1, 2), "on pixels"),
        ((1, 2), (1, 1), (1, 0), (1, 1), (2, 4), "far outside"),
    ],
)
def test_values_are_those_of_the_definition(
    kernel, stride, padding, dilation, groups, offsets, float64
):
    rng = np.random.default_rng(0)
    feature_groups, offset_groups = groups
    x = rng.standard_normal((2, 5, 6, 4))
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip((5, 6), padding, dilation, kernel, stride, strict=True)
    ]
    taps = offset_groups * math.prod(kernel)
    offset = rng.standard_normal((2, *size, 2 * taps))
    offset = {
        "between pixels": offset,
        "on pixels": np.round(2 * offset),
        "far outside": 20 * offset,
    }[offsets]
    weight = rng.standard_normal((*kernel, 4 // feature_groups, 6))
    bias = rng.standard_normal(6)
    mask = rng.uniform(size=(2, *size, taps))
    arrays = (x, offset, weight, bias, mask)
    y = deform_conv2d(
        *map(jnp.asarray, arrays),
        stride=stride,
        padding=padding,
        dilation=dilation,
        feature_groups=feature_groups,
        offset_groups=offset_groups,
    )
    expected = loop(*arrays, stride, padding, dilation, groups)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_without_offsets_it_is_the_plain_convolution():
    given = arguments(reach=0)
    plain = jax.lax.conv_general_dilated(
        given["x"],
        given["weight"],
        (2, 1),
        [(2, 2), (1, 1)],
        rhs_dilation=(2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = deform_conv2d(
        given["x"],
        jnp.zeros((*plain.shape[:3], 18)),
        given["weight"],
        stride=(2, 1),
        padding=(2, 1),
        dilation=(2, 1),
    )
    np.testing.assert_allclose(y, plain, atol=1e-5)


def test_one_number_is_for_both_axes_and_a_list_is_a_pair():
    given = arguments()
    del given["offset"], given["mask"]
    offset = jax.random.normal(jax.random.key(1), (2, 3, 4, 18))
    by_number = deform_conv2d(offset=offset, **given, stride=2, padding=2, dilation=2)
    by_pairs = deform_conv2d(
        offset=offset, **given, stride=[2, 2], padding=(2, 2), dilation=[2, 2]
    )
    np.testing.assert_array_equal(by_number, by_pairs)


@pytest.mark.parametrize("far", [1e3, 1e10, 1e38, jnp.inf, -jnp.inf])
def test_a_tap_far_outside_reads_zero_and_has_no_gradient(far):
    given = arguments()
    # Only the middle tap's, vertically in one image and horizontally in the other.
    given["offset"] = given["offset"].at[0, ..., 8].set(far).at[1, ..., 9].set(far)
    without = {**given, "weight": given["weight"].at[1, 1].set(0)}
    without["offset"] = without["offset"].at[..., 8:10].set(0)
    run = jax.jit(lambda arrays: deform_conv2d(**arrays, padding=1))
    np.testing.assert_allclose(run(given), run(without), atol=1e-5)
    gradients = jax.jit(jax.grad(loss))(given)
    chex.assert_tree_all_finite(gradients)
    np.testing.assert_array_equal(gradients["offset"][..., 8:10], 0)
    np.testing.assert_array_equal(gradients["mask"][..., 4], 0)


def test_nan_propagates():
    given = arguments()
    given["offset"] = given["offset"].at[0, 2, 3, 0].set(jnp.nan)
    unknown = jnp.isnan(deform_conv2d(**given, padding=1)).any(-1)
    assert unknown[0, 2, 3] and unknown.sum() == 1


def test_bfloat16_has_float32_positions():
    # At 256 px bfloat16 has steps of 2 px, and a product keeps 8 bits.
    x = jnp.broadcast_to(jnp.arange(512.0).reshape(1, 1, 512, 1), (1, 1, 512, 1))
    offset = jnp.full((1, 1, 512, 2), 0.5)
    weight = jnp.ones((1, 1, 1, 1))
    small = (x % 2).astype(jnp.bfloat16)
    for dtype in (jnp.bfloat16, jnp.float32):
        y = deform_conv2d(
            small, offset.at[..., 0].set(0).astype(dtype), weight.astype(jnp.bfloat16)
        )
        assert y.dtype == jnp.bfloat16
        # Halfway between a 0 and a 1, except at the border.
        np.testing.assert_array_equal(y[0, 0, :-1, 0].astype(float), 0.5)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32_in_value_and_gradients():
    given = arguments()
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), given)
    half["offset"] = given["offset"]
    cotangent = jax.random.normal(jax.random.key(1), (2, 6, 7, 5))
    exact = value_and_gradients(given, cotangent, padding=1)
    y, gradients = value_and_gradients(half, cotangent.astype(jnp.bfloat16), padding=1)
    chex.assert_trees_all_equal_dtypes((y, gradients), (half["x"], half))
    to_float32 = jax.tree.map(lambda a: a.astype(jnp.float32), (y, gradients))
    assert_close(to_float32, exact, 0.02)


@pytest.mark.slow
def test_jit_equals_eager_and_vmap_equals_a_loop():
    given = arguments(lead=(3,))
    weights = {name: given.pop(name) for name in ("weight", "bias")}
    run = jax.value_and_grad(lambda a, w: loss({**a, **w}), (0, 1))
    parts = [jax.tree.map(lambda a, i=i: a[i], given) for i in range(3)]
    jitted = jax.jit(run)
    loop = [jitted(part, weights) for part in parts]
    chex.assert_trees_all_close(run(parts[0], weights), loop[0], rtol=1e-4, atol=1e-4)
    mapped = jax.jit(jax.vmap(run, (0, None)))(given, weights)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *loop)
    chex.assert_trees_all_close(mapped, stacked, rtol=1e-4, atol=1e-4)


def test_vmap_over_weights_alone():
    given = arguments()
    weight = given.pop("weight")
    weights = jnp.stack([weight, 2 * weight])
    given["bias"] = None
    y = jax.vmap(lambda w: deform_conv2d(weight=w, **given, padding=1))(weights)
    np.testing.assert_allclose(y[1], 2 * y[0], rtol=1e-5)


def test_forward_mode_gives_the_slope_along_the_gradient():
    given = arguments()
    gradients = jax.jit(jax.grad(loss))(given)
    _, slope = jax.jit(lambda a, b: jax.jvp(loss, (a,), (b,)))(given, gradients)
    square = sum((g**2).sum() for g in jax.tree.leaves(gradients))
    np.testing.assert_allclose(slope, square, rtol=1e-4)


def test_a_traced_program_has_one_call_whose_name_gives_the_geometry():
    given = arguments()
    program = jax.make_jaxpr(lambda a: deform_conv2d(**a, padding=1))(given)
    (call,) = program.eqns
    assert call.params["name"] == "deform_conv2d_stride1x1_padding1x1_dilation1x1"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_taps():
    n, size, channels = 2, 56, 64
    given = arguments(n=n, size=(size, size), channels=channels, features=channels)
    program = jax.jit(jax.grad(loss)).lower(given).compile()
    # 30 MB more than arguments and gradients; all taps' samples are 14 MB per corner.
    memory = program.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < 30e6


@pytest.mark.slow
def test_four_devices_compute_what_one_does_and_gather_nothing():
    code = """
        import chex, jax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        from tests.support.deformable import arguments, loss

        mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
        images, weights = arguments(n=8), {}
        for name in ("weight", "bias"):
            weights[name] = images.pop(name)
        run = jax.value_and_grad(lambda i, w: loss({**i, **w}), (0, 1))
        one = run(images, weights)

        split = NamedSharding(mesh, PartitionSpec("data"))
        whole = NamedSharding(mesh, PartitionSpec())
        sharded = jax.jit(run, in_shardings=(split, whole))
        compiled = sharded.lower(images, weights).compile()
        assert "all-gather" not in compiled.as_text()
        assert "all-reduce" in compiled.as_text()
        four = compiled(jax.device_put(images, split), jax.device_put(weights, whole))
        chex.assert_trees_all_close(jax.device_get(four), one, rtol=1e-4, atol=1e-3)

        parts = jax.tree.map(lambda a: a.reshape(4, 2, *a.shape[1:]), images)
        losses, gradients = jax.pmap(run, in_axes=(0, None))(parts, weights)
        gathered = (
            losses.sum(),
            (
                jax.tree.map(lambda a: a.reshape(8, *a.shape[2:]), gradients[0]),
                jax.tree.map(lambda a: a.sum(0), gradients[1]),
            ),
        )
        chex.assert_trees_all_close(jax.device_get(gathered), one, rtol=1e-4, atol=1e-3)
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr


def test_no_images_give_no_output():
    chex.assert_shape(deform_conv2d(**arguments(n=0), padding=1), (0, 6, 7, 5))


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"offset": (2, 18, 6, 7)},
            r"offset has shape \(2, 18, 6, 7\), expected \(2, 6, 7, 18\): "
            r"\[N, H', W', offset_groups \* kh \* kw \* 2\]",
        ),
        ({"offset": (2, 6, 7, 9)}, r"\(2, 6, 7, 9\), expected \(2, 6, 7, 18\)"),
        ({"stride": 2}, r"\(2, 6, 7, 18\), expected \(2, 3, 4, 18\)"),
        ({"offset_groups": 2}, r"\(2, 6, 7, 18\), expected \(2, 6, 7, 36\)"),
        (
            {"mask": (2, 6, 7, 18)},
            r"mask has shape \(2, 6, 7, 18\), expected \(2, 6, 7, 9\): "
            r"\[N, H', W', offset_groups \* kh \* kw\]",
        ),
        ({"x": (6, 7, 4)}, r"x is \[N, H, W, C\], got shape \(6, 7, 4\)"),
        ({"weight": (3, 3, 4)}, r"weight is \[kh, kw, .*got shape \(3, 3, 4\)"),
        (
            {"weight": (3, 3, 2, 5)},
            r"weight \(3, 3, 2, 5\) takes 2 channels per group, but x "
            r"\(2, 6, 7, 4\) has 4 in 1 group",
        ),
        (
            {"feature_groups": 2},
            r"feature_groups=2 must divide the 4 channels of x \(2, 6, 7, 4\) and the "
            r"5 features of weight \(3, 3, 4, 5\)",
        ),
        ({"feature_groups": 0}, "feature_groups=0 must divide"),
        (
            {"offset_groups": 3},
            r"offset_groups=3 must divide the 4 channels of x \(2, 6, 7, 4\)",
        ),
        ({"bias": (4,)}, r"bias has shape \(4,\), but weight \(3, 3, 4, 5\) has 5"),
        ({"stride": 0}, r"stride is one number or .* at least 1; got 0"),
        ({"padding": -1}, r"padding is .* at least 0; got -1"),
        ({"padding": (1, 1, 1)}, r"padding is .*; got \(1, 1, 1\)"),
        ({"dilation": 1.5}, r"dilation is .* at least 1; got 1.5"),
        (
            {"dilation": 5},
            r"kernel of \(3, 3\) with dilation \(5, 5\) does not fit into an image of "
            r"\(6, 7\) with padding \(1, 1\)",
        ),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    given = {**arguments(), "padding": 1}
    for name, change in changes.items():
        given[name] = jnp.ones(change) if name in arguments() else change
    with pytest.raises(ValueError, match=message):
        deform_conv2d(**given)


# The layer.


@pytest.mark.parametrize(("modulated", "share"), [(False, 1.0), (True, 0.5)])
@pytest.mark.parametrize(
    "fields",
    [
        {"kernel_size": (3, 3), "padding": 1},
        {"kernel_size": (3, 1), "strides": (2, 1), "padding": (1, 0)},
        {"kernel_size": (3, 3), "padding": 2, "kernel_dilation": 2},
        {"kernel_size": (3, 3), "feature_group_count": 2, "offset_groups": 4},
    ],
)
def test_a_new_layer_is_the_plain_convolution_or_half_of_it(fields, modulated, share):
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 4))
    layer = DeformConv(6, **fields, modulated=modulated, use_bias=False)
    variables = layer.init(jax.random.key(1), x)
    fields = {name: fields[name] for name in fields if name != "offset_groups"}
    plain: Any = Conv(6, **{"padding": 0, **fields}, use_bias=False)
    kernel = {"params": {"kernel": variables["params"]["kernel"]}}
    chex.assert_trees_all_close(
        layer.apply(variables, x), share * plain.apply(kernel, x), atol=1e-5
    )


@pytest.mark.parametrize("modulated", [False, True])
def test_the_branch_gives_all_offsets_then_all_masks(modulated):
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 4))
    layer = DeformConv(5, (3, 3), padding=1, modulated=modulated)
    params: Any = layer.init(jax.random.key(1), x)["params"]
    shapes = jax.tree.map(jnp.shape, params)
    outputs = 27 if modulated else 18
    assert shapes == {
        "kernel": (3, 3, 4, 5),
        "bias": (5,),
        "offset": {"kernel": (3, 3, 4, outputs), "bias": (outputs,)},
    }
    noise = jax.random.normal(jax.random.key(2), (outputs,))
    params["offset"]["bias"] = noise
    expected = deform_conv2d(
        x,
        jnp.broadcast_to(noise[:18].reshape(1, 1, 1, 18), (2, 6, 7, 18)),
        params["kernel"],
        params["bias"],
        jnp.broadcast_to(jax.nn.sigmoid(noise[18:]).reshape(1, 1, 1, 9), (2, 6, 7, 9))
        if modulated
        else None,
        padding=1,
    )
    chex.assert_trees_all_close(layer.apply({"params": params}, x), expected, atol=1e-5)


def test_the_layers_branch_is_float32_and_its_output_of_the_dtype():
    x = jnp.ones((1, 5, 5, 4), jnp.bfloat16)
    layer = DeformConv(5, (3, 3), dtype=jnp.bfloat16, modulated=True)
    variables = layer.init(jax.random.key(0), x)
    chex.assert_trees_all_equal_dtypes(*jax.tree.leaves(variables), jnp.zeros(1))
    y, state = layer.apply(variables, x, capture_intermediates=True, mutable=True)
    chex.assert_type(y, jnp.bfloat16)
    chex.assert_type(state["intermediates"]["offset"]["__call__"][0], jnp.float32)


def test_the_layer_refuses_groups_that_do_not_divide_the_channels():
    x = jnp.ones((1, 5, 5, 4))
    for layer in (
        DeformConv(6, (3, 3), feature_group_count=3),
        DeformConv(6, (3, 3), offset_groups=3),
    ):
        with pytest.raises(ValueError, match="=3 must divide the 4 channels"):
            layer.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"got shape \(5, 5, 4\)"):
        DeformConv(6, (3, 3)).init(jax.random.key(0), x[0])


def test_taps_outside_read_no_pixel_that_is_not_finite():
    x = jnp.full((1, 5, 5, 2), jnp.nan).at[:, 2, 2].set(1)
    offset, weight = jnp.full((1, 5, 5, 2), 100.0), jnp.ones((1, 1, 2, 3))

    def convolve(x, offset, weight):
        return deform_conv2d(x, offset, weight)

    values, back = jax.vjp(convolve, x, offset, weight)
    np.testing.assert_array_equal(values, np.zeros((1, 5, 5, 3)))
    chex.assert_tree_all_finite(back(jnp.ones_like(values)))
