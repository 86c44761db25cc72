"""Batch normalisation whose gradient saves no more than its input.

Ioffe and Szegedy 2015, "Batch normalization", https://arxiv.org/abs/1502.03167.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from cnn_flax.layers.arguments import finite_number
from cnn_flax.own_gradient import with_gradient

__all__ = ["BatchNorm", "batch_norm"]


class BatchNorm(nn.BatchNorm):
    """Flax's BatchNorm over the last axis, with the same fields and variables.

    Parameters are `scale` and `bias`, running statistics (`batch_stats`) `mean` and
    `var`, each `[C]`. The statistics are float32, or as wide as the parameters, from
    the start. Without `scale` it only adds `bias`, which is what remains of it after
    `cnn_flax.fold_batch_norm`.

    Attributes:
      momentum: decay of the running statistics (torch's momentum is 1 minus this).
      epsilon: what is added to the variance.
      axis_name: mapped axis to take batch statistics over, under `jax.pmap`. Under
        `jax.jit` they are over the whole batch, on any number of devices.
      dtype: dtype of the result; None infers it from input and parameters.
      param_dtype: dtype of the parameters.

    Raises:
      ValueError: if a field of Flax's that is fixed here has another value;
        `flax.linen.BatchNorm` takes it; or momentum or epsilon are out of range.
      TypeError: if momentum or epsilon are not numbers.
    """

    def __post_init__(self):
        for field, value in _FIXED.items():
            if getattr(self, field) != value:
                raise ValueError(
                    f"{field} must be {value}, got {getattr(self, field)}; "
                    "flax.linen.BatchNorm takes others."
                )
        finite_number("momentum", self.momentum, 0, 1)
        finite_number("epsilon", self.epsilon, 0)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """`[N, ..., C] -> [N, ..., C]`.

        Args:
          x: float.
          use_running_average: whether to normalise by the running statistics instead
            of the batch's, and leave them unchanged; here or as a field.
          mask: not supported.

        Raises:
          ValueError: if there is a mask, or a folded layer must normalise by the batch.
        """
        if mask is not None:
            raise ValueError("mask is not supported; flax.linen.BatchNorm takes one.")
        evaluates = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        shape = x.shape[-1:]
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        dtype = jnp.result_type(x, bias) if self.dtype is None else self.dtype
        if not (self.is_initializing() or self.has_variable("params", "scale")):
            if not evaluates:
                raise ValueError("A folded BatchNorm cannot be trained.")
            return (x + _per_channel(bias, x)).astype(dtype)

        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        wide = jnp.promote_types(jnp.float32, self.param_dtype)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, wide)
        var = self.variable("batch_stats", "var", jnp.ones, shape, wide)
        if evaluates or 0 in x.shape:  # An empty batch has no statistics.
            y = _normalized(x, mean.value, var.value, scale, bias, self.epsilon)
            return y.astype(dtype)
        x = x.astype(jnp.promote_types(dtype, x.dtype))
        # Initialization is outside the mapped function, and leaves the statistics.
        axis_name = None if self.is_initializing() else self.axis_name
        results: Any = batch_norm(x, scale, bias, self.epsilon, axis_name)
        y, *new = results
        if not self.is_initializing():
            for running, of_batch in zip((mean, var), new, strict=True):
                decay = self.momentum
                running.value = decay * running.value + (1 - decay) * of_batch
        return y.astype(dtype)


_FIXED = {
    "axis": -1,
    "use_bias": True,
    "use_scale": True,
    "axis_index_groups": None,
    "use_fast_variance": True,
    "force_float32_reductions": True,
}


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the batch; algorithm 1 of the paper.

    The gradient is the closed form of the paper's section 3, which needs the input and
    a few values per channel.

    Args:
      x: float `[N, ..., C]`.
      scale: the paper's gamma, `[C]`.
      bias: the paper's beta, `[C]`.
      epsilon: what is added to the variance.
      axis_name: mapped axis that the batch is split over, or None.

    Returns:
      The normalised input, `[N, ..., C]`, and the mean and the biased variance, `[C]`;
      all in float32 or wider.
    """
    operation = with_gradient(
        partial(_forward, epsilon, axis_name),
        partial(_gradient, epsilon, axis_name),
        save=lambda arguments, result: result[1:],
    )
    return operation(x, scale, bias)


def _forward(epsilon, axis_name, x, scale, bias):
    wide = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    # Sums about a rough mean, that of each image's first row, which the results do not
    # depend on: about 0 they cancel where the mean is far from it. H rows' mean is
    # within sqrt(H) deviations of one's, so rounding grows by H at most.
    first = lax.stop_gradient(wide[:, :1] if x.ndim > 2 else wide)
    (rough,) = _means(first, axis_name=axis_name)
    rest = wide - _per_channel(rough, x)
    shift, mean_square = _means(rest, lax.square(rest), axis_name=axis_name)
    mean, var = rough + shift, jnp.maximum(mean_square - lax.square(shift), 0)
    return _normalized(wide, mean, var, scale, bias, epsilon), mean, var


def _gradient(epsilon, axis_name, arguments, statistics, cotangents):
    (x, scale, bias), (mean, var) = arguments, statistics
    dy, dmean, dvar = cotangents
    over_std = lax.rsqrt(var + epsilon)
    centred = x.astype(dy.dtype) - _per_channel(mean, x)
    own = _means(dy, dy * centred)
    both = _averaged(own, axis_name)
    dmean, dvar = _averaged((dmean, dvar), axis_name)
    # A float, as a large batch has more pixels than 32 bits can count. Under
    # `jax.export` a size may be known only when the program runs.
    count = math.prod(jnp.asarray(size, dy.dtype) for size in x.shape[:-1])
    factor = scale * over_std
    # dx is linear in the cotangents, the elements and 1, with these coefficients.
    slope = -factor * over_std**2 * both[1] + 2 / count * dvar
    offset = -factor * both[0] + dmean / count
    dx = (
        dy * _per_channel(factor, x)
        + centred * _per_channel(slope, x)
        + _per_channel(offset, x)
    )
    # Sums over the device's own elements: the caller reduces gradients over devices.
    dscale, dbias = count * over_std * own[1], count * own[0]
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype)


def _normalized(x, mean, var, scale, bias, epsilon):
    factor = lax.rsqrt(var + epsilon) * scale
    return (x - _per_channel(mean, x)) * _per_channel(factor, x) + _per_channel(bias, x)


def _means(*arrays, axis_name=None):
    """Means over all axes except the channels, `[C]`."""

    def at_once(*arrays):
        return [x.mean(tuple(range(x.ndim - 1))) for x in arrays]

    def by_image(*arrays):
        # XLA runs a sum over all axes but the channels on one core.
        return [x.mean(tuple(range(1, x.ndim - 1))).mean(0) for x in arrays]

    means = lax.platform_dependent(*arrays, cpu=by_image, default=at_once)
    return _averaged(means, axis_name)


def _averaged(values, axis_name):
    return values if axis_name is None else lax.pmean(values, axis_name)


def _per_channel(values, x):
    return values.reshape(*[1] * (x.ndim - 1), -1)
