"""Training objectives: their interface, and the forward pass that they share."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from train.learn.rematerialize import rematerialize_stages

__all__ = [
    "OBJECTIVE",
    "REQUIRED_METRICS",
    "STAGE",
    "ForwardPass",
    "Objective",
    "Outputs",
    "accuracy",
    "auxiliary_loss",
    "check_metrics",
    "exact_matches",
    "stage_ends",
    "training_pass",
    "weighted",
]

# Name of the objective's own parameters among the model's. No module of a model has it:
# see `train.learn.step.create_state`.
OBJECTIVE = "<objective>"

# Metrics of every objective: the log, the progress bar and the plots show them.
REQUIRED_METRICS = ("loss", "accuracy")


class Objective(Protocol):
    """A scalar to minimize, as a pure function.

    It is a mean over the batch, differentiated with respect to its first argument.
    Anything else that it needs, such as a teacher's variables, is part of the state:
    arrays in a closure would become constants of the compiled program.
    """

    def __call__(
        self, params: Any, state: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[dict[str, Any], dict[str, jax.Array]]]:
        """Computes the objective on one batch.

        Args:
          params: the parameters to differentiate with respect to.
          state: the `TrainState`.
          batch: what the method's `prepare` returns.
          key: the random key of this step.

        Returns:
          The loss to minimize; the updated fields of the state, `batch_stats` and
          `method_state`; and the metrics, scalars by name. They must include those in
          `REQUIRED_METRICS`: `loss`, of the labelled images in nats, and `accuracy`, in
          [0, 1].
        """
        ...


class Outputs(NamedTuple):
    """What a model outputs in training.

    Attributes:
      logits: `[N, K]`.
      auxiliary: the logits of its auxiliary heads, each `[N, K]`; empty without any.
      batch_stats: the updated running statistics.
      features: the requested intermediates, by name.
    """

    logits: jax.Array
    auxiliary: tuple[jax.Array, ...]
    batch_stats: Any
    features: dict[str, jax.Array]


ForwardPass = Callable[..., Outputs]

# Weight of each auxiliary head's loss: Szegedy et al. 2014,
# https://arxiv.org/abs/1409.4842, section 5.
_AUXILIARY_WEIGHT = 0.3

# Names of the intermediates that a stage ends with, or the stem.
STAGE = re.compile(r"stem|stage\d+")

# Names of the intermediates that are an auxiliary head's logits.
_AUXILIARY = re.compile(r"aux\d+_logits")


def check_metrics(metrics: dict[str, jax.Array]) -> None:
    """Raises `TypeError` if an objective lacks one of `REQUIRED_METRICS`."""
    missing = [name for name in REQUIRED_METRICS if name not in metrics]
    if missing:
        raise TypeError(
            f"An objective must report {' and '.join(REQUIRED_METRICS)}; this one "
            f"lacks {' and '.join(missing)}, and has {', '.join(metrics) or 'none'}."
        )


def training_pass(
    model: nn.Module,
    *,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
    features: Sequence[str] = (),
) -> ForwardPass:
    """The model's forward pass in training mode, with dropout and drop path.

    Auxiliary heads are found by the name under which a model sows their logits into
    "intermediates": `aux1_logits`, `aux2_logits` and so on.

    Args:
      model: a module that returns logits `[N, K]`.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      freeze_bn: whether BatchNorm uses its running statistics and does not update them.
      remat: whether the backward pass computes the model's stages again, one at a time,
        instead of saving what is inside them.
      features: names of intermediates to return as well.

    Returns:
      A function of parameters, a state, images `[N, H, W, C]` and a key. It returns
      `Outputs`.
    """

    def forward(variables, images):
        variables, rngs = variables
        calls = nn.intercept_methods(_frozen) if freeze_bn else nullcontext()
        with calls:
            result: Any = model.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats", "intermediates"],
                rngs=rngs,
            )
        logits, new = result
        sown = new.get("intermediates", {})
        auxiliary = [name for name in sown if _AUXILIARY.fullmatch(name)]
        outputs = Outputs(
            logits,
            tuple(sown[name][0] for name in sorted(auxiliary)),
            new.get("batch_stats", {}),
            {name: sown[name][0] for name in features},
        )
        return outputs, [sown[name][0] for name in stage_ends(sown)]

    def run(params, state, images, key):
        key_dropout, key_drop_path = jax.random.split(key)
        if axis is not None:
            # Drop path knows an image's place in the global batch if the model has
            # the axis name; dropout never does.
            device = jax.lax.axis_index(axis)
            key_dropout = jax.random.fold_in(key_dropout, device)
            if getattr(model, "bn_axis_name", None) is None:
                key_drop_path = jax.random.fold_in(key_drop_path, device)
        variables = state.replace(params=params).variables
        rngs = {"dropout": key_dropout, "drop_path": key_drop_path}
        if remat:
            return rematerialize_stages(forward)((variables, rngs), images)
        return forward((variables, rngs), images)[0]

    return run


def stage_ends(sown: Iterable[str]) -> list[str]:
    """Names of the intermediates that end a stage; without stages, of all."""
    names = [name for name in sown if not _AUXILIARY.fullmatch(name)]
    stages = [name for name in names if STAGE.fullmatch(name)]
    return stages or [name for name in names if name != "pre_logits"]


def auxiliary_loss(loss: Callable[[Any], jax.Array], heads: Sequence[Any]) -> jax.Array:
    """The weighted losses of a model's auxiliary heads, which learn what its head does.

    Args:
      loss: the loss of the head, as a function of its logits `[N, K]` or outputs.
      heads: the same of each auxiliary head.

    Returns:
      0.3 times each loss, summed, as in section 5 of Szegedy et al. 2014
      (https://arxiv.org/abs/1409.4842); 0 without auxiliary heads.
    """
    return _AUXILIARY_WEIGHT * sum(map(loss, heads), start=jnp.zeros(()))


def weighted(weight: float, loss: Any) -> jax.Array:
    """`weight * loss`; with weight 0 it is 0 even if the loss is infinite."""
    return weight * loss if weight else jnp.zeros(())


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of the images whose most probable class is the label.

    Args:
      logits: `[N, K]`.
      labels: classes, int `[N]`, or probabilities or logits `[N, K]`.
    """
    classes = labels if labels.ndim == 1 else labels.argmax(-1)
    return jnp.mean(logits.argmax(-1) == classes)


def exact_matches(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Share of the images whose classes are all right, and no other one is taken.

    Args:
      logits: `[N, K]`; a class is taken where its logit is above 0.
      targets: 1 for the classes of an image and 0 for others, `[N, K]`; 1 is above 0.5.
    """
    return jnp.mean(jnp.all((logits > 0) == (targets > 0.5), axis=-1))


def _frozen(call, args, kwargs, context):
    """Calls a module's method, with BatchNorm in evaluation mode."""
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
        kwargs = {**kwargs, "use_running_average": True}
    return call(*args, **kwargs)
