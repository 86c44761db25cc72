"""What training makes small.

An objective is a function `(params, state, batch, key) -> loss, (statistics, metrics)`.
It is a mean over the batch, and is differentiated by its first argument;
whatever else it needs, such as a teacher, is part of the state, never a closure over
arrays, which would become constants of the compiled program.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnn_flax.losses import cross_entropy

__all__ = ["Objective", "supervised"]

Objective = Callable[..., tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]


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

    def objective(params, state, batch, key):
        key_dropout, key_drop_path = jax.random.split(key)
        if axis is not None:
            # Drop path knows the image's place in the global batch, dropout does not.
            place = jax.lax.axis_index(axis)
            key_dropout = jax.random.fold_in(key_dropout, place)
            if getattr(model, "bn_axis_name", None) is None:  # Neither then.
                key_drop_path = jax.random.fold_in(key_drop_path, place)
        calls = nn.intercept_methods(_frozen) if freeze_bn else nullcontext()
        with calls:
            logits, new = model.apply(
                {**state.variables, "params": params},
                batch["image"],
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key_dropout, "drop_path": key_drop_path},
            )
        labels = batch["label"]
        loss = cross_entropy(logits, labels, label_smoothing)
        classes = labels if labels.ndim == 1 else labels.argmax(-1)
        accuracy = jnp.mean(logits.argmax(-1) == classes)
        statistics = new.get("batch_stats", {})
        return loss, (statistics, {"loss": loss, "accuracy": accuracy})

    return objective


def _frozen(call, args, kwargs, context):
    """Calls a module's method; a BatchNorm's as in evaluation."""
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
        kwargs = {**kwargs, "use_running_average": True}
    return call(*args, **kwargs)
