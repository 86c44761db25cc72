"""Grouped convolution."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from cnn_flax.layers.cpu.convolution import Geometry, convolve
from cnn_flax.layers.cpu.dispatch import dispatch

__all__ = ["grouped_conv"]

_BLOCK = 32  # Channels from which on a dense convolution is worthwhile.


def grouped_conv(
    x: jax.Array, kernel: jax.Array, geometry: Geometry, groups: int
) -> jax.Array:
    """`[N, H, W, C] -> [N, H', W', features]` in `groups` groups.

    The kernel is `[kh, kw, C / groups, features]`. A CPU convolves blocks of 32 or more
    channels densely, with zeros for the weights between different groups, and group by
    group where a number is not finite: zero times that would be NaN in all groups.
    """
    plain = partial(convolve, geometry=geometry, groups=groups)
    width = kernel.shape[2]
    together = max(
        n
        for n in range(1, groups + 1)
        if groups % n == 0 and n * width <= max(_BLOCK, width)
    )
    blocks = partial(_blocks, geometry=geometry, blocks=groups // together)
    if together == 1:
        return dispatch(plain, blocks)(x, kernel)
    by_group = partial(_by_group, geometry=geometry, groups=groups)
    return dispatch(
        plain,
        partial(_where_finite, blocks, by_group),
        partial(_gradients, blocks, by_group),
    )(x, kernel)


def _blocks(x, kernel, geometry, blocks):
    """Dense convolutions of blocks of groups."""
    width = x.shape[-1] // blocks
    parts = [
        convolve(part, _dense(weights, width // kernel.shape[2]), geometry)
        for part, weights in zip(
            jnp.split(x, blocks, -1), jnp.split(kernel, blocks, -1), strict=True
        )
    ]
    return jnp.concatenate(parts, -1)


def _dense(kernel, groups):
    """The kernel of the equal convolution without groups."""
    kh, kw, width, features = kernel.shape
    joined = kernel.reshape(kh, kw, 1, width, groups, features // groups)
    own = jnp.eye(groups, dtype=bool).reshape(1, 1, groups, 1, groups, 1)
    dense = jnp.where(own, joined, jnp.zeros_like(joined))
    return dense.reshape(kh, kw, groups * width, features)


def _by_group(x, kernel, geometry, groups):
    """One convolution after the other, which is several times slower."""
    x, kernel = (
        jnp.moveaxis(
            array.reshape(*array.shape[:3], groups, array.shape[3] // groups), 3, 0
        )
        for array in (x, kernel)
    )
    y = lax.map(lambda group: convolve(group[0], group[1], geometry), (x, kernel))
    y = jnp.moveaxis(y, 0, 3)
    return y.reshape(*y.shape[:3], groups * y.shape[4])


def _where_finite(blocks, by_group, *arrays):
    """`blocks(*arrays)` where all numbers are finite, else `by_group(*arrays)`."""

    # A loop that does not run. A branch would copy the result, and XLA's CPU backend
    # optimises no convolution inside one.
    @jax.custom_jvp
    def result(*arrays):
        return lax.while_loop(
            lambda state: state[0],
            lambda state: (jnp.zeros_like(state[0]), by_group(*arrays)),
            (~_is_finite(*arrays), blocks(*arrays)),
        )[1]

    @result.defjvp
    def _(primals, tangents):
        # Without a derivative of its own, which `custom_vmap` would give it.
        finite = _is_finite(*map(lax.stop_gradient, primals))
        branch = partial(lax.cond, finite, blocks, by_group)
        return result(*primals), jax.jvp(branch, primals, tangents)[1]

    return result(*arrays)


@custom_vmap
def _is_finite(*arrays):
    """Whether all elements of all arrays are; one answer for a batch of them."""
    # Each image separately, so that all cores have work.
    largest = [
        jnp.abs(x).max(range(1, x.ndim), initial=0).max(initial=0) for x in arrays
    ]
    return jnp.stack(largest).max() < jnp.inf


@_is_finite.def_vmap
def _(size, is_batched, *arrays):
    del size, is_batched
    return _is_finite(*arrays), False


def _gradients(blocks, by_group, arguments, y, dy):
    del y
    x, kernel = arguments

    def input_gradient(formulation):
        def transposed(kernel, dy):
            return jax.linear_transpose(lambda x: formulation(x, kernel), x)(dy)[0]

        return transposed

    dx = _where_finite(input_gradient(blocks), input_gradient(by_group), kernel, dy)
    # Each weight's gradient is a sum of its own; those between groups are left out.
    (dkernel,) = jax.linear_transpose(partial(blocks, x), kernel)(dy)
    return dx, dkernel
