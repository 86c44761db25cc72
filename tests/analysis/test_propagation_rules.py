"""Receptive fields of single operations and random nets, against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from cnn_flax import receptive_field
from cnn_flax.layers import adaptive_avg_pool

SIZE = 32


def conv(x, kernel=3, stride=1, padding="SAME", dilation=1, spread=1):
    if isinstance(padding, int):
        padding = [(padding, padding)] * 2
    return lax.conv_general_dilated(
        x,
        jnp.ones((kernel, kernel, x.shape[-1], 2)),
        (stride, stride),
        padding,
        (spread, spread),
        (dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def to_depth(x):
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def to_space(x):
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def resize(x, factor, method):
    n, h, w, c = x.shape
    return jax.image.resize(x, (n, int(factor * h), int(factor * w), c), method)


def border(x, pixels, mode):
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode=mode)


@jax.custom_vjp
def custom(x):
    return conv(x)


custom.defvjp(lambda x: jax.vjp(conv, x), lambda backward, y: backward(y))


def channels_first(x):
    y = x.transpose(0, 3, 1, 2)
    y = lax.conv_general_dilated(y, jnp.ones((4, 3, 5, 3)), (2, 1), "SAME")
    return y.transpose(0, 2, 3, 1)


def scanned(x):
    kernels = jnp.ones((3, 3, 3, 3, 3))

    def layer(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        ), None

    return lax.scan(layer, x, kernels)[0]


def shifted(x):
    padded = border(x, 2, "constant")
    return sum(
        padded[:, i : i + SIZE, j : j + SIZE] for i in range(5) for j in range(3)
    )


MODELS = {
    "dilated": lambda x: conv(conv(x, 3, 2), 5, 1, 2, dilation=2),
    "asymmetric": lambda x: conv(
        lax.pad(x, 0.0, [(0, 0, 0), (3, -2, 0), (-1, 2, 0), (0, 0, 0)])
    ),
    "transposed by 4": lambda x: conv(conv(x, 3, 2), 4, 1, 2, spread=2),
    "transposed, then 3": lambda x: conv(conv(conv(x, 3, 2), 2, 1, 1, spread=2)),
    "nearest": lambda x: conv(resize(conv(x, 3, 2), 2, "nearest")),
    "linear": lambda x: conv(resize(conv(x, 3, 2), 2, "linear")),
    "smaller": lambda x: resize(conv(x), 0.5, "linear"),
    "repeat": lambda x: conv(x, 3, 2).repeat(2, 1).repeat(2, 2),
    "reflect": lambda x: conv(border(conv(x), 2, "reflect"), 5, 2, "VALID"),
    "edge": lambda x: conv(border(conv(x), 1, "edge"), 3, 1, "VALID"),
    "wrap": lambda x: conv(border(conv(x), 1, "wrap"), 3, 1, "VALID"),
    "space to depth": lambda x: conv(to_depth(x)),
    "depth to space": lambda x: conv(to_space(conv(x, 3, 2).repeat(2, 3))),
    "pooling by reshape": lambda x: conv(x).reshape(1, 16, 2, 16, 2, 2).mean((2, 4)),
    "adaptive": lambda x: conv(adaptive_avg_pool(x, (8, 16))),
    "encoder, decoder": lambda x: jnp.concatenate(
        [conv(x), resize(conv(conv(x, 3, 2)), 2, "nearest")], -1
    ),
    "split channels": lambda x: conv(
        jnp.split(jnp.concatenate([conv(x), conv(x, 7)], -1), 2, axis=-1)[0]
    ),
    "slices": lambda x: x[:, 2:-1, 1:][:, ::2, ::2][..., :2] + conv(x, 3, 2)[:, :15],
    "reverse twice": lambda x: conv(x[:, ::-1], 3, 2)[:, ::-1],
    "windows": lambda x: nn.avg_pool(conv(x), (3, 2), (2, 1), padding="SAME"),
    "patches": lambda x: lax.conv_general_dilated_patches(
        x, (3, 3), (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "stack": lambda x: jnp.stack([x, conv(x, 5)[..., :1] + x], -1).sum(-1),
    "sorted channels": lambda x: jnp.sort(conv(x), axis=-1) + lax.cumsum(conv(x), 3),
    "einsum": lambda x: jnp.einsum("nhwc,cd->nhwd", conv(x), jnp.ones((2, 5))),
    "inner functions": lambda x: jax.checkpoint(custom)(jax.jit(nn.relu)(x)),
    "loop": lambda x: lax.fori_loop(0, 3, lambda _, x: nn.avg_pool(
        x, (3, 3), padding="SAME"), x),
    "channels first": channels_first,
    "scan": scanned,
    "shifted": shifted,
}  # fmt: skip


def seen(pixels):
    """First and last pixel with a gradient, as (vertical, horizontal)."""
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    return (rows[0], columns[0]), (rows[-1], columns[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_operations_see_what_has_a_gradient(name):
    model = MODELS[name]
    field = receptive_field(model, SIZE)
    images = jnp.ones((1, SIZE, SIZE, 3))
    y, backward = jax.vjp(model, images)
    sizes = []
    # After an upsampling neighbours differ: the larger size counts, and the padding is
    # that of position 0, which even positions share.
    for shift in (0, 1):
        position = [n // 4 * 2 + shift for n in y.shape[1:3]]
        (gradient,) = backward(jnp.zeros_like(y).at[0, *position].set(1.0))
        first, last = seen(np.any(gradient[0] != 0, axis=-1))
        if shift == 0:
            expected = np.multiply(position, field.stride) - field.padding
            assert tuple(first) == tuple(expected)
        sizes.append(np.subtract(last, first) + 1)
    assert tuple(np.max(sizes, axis=0)) == field.size


# Random nets. Brute force is a table of which position depends on which pixel along one
# axis, without spans.

EDGES = st.tuples(st.integers(-1, 4), st.integers(-1, 4))


@st.composite
def layers(draw, depth=2, keeps_size=False):
    """Nested lists: ("window", kernel, stride, dilation, edges) and branches."""
    net = []
    for _ in range(draw(st.integers(1, 3))):
        if depth and draw(st.booleans()):
            stride = 1 if keeps_size else draw(st.sampled_from([1, 2]))
            branches = draw(st.lists(layers(depth - 1, True), min_size=1, max_size=3))
            skips = draw(st.booleans())
            join = draw(st.sampled_from(["add", "concatenate"]))
            net.append((join, stride, [*branches, []] if skips else branches))
        else:
            kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
            kind = draw(st.sampled_from(["conv", "pool"]))
            if keeps_size:
                net.append((kind, kernel, 1, dilation, None))
            else:
                stride = draw(st.integers(1, 3))
                net.append((kind, kernel, stride, dilation, draw(EDGES)))
    return net


def same(kernel, dilation):
    """Edges that keep the size at stride 1."""
    total = (kernel - 1) * dilation
    return total // 2, total - total // 2


def run(net, x):
    """Runs the net on `[1, H, W, 1]`, along H only."""
    for layer in net:
        if layer[0] in ("conv", "pool"):
            kind, kernel, stride, dilation, edges = layer
            edges = edges or same(kernel, dilation)
            if kind == "conv":
                x = lax.conv_general_dilated(
                    x,
                    jnp.ones((kernel, 1, x.shape[3], 1)),
                    (stride, 1),
                    [edges, (0, 0)],
                    rhs_dilation=(dilation, 1),
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
            else:
                x = lax.reduce_window(
                    x,
                    -jnp.inf,
                    lax.max,
                    (1, kernel, 1, 1),
                    (1, stride, 1, 1),
                    [(0, 0), edges, (0, 0), (0, 0)],
                    window_dilation=(1, dilation, 1, 1),
                )
        else:
            join, stride, branches = layer
            ends = [run(branch, x)[:, ::stride] for branch in branches]
            x = sum(ends) if join == "add" else jnp.concatenate(ends, -1)
            x = x.mean(-1, keepdims=True)
    return x


def depends(net, table):
    """`[positions, pixels]`: whether a position depends on a pixel."""
    for layer in net:
        if layer[0] in ("conv", "pool"):
            _, kernel, stride, dilation, edges = layer
            low, high = edges or same(kernel, dilation)
            rows = [np.zeros_like(table[0])] * max(low, 0) + list(table)
            rows += [np.zeros_like(table[0])] * max(high, 0)
            rows = rows[max(-low, 0) : len(rows) - max(-high, 0)]
            reach = (kernel - 1) * dilation
            table = np.array(
                [
                    np.any(rows[i : i + reach + 1 : dilation], axis=0)
                    for i in range(0, len(rows) - reach, stride)
                ]
            )
        else:
            _, stride, branches = layer
            ends = [depends(branch, table)[::stride] for branch in branches]
            table = np.any(ends, axis=0)
    return table


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(layers())
def test_random_nets_see_what_they_depend_on(net):
    pixels = 150
    table = depends(net, np.eye(pixels, dtype=bool))
    assume(len(table) > 2)
    field = receptive_field(lambda x: run(net, x), (pixels, 1), "output", channels=1)
    middle = len(table) // 2
    first = middle * field.stride[0] - field.padding[0]
    last = first + field.size[0] - 1
    assume(first >= 0 and last < pixels)
    (found,) = np.nonzero(table[middle])
    assert (found[0], found[-1]) == (first, last)
    (after,) = np.nonzero(table[middle + 1])
    assert after[0] - found[0] == field.stride[0] or last + field.stride[0] >= pixels
    assert (field.size[1], field.stride[1], field.padding[1]) == (1, 1, 0)
