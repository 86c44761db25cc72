"""Transfer learning: which stages of a model are trained, when, and how fast.

The *backbone* is the model with `num_classes=0`, the *head* everything else. A *stage*
consists of the modules between two of the features `stem`, `stage1` and so on that the
model sows; in a model that sows none, each module with parameters is a stage. The head
is the last stage. Auxiliary heads learn at the head's rate; with a frozen backbone,
which they cannot help to learn, they are frozen as well.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnn_flax.layers import DropPath
from train.config import Transfer
from train.data import Source
from train.learn.objectives import STAGE, Objective

__all__ = [
    "Layers",
    "Stage",
    "evaluate_on_features",
    "find_layers",
    "freeze_stages",
    "head_logits",
    "plan_stages",
    "stage_of",
    "train_on_features",
    "with_room_for_features",
]


@dataclass(frozen=True)
class Layers:
    """A model's top-level modules, in the order of its forward pass.

    Attributes:
      stages: names of the modules, one tuple per stage; the last is the head.
      entry: name of the module that takes the backbone's output: the head, or the
        dropout before it.
      auxiliary: names of the auxiliary heads, which are called inside the backbone.
    """

    stages: tuple[tuple[str, ...], ...]
    entry: str
    auxiliary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """How a stage is trained.

    Attributes:
      modules: names of the stage's modules.
      rate: learning rate, as a share of the head's.
      start: first step in which the stage is trained; None if it is frozen throughout.
    """

    modules: tuple[str, ...]
    rate: float = 1.0
    start: int | None = 0


def find_layers(model: nn.Module, image_shape: Sequence[int]) -> Layers:
    """Finds a model's stages by tracing it, without computing anything.

    Args:
      model: a module with a field `num_classes`, for which 0 leaves the head out.
      image_shape: (height, width, channels).
    """
    params, calls = _trace(model, image_shape)
    rest, backbone = _trace(model.clone(num_classes=0), image_shape)
    # Modules that the forward pass does not call come first.
    order = [*sorted(set(params) - set(calls)), *calls]
    trunk = [name for name in order if name in backbone or name in rest]
    is_cut = any(calls.values())
    stages: dict[int, list[str]] = {}
    number = 0
    for name in trunk:
        if is_cut:
            number = calls.get(name, 0)
        elif name in params and stages:
            number += 1  # A module without parameters, such as dropout, is not a stage.
        stages.setdefault(number, []).append(name)
    head = tuple(order[order.index(trunk[-1]) + 1 :])
    auxiliary = tuple(name for name in order if name not in (*trunk, *head))
    return Layers((*map(tuple, stages.values()), head), head[0], auxiliary)


def _trace(
    model: nn.Module, image_shape: Sequence[int]
) -> tuple[dict[str, Any], dict[str, int]]:
    """The shapes of a model's parameters, and its modules in call order.

    Each module is mapped to the number of stages that were sown before its call.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    calls: dict[str, int] = {}

    def note(call, args, kwargs, context):
        module = context.module
        if len(module.path) == 1:
            sown = module.parent.variables.get("intermediates", {})
            number = sum(STAGE.fullmatch(name) is not None for name in sown)
            calls.setdefault(module.path[0], number)
        return call(*args, **kwargs)

    def forward(variables, images):
        key = jax.random.key(0)
        with nn.intercept_methods(note):
            return model.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats", "intermediates"],
                rngs={"dropout": key, "drop_path": key},
            )

    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    jax.eval_shape(forward, variables, images)
    return variables["params"], calls


def plan_stages(
    options: Transfer, layers: Layers, steps_per_epoch: int
) -> tuple[Stage, ...]:
    """How each of a model's stages is trained, from the stem to the head.

    Auxiliary heads are a stage of their own, before the head.

    The stage n below the head has the rate `backbone_rate * layer_decay ** n`: Howard
    and Ruder 2018, "Universal language model fine-tuning for text classification",
    https://arxiv.org/abs/1801.06146, section 3.2 (discriminative fine-tuning) and
    section 3.3 (gradual unfreezing).

    Args:
      options: the run's options.
      layers: the model's layers.
      steps_per_epoch: number of steps per epoch.
    """
    *backbone, head = layers.stages
    freezes = options.transfer == "features"
    stages = [Stage(head)]
    if layers.auxiliary:
        stages.append(Stage(layers.auxiliary, start=None if freezes else 0))
    for below, modules in enumerate(reversed(backbone), 1):
        rate = options.backbone_rate * options.layer_decay**below
        start = round(below * options.unfreeze_epochs * steps_per_epoch)
        stages.append(Stage(modules, rate, None if freezes else start))
    return tuple(reversed(stages))


def stage_of(stages: Sequence[Stage], module: str) -> int:
    """The index of a module's stage; the last one for a module in no stage."""
    numbers = (i for i, stage in enumerate(stages) if module in stage.modules)
    return next(numbers, len(stages) - 1)


