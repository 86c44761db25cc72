"""Learning rate schedules and optimizers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from train.config import Optimization
from train.learn.transfer import Stage, stage_of

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
    """Linear warm-up, then cosine decay. No step has rate 0, not even the first.

    Step `t` has `peak * (t + 1) / (warmup + 1)` before `warmup`, and from there
    `peak * (1 + cos(pi * (t - warmup) / (steps - warmup))) / 2`.

    Args:
      peak: learning rate at step `warmup`.
      warmup: number of steps of warm-up, at most `steps`.
      steps: number of steps of the run.

    Returns:
      The learning rate as a function of the step, which counts from 0.
    """

    def schedule(step):
        rise = (step + 1) / (warmup + 1)
        done = (step - warmup) / max(steps - warmup, 1)
        return peak * jnp.where(step < warmup, rise, (1 + jnp.cos(jnp.pi * done)) / 2)

    return schedule


def warmup_step(
    peak: float, warmup: int, every: int, factor: float
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Linear warm-up, then a decay every `every` steps, like torch's `StepLR`.

    Step `t` has `peak * (t + 1) / (warmup + 1)` before `warmup`, and from there
    `peak * factor ** floor(t / every)`: decays are counted from the run's start, as in
    Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1.

    Args:
      peak: learning rate after the warm-up, before any decay.
      warmup: number of steps of warm-up.
      every: number of steps between two decays.
      factor: factor of each decay, in (0, 1].

    Returns:
      The learning rate as a function of the step, which counts from 0.
    """

    def schedule(step):
        rise = (step + 1) / (warmup + 1)
        decay = jnp.asarray(factor) ** (step // every)
        return peak * jnp.where(step < warmup, rise, decay)

    return schedule


def make_schedule(
    options: Optimization, steps_per_epoch: int, steps: int
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """The schedule that the options name.

    Args:
      options: the run's options.
      steps_per_epoch: number of steps per epoch.
      steps: number of steps of the run.

    Returns:
      The learning rate as a function of the step, which counts from 0.
    """
    warmup = min(round(options.warmup_epochs * steps_per_epoch), steps)
    if options.schedule == "step":
        every = max(round(options.step_epochs * steps_per_epoch), 1)
        return warmup_step(options.learning_rate, warmup, every, options.step_factor)
    return warmup_cosine(options.learning_rate, warmup, steps)


def kernels(params: Any) -> Any:
    """A mask for Optax: True for parameters with more than one axis.

    Scales and biases are excluded from weight decay: Goyal et al. 2017, "Accurate,
    large minibatch SGD", https://arxiv.org/abs/1706.02677, section 5.1; He et al. 2018,
    "Bag of tricks", https://arxiv.org/abs/1812.01187, section 3.1.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
    options: Optimization,
    learning_rate: optax.ScalarOrSchedule,
    stages: Sequence[Stage] = (),
) -> optax.GradientTransformation:
    """The optimizer that the options name, with weight decay on kernels only.

    SGD is torch's: weight decay is added to the gradient, before Nesterov momentum.
    AdamW's weight decay is decoupled and scaled by the learning rate. LAMB is
    algorithm 2 of You et al. 2019, https://arxiv.org/abs/1904.00962. Gradients are
    clipped first, as by torch's `clip_grad_norm_`.

    Args:
      options: the run's options.
      learning_rate: a rate, or a function of the step, which counts from 0.
      stages: how the model's stages are trained, the head last; without them, all
        parameters are trained in the same way. Until a stage is unfrozen, its
        parameters and its part of the optimizer's state stay bit-equal: no weight
        decay, no update of the moments. A stage that is frozen throughout has no
        optimizer state.
    """
    tx = _unclipped(options, learning_rate)
    if stages:
        parts = [_stage_optimizer(options, learning_rate, stage) for stage in stages]
        tx = optax.partition(
            dict(enumerate(parts)),
            lambda params: {k: stage_of(stages, k) for k in params},
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
        """The rate of a step, counted from the stage's first."""
        base = learning_rate(step + start) if callable(learning_rate) else learning_rate
        return stage.rate * base

    tx = _unclipped(options, rate)
    return optax.conditionally_mask(tx, partial(_has_started, start)) if start else tx


def _has_started(start: int, step: Any, **extra: Any) -> Any:
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
