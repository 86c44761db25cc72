"""Transfer: which of a model's parts learn, when, and how fast.

A *backbone* is the model with `num_classes=0`, its *head* what the model has beside. A
*stage* is the modules between two of the features `stem`, `stage1` and so on that leave
the model; where it has none such, each module is one. The head is the last stage.
"""

import re
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
from train.objectives import Objective

__all__ = [
    "Layers",
    "Stage",
    "entering",
    "expecting_features",
    "feed",
    "find_layers",
    "head_logits",
    "hold_still",
    "on_features",
    "place",
    "plan",
]

_CUT = re.compile(r"stem|stage\d+")


@dataclass(frozen=True)
class Layers:
    """The modules that lie directly in a model, in the order of its forward pass.

    Attributes:
      stages: their names, a tuple a stage; the last is the head's, auxiliary heads too.
      entry: name of the one that takes what the backbone gives: the head, or the
        dropout before it.
    """

    stages: tuple[tuple[str, ...], ...]
    entry: str


@dataclass(frozen=True)
class Stage:
    """How a stage learns.

    Attributes:
      modules: names of its modules.
      rate: its learning rate, as a share of the head's.
      start: number of the first step that it learns in; None where it never does.
    """

    modules: tuple[str, ...]
    rate: float = 1.0
    start: int | None = 0


def find_layers(model: nn.Module, image_shape: Sequence[int]) -> Layers:
    """A model's stages; nothing is computed.

    Args:
      model: any with a field `num_classes`, of which 0 leaves its head out.
      image_shape: (height, width, channels).
    """
    params, calls = _trace(model, image_shape)
    rest, backbone = _trace(model.clone(num_classes=0), image_shape)
    # What the forward pass does not call is as early as can be.
    order = [*sorted(set(params) - set(calls)), *calls]
    trunk = [name for name in order if name in backbone or name in rest]
    is_cut = any(calls.values())
    stages: dict[int, list[str]] = {}
    number = 0
    for name in trunk:
        if is_cut:
            number = calls.get(name, 0)
        elif name in params and stages:
            number += 1  # What learns nothing, such as dropout, is no stage of its own.
        stages.setdefault(number, []).append(name)
    head = tuple(name for name in order if name not in trunk)
    after = order[order.index(trunk[-1]) + 1 :]
    return Layers((*map(tuple, stages.values()), head), after[0])


def _trace(
    model: nn.Module, image_shape: Sequence[int]
) -> tuple[dict[str, Any], dict[str, int]]:
    """The shapes of a model's parameters, and its modules in the order of their calls.

    Beside each module stands the number of stages that have left the model before it.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    calls: dict[str, int] = {}

    def note(call, args, kwargs, context):
        module = context.module
        if len(module.path) == 1:
            sown = module.parent.variables.get("intermediates", {})
            number = sum(_CUT.fullmatch(name) is not None for name in sown)
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


def plan(options: Transfer, layers: Layers, steps_per_epoch: int) -> tuple[Stage, ...]:
    """How each of a model's stages learns, from the image up.

    A stage that is n below the head has the rate `backbone_rate * layer_decay ** n`:
    Howard and Ruder 2018, "Universal language model fine-tuning for text
    classification", https://arxiv.org/abs/1801.06146, section 3.2 (one factor from a
    layer to the one below) and section 3.3 (unfreezing from the top).

    Args:
      options: the run's.
      layers: the model's.
      steps_per_epoch: of the run.
    """
    stages = []
    for below, modules in enumerate(reversed(layers.stages)):
        rate = options.backbone_rate * options.layer_decay**below if below else 1.0
        start = round(below * options.unfreeze_epochs * steps_per_epoch)
        never = below and options.transfer == "features"
        stages.append(Stage(modules, rate, None if never else start))
    return tuple(reversed(stages))


def place(stages: Sequence[Stage], module: str) -> int:
    """The number of a module's stage; the last for what is in none."""
    numbers = (i for i, stage in enumerate(stages) if module in stage.modules)
    return next(numbers, len(stages) - 1)


