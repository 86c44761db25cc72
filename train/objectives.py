"""What training makes small.

An objective is a function `(params, state, batch, key) -> loss, (changes, metrics)`. It
is a mean over the batch, and is differentiated by its first argument; whatever else it
needs, such as a teacher, is part of the state, never a closure over arrays, which would
become constants of the compiled program. `changes` are the fields of the state that the
pass has changed: `batch_stats` and `memory`.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnn_flax.losses import cross_entropy

__all__ = ["Objective", "Pass", "accuracy", "supervised", "training_pass"]

Objective = Callable[..., tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]
Pass = Callable[..., tuple[jax.Array, Any, dict[str, jax.Array]]]


def training_pass(
    model: nn.Module,
    *,
    axis: str | None = None,
    freeze_bn: bool = False,
    features: Sequence[str] = (),
) -> Pass:
    """The model as it is while it learns, with all its noise.

    Args:
      model: gives logits `[N, K]`.
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
      freeze_bn: whether BatchNorm uses its running statistics, and keeps them.
      features: names of intermediates that are wanted beside.

    Returns:
      A function of parameters, a state, images `[N, H, W, C]` and a key. It returns the
      logits, the new statistics, and the features by name.
    """
    collections = ["batch_stats", "intermediates"] if features else ["batch_stats"]

    def run(params, state, images, key):
        key_dropout, key_drop_path = jax.random.split(key)
        if axis is not None:
            # Drop path knows the image's place in the global batch, dropout does not.
            place = jax.lax.axis_index(axis)
            key_dropout = jax.random.fold_in(key_dropout, place)
            if getattr(model, "bn_axis_name", None) is None:  # Neither then.
                key_drop_path = jax.random.fold_in(key_drop_path, place)
        calls = nn.intercept_methods(_frozen) if freeze_bn else nullcontext()
        with calls:
            result: Any = model.apply(
                state.replace(params=params).variables,
                images,
                train=True,
                mutable=collections,
                rngs={"dropout": key_dropout, "drop_path": key_drop_path},
            )
        logits, new = result
        found = {name: new["intermediates"][name][0] for name in features}
        return logits, new.get("batch_stats", {}), found

    return run


def supervised(
    model: nn.Module,
    *,
    label_smoothing: float = 0.0,
    axis: str | None = None,
    freeze_bn: bool = False,
) -> Objective:
    """Cross entropy with the labels.

    Args:
      model: gives logits `[N, K]`.
      label_smoothing: share of each label that is spread evenly, in [0, 1].
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
      freeze_bn: whether BatchNorm uses its running statistics, and keeps them.

    Returns:
      The objective. Its batch has `image` float `[N, H, W, C]` and `label`, classes int
      `[N]` or probabilities `[N, K]`; its metrics are `loss`, in nats, and `accuracy`.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn)

    def objective(params, state, batch, key):
        logits, batch_stats, _ = run(params, state, batch["image"], key)
        loss = cross_entropy(logits, batch["label"], label_smoothing)
        changes = {"batch_stats": batch_stats, "memory": state.memory}
        metrics = {"loss": loss, "accuracy": accuracy(logits, batch["label"])}
        return loss, (changes, metrics)

    return objective


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of the images whose most probable class is the label's.

    Args:
      logits: `[N, K]`.
      labels: classes, int `[N]`, or probabilities `[N, K]`.
    """
    classes = labels if labels.ndim == 1 else labels.argmax(-1)
    return jnp.mean(logits.argmax(-1) == classes)


def _frozen(call, args, kwargs, context):
    """Calls a module's method; a BatchNorm's as in evaluation."""
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
        kwargs = {**kwargs, "use_running_average": True}
    return call(*args, **kwargs)