def freeze_stages(objective: Objective, stages: Sequence[Stage]) -> Objective:
    """Freezes the stages of an objective that are not trained, or not yet.

    Their parameters have zero gradients, and their BatchNorm runs in evaluation mode
    and keeps its statistics bit-equal. Dropout and drop path are off in stages that are
    frozen throughout, and on in those that are unfrozen later.

    Args:
      objective: any objective.
      stages: how the model's stages are trained.
    """
    if all(stage.start == 0 for stage in stages):
        return objective

    def frozen(params, state, batch, key):
        # Whether each stage is trained in this step: a Python boolean, or an array.
        trained = [
            stage.start is not None and (not stage.start or state.step >= stage.start)
            for stage in stages
        ]

        def choose(new, old):
            return {
                k: _select(trained[stage_of(stages, k)], new[k], old[k]) for k in new
            }

        def run_frozen(call, args, kwargs, context):
            module, path = context.module, context.module.path
            is_call = path and context.method_name == "__call__"
            now = trained[stage_of(stages, path[0])] if is_call else True
            if now is True or kwargs.get("use_running_average"):
                return call(*args, **kwargs)
            if now is False and isinstance(module, nn.Dropout | DropPath):
                return args[0]
            if not isinstance(module, nn.BatchNorm):
                return call(*args, **kwargs)
            evaluating = {**kwargs, "use_running_average": True}
            if now is False:
                return call(*args, **evaluating)
            alone = module.clone(parent=None, name=None)
            old: Any = alone.apply(module.variables, *args, **evaluating)
            return jnp.where(now, call(*args, **kwargs), old)

        params = choose(params, jax.lax.stop_gradient(params))
        with nn.intercept_methods(run_frozen):
            loss, (updates, metrics) = objective(params, state, batch, key)
        batch_stats = choose(updates["batch_stats"], state.batch_stats)
        return loss, ({**updates, "batch_stats": batch_stats}, metrics)

    return frozen


def _select(now: bool | jax.Array, new: Any, old: Any) -> Any:
    if isinstance(now, bool):
        return new if now else old
    return jax.tree.map(partial(jnp.where, now), new, old)


def train_on_features(
    objective: Objective, layers: Layers, image_shape: Sequence[int]
) -> Objective:
    """The objective on a batch of cached backbone features.

    Args:
      objective: an objective of one model, with everything but the head frozen.
      layers: the model's layers.
      image_shape: (height, width, channels) of the model's images.

    Returns:
      An objective whose batch has `features`, `[N, F]`. Compiled, it does not compute
      the backbone.
    """

    def on_features(params, state, batch, key):
        images = jnp.zeros((len(batch["features"]), *image_shape))
        with _entering(layers, batch["features"]):
            return objective(params, state, {**batch, "image": images}, key)

    return on_features


def evaluate_on_features(
    step: Callable[[Any, Any], Any], layers: Layers, image_shape: tuple[int, int, int]
) -> Callable[[Any, Any], Any]:
    """The evaluation step on a batch of cached backbone features.

    Args:
      step: an evaluation step from `train.learn.step.make_eval_step`, with `whole`.
      layers: the model's layers.
      image_shape: (height, width, channels) of the model's images.

    Returns:
      A step whose batch has `features`, `[N, F]`; rows of NaN have mask 0.
    """

    def on_features(variables, batch):
        features = batch["features"]
        readable = ~jnp.isnan(features[:, 0])
        images = jnp.zeros((len(features), *image_shape), jnp.uint8)
        with _entering(layers, features):
            mask = batch["mask"] * readable
            return step(variables, {**batch, "image": images, "mask": mask})

    return on_features


def with_room_for_features(source: Source, features: jax.ShapeDtypeStruct) -> Source:
    """The images for a run on cached features, with placeholders for the features.

    A batch has one black pixel and one row of features per image; the placeholders take
    no memory. `source.read` still reads the images themselves.
    """
    black = np.broadcast_to(np.uint8(0), (len(source), 1, 1, source.channels))
    room = np.broadcast_to(np.zeros((), features.dtype), (len(source), *features.shape))
    source = replace(source, images=black, native_size=(1, 1))
    return source.with_columns(features=room)


def head_logits(
    model: nn.Module,
    layers: Layers,
    variables: Mapping[str, Any],
    features: jax.Array,
    image_shape: Sequence[int],
    **arguments: Any,
) -> jax.Array:
    """The head's logits for backbone features.

    Args:
      model: the full model; under `jax.jit` its backbone is not computed.
      layers: the model's layers.
      variables: the model's variables.
      features: backbone features, `[N, F]`.
      image_shape: (height, width, channels) of the model's images.
      **arguments: further arguments of `model.apply`, such as `train` and `rngs`.

    Returns:
      Logits `[N, K]`.
    """
    images = jnp.zeros((len(features), *image_shape))
    with _entering(layers, features):
        logits, _ = model.apply(variables, images, mutable=["batch_stats"], **arguments)
    return logits


def _entering(layers: Layers, features: jax.Array) -> AbstractContextManager[None]:
    """A context in which the module after the backbone takes the features as input.

    The images that the model is applied to are ignored.

    Args:
      layers: the model's layers.
      features: backbone features of N images, `[N, F]`.
    """

    def enter(call, args, kwargs, context):
        is_entry = context.module.path == (layers.entry,)
        if is_entry and context.method_name == "__call__":
            args = (features.reshape(args[0].shape).astype(args[0].dtype), *args[1:])
        return call(*args, **kwargs)

    return nn.intercept_methods(enter)