def hold_still(objective: Objective, stages: Sequence[Stage]) -> Objective:
    """The objective, with the stages that do not learn (yet) held as they are.

    Their parameters have the gradient 0, their BatchNorm is as in evaluation, and its
    statistics stay, to the bit. Dropout and drop path are off in stages that never
    learn; in those that do not yet they are as they will be.

    Args:
      objective: any.
      stages: the model's.
    """
    if all(stage.start == 0 for stage in stages):
        return objective

    def held(params, state, batch, key):
        # Whether each learns in this step: known before it, or an array.
        learns = [
            stage.start is not None and (not stage.start or state.step >= stage.start)
            for stage in stages
        ]

        def choose(new, old):
            return {k: _select(learns[place(stages, k)], new[k], old[k]) for k in new}

        def still(call, args, kwargs, context):
            module, path = context.module, context.module.path
            is_call = path and context.method_name == "__call__"
            now = learns[place(stages, path[0])] if is_call else True
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
        with nn.intercept_methods(still):
            loss, (changes, metrics) = objective(params, state, batch, key)
        kept = choose(changes["batch_stats"], state.batch_stats)
        return loss, ({**changes, "batch_stats": kept}, metrics)

    return held


def _select(now: bool | jax.Array, new: Any, old: Any) -> Any:
    if isinstance(now, bool):
        return new if now else old
    return jax.tree.map(partial(jnp.where, now), new, old)


def feed(objective: Objective, layers: Layers, image_shape: Sequence[int]) -> Objective:
    """The objective on a batch of features that the backbone gave before.

    Args:
      objective: of the model alone, with all but the head held.
      layers: the model's.
      image_shape: (height, width, channels) of images that the model takes.

    Returns:
      An objective whose batch has `features`, `[N, F]`; nothing of the backbone is
      computed.
    """

    def fed(params, state, batch, key):
        images = jnp.zeros((len(batch["features"]), *image_shape))
        with entering(layers, batch["features"]):
            return objective(params, state, {**batch, "image": images}, key)

    return fed


def on_features(
    step: Callable[[Any, Any], Any], layers: Layers, image_shape: tuple[int, int, int]
) -> Callable[[Any, Any], Any]:
    """The step of evaluation on features that the backbone gave before.

    Args:
      step: of `train.step.make_eval_step`, with `whole`.
      layers: the model's.
      image_shape: (height, width, channels) of images that the model takes.

    Returns:
      A step whose batch has `features`, `[N, F]`; rows of NaN have mask 0.
    """

    def fed(variables, batch):
        features = batch["features"]
        readable = ~jnp.isnan(features[:, 0])
        images = jnp.zeros((len(features), *image_shape), jnp.uint8)
        with entering(layers, features):
            mask = batch["mask"] * readable
            return step(variables, {**batch, "image": images, "mask": mask})

    return fed


def expecting_features(source: Source, features: jax.ShapeDtypeStruct) -> Source:
    """The images as batches of a run on features have them, with nothing in them.

    The pixels are a black one, and there is room for features; neither takes memory.
    The images themselves can still be read, one by one.
    """
    black = np.broadcast_to(np.uint8(0), (len(source), 1, 1, source.channels))
    room = np.broadcast_to(np.zeros((), features.dtype), (len(source), *features.shape))
    beside = {**source.beside, "features": room}
    return replace(source, images=black, native_size=(1, 1), beside=beside)


def head_logits(
    model: nn.Module,
    layers: Layers,
    variables: Mapping[str, Any],
    features: jax.Array,
    image_shape: Sequence[int],
    **arguments: Any,
) -> jax.Array:
    """What the head makes of features that the backbone gave before.

    Args:
      model: the whole model; under `jax.jit` nothing of its backbone is computed.
      layers: its layers.
      variables: its variables.
      features: `[N, F]`.
      image_shape: (height, width, channels) of images that it takes.
      **arguments: what the model is applied with besides, such as `train` and `rngs`.

    Returns:
      Logits `[N, K]`.
    """
    images = jnp.zeros((len(features), *image_shape))
    with entering(layers, features):
        logits, _ = model.apply(variables, images, mutable=["batch_stats"], **arguments)
    return logits


def entering(layers: Layers, features: jax.Array) -> AbstractContextManager[None]:
    """Where it lasts, the module after the backbone takes the features.

    Whatever images the model is run on, nothing that comes of them is used.

    Args:
      layers: the model's.
      features: `[N, F]`, N being the number of the images.
    """

    def enter(call, args, kwargs, context):
        is_entry = context.module.path == (layers.entry,)
        if is_entry and context.method_name == "__call__":
            args = (features.reshape(args[0].shape).astype(args[0].dtype), *args[1:])
        return call(*args, **kwargs)

    return nn.intercept_methods(enter)
