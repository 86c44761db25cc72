"""Learning rates over the run, and the optimizers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from train.config import Optimization

__all__ = ["kernels", "make_optimizer", "warmup_cosine"]


def warmup_cosine(
    peak: float, warmup: int, steps: int
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """A linear rise, then half a cosine: no step has rate 0, the first included.

    Step `t` has `peak * (t + 1) / (warmup + 1)` before `warmup`, and from there
    `peak * (1 + cos(pi * (t - warmup) / (steps - warmup))) / 2`.

    Args:
      peak: rate at step `warmup`.
      warmup: steps before it, at most `steps`.
      steps: all steps of the run.

    Returns:
      A function of the step, which counts from 0.
    """

    def schedule(step):
        rise = (step + 1) / (warmup + 1)
        done = (step - warmup) / max(steps - warmup, 1)
        return peak * jnp.where(step < warmup, rise, (1 + jnp.cos(jnp.pi * done)) / 2)

    return schedule


def kernels(params: Any) -> Any:
    """True where a parameter has more than one axis, for `optax`'s masks.

    Scales and biases are left out of weight decay: Goyal et al. 2017, "Accurate, large
    minibatch SGD", https://arxiv.org/abs/1706.02677, section 5.1; He et al. 2018,
    "Bag of tricks", https://arxiv.org/abs/1812.01187, section 3.1.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
    options: Optimization, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """The optimizer that `options` name, with weight decay on kernels only.

    SGD is torch's: the decay is added to the gradient, before Nesterov's momentum.
    AdamW's decay is apart from the gradient, and scaled by the rate.
    """
    if options.optimizer == "adamw":
        return optax.adamw(
            learning_rate,
            b1=options.momentum,
            weight_decay=options.weight_decay,
            mask=kernels,
        )
    return optax.chain(
        optax.add_decayed_weights(options.weight_decay, mask=kernels),
        optax.sgd(learning_rate, momentum=options.momentum, nesterov=True),
    )
