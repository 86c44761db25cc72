"""Learning rates over the run, and the optimizers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from train.config import Optimization
from train.transfer import Stage, place

__all__ = [
    "kernels",
    "make_optimizer",
    "make_schedule",
    "warmup_cosine",
    "warmup_step",
]


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


def warmup_step(
    peak: float, warmup: int, every: int, factor: float
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """A linear rise, then a fall every so many steps, as torch's `StepLR`.

    Step `t` has `peak * (t + 1) / (warmup + 1)` before `warmup`, and from there
    `peak * factor ** floor(t / every)`: falls are counted from the run's start, as in
    Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1.

    Args:
      peak: rate after the warm-up.
      warmup: steps before it.
      every: steps from one fall to the next.
      factor: of each fall, in (0, 1].

    Returns:
      A function of the step, which counts from 0.
    """

    def schedule(step):
        rise = (step + 1) / (warmup + 1)
        fallen = jnp.asarray(factor) ** (step // every)
        return peak * jnp.where(step < warmup, rise, fallen)

    return schedule


def make_schedule(
    options: Optimization, steps_per_epoch: int, steps: int
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """The schedule that `options` name, as a function of the step, from 0.

    Args:
      options: the run's.
      steps_per_epoch: of the training images.
      steps: of the whole run.
    """
    warmup = min(round(options.warmup_epochs * steps_per_epoch), steps)
    if options.schedule == "step":
        every = max(round(options.step_epochs * steps_per_epoch), 1)
        return warmup_step(options.learning_rate, warmup, every, options.step_factor)
    return warmup_cosine(options.learning_rate, warmup, steps)


def kernels(params: Any) -> Any:
    """True where a parameter has more than one axis, for `optax`'s masks.

    Scales and biases are left out of weight decay: Goyal et al. 2017, "Accurate, large
    minibatch SGD", https://arxiv.org/abs/1706.02677, section 5.1; He et al. 2018,
    "Bag of tricks", https://arxiv.org/abs/1812.01187, section 3.1.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
    options: Optimization,
    learning_rate: optax.ScalarOrSchedule,
    stages: Sequence[Stage] = (),
) -> optax.GradientTransformation:
    """The optimizer that `options` name, with weight decay on kernels only.

    SGD is torch's: the decay is added to the gradient, before Nesterov's momentum.
    AdamW's decay is apart from the gradient, and scaled by the rate. LAMB is that of
    You et al. 2019, https://arxiv.org/abs/1904.00962, algorithm 2. Clipping comes
    before all else, as torch's `clip_grad_norm_`.

    Args:
      options: the run's.
      learning_rate: of each step, which counts from 0.
      stages: how a model's stages learn, the head's being the last; without them all
        parameters learn alike. A stage that does not learn yet is as it was to the bit,
        and so is its part of the optimizer's state: there is no decay, and no moment is
        warmed. One that never learns has no such state.
    """
    tx = _unclipped(options, learning_rate)
    if stages:
        parts = [_stage_optimizer(options, learning_rate, stage) for stage in stages]
        tx = optax.partition(
            dict(enumerate(parts)), lambda params: {k: place(stages, k) for k in params}
        )
    if not options.clip_norm:
        return tx
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), tx)


def _stage_optimizer(
    options: Optimization,
    learning_rate: optax.ScalarOrSchedule,
    stage: Stage,
) -> optax.GradientTransformation:
    start = stage.start
    if start is None:
        return optax.set_to_zero()

    def rate(step):
        """Of a step that counts from the stage's first."""
        now = learning_rate(step + start) if callable(learning_rate) else learning_rate
        return stage.rate * now

    tx = _unclipped(options, rate)
    return optax.conditionally_mask(tx, partial(_is_on, start)) if start else tx


def _is_on(start: int, step: Any, **extra: Any) -> Any:
    return step >= start


def _unclipped(
    options: Optimization, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    if options.optimizer != "sgd":
        make = {"adamw": optax.adamw, "lamb": optax.lamb}[options.optimizer]
        return make(
            learning_rate,
            b1=options.momentum,
            weight_decay=options.weight_decay,
            mask=kernels,
        )
    return optax.chain(
        optax.add_decayed_weights(options.weight_decay, mask=kernels),
        optax.sgd(learning_rate, momentum=options.momentum, nesterov=True),
    )
