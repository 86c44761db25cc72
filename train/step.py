"""The steps of training, evaluation and prediction, as pure functions.

They neither jit nor shard, log or loop: `train.parallel` compiles them for the devices
there are, `train.loop` drives them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct, traverse_util

from train.inputs import Batch
from train.objectives import Objective

__all__ = [
    "TrainState",
    "create_state",
    "in_parts",
    "make_eval_step",
    "make_predict_step",
    "make_train_step",
]

Metrics = dict[str, jax.Array]

# Of four images of 224 px: what most nets make of so many, a processor's caches hold.
_PIXELS = 4 * 224**2

# No image's place in the run: these are below it.
_UNLABELLED = 2**31


@struct.dataclass
class TrainState:
    """All that a step changes, and all that a checkpoint holds.

    Attributes:
      step: number of steps done, int32.
      params: the model's parameters, and the objective's own, where it has some, as
        `objective`.
      batch_stats: the model's running statistics; empty where it has none.
      opt_state: the optimizer's state.
      ema: running means of `variables`, or None.
      memory: what the objective keeps from step to step, or None.
      teacher: the variables of a model that does not learn, or None. Checkpoints do not
        hold them.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any = None
    memory: Any = None
    teacher: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What the model is applied with."""
        params = {k: v for k, v in self.params.items() if k != "objective"}
        return {"params": params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    key: jax.Array,
    *,
    initial: Mapping[str, Any] | None = None,
    ema: bool = False,
    own: Callable[[jax.Array], Any] | None = None,
    memory: Any = None,
    teacher: Any = None,
) -> TrainState:
    """The state before the first step.

    Args:
      model: the model.
      tx: the optimizer.
      image_shape: (height, width, channels).
      key: decides the first parameters.
      initial: variables to begin from; what they lack is drawn.
      ema: whether there are running means of the variables; they begin as these.
      own: draws the objective's own parameters.
      memory: what the objective keeps from step to step, before the first.
      teacher: variables of a model that does not learn.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    if initial:
        drawn: Any = traverse_util.flatten_dict(variables)
        given: Any = traverse_util.flatten_dict(initial)
        flat = {k: given.get(k, v).astype(v.dtype) for k, v in drawn.items()}
        variables = traverse_util.unflatten_dict(flat)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    means = {"params": params, "batch_stats": batch_stats} if ema else None
    if own is not None:
        params = {**params, "objective": own(jax.random.fold_in(key, 1))}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(params),
        # Copies: a step that is given the state takes the memory of all of it.
        ema=jax.tree.map(jnp.copy, means),
        memory=jax.tree.map(jnp.asarray, memory),
        teacher=teacher,
    )


def make_train_step(
    objective: Objective,
    tx: optax.GradientTransformation,
    prepare: Callable[[jax.Array, Batch, jax.Array], Batch],
    *,
    axis: str | None = None,
    accumulation: int = 1,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """Builds the step of training.

    Args:
      objective: one of `train.objectives`.
      tx: the optimizer.
      prepare: augments and normalises: a function of keys, one an image, of a batch,
        and of a key for what is drawn once a batch.
      axis: the mapped axis that the batch is split over under `jax.pmap`; None under
        `jax.jit`, where the batch is whole whatever devices it lies on.
      accumulation: parts that the batch is worked off in, one after the other; each has
        its own batch statistics and dropout.
      ema_decay: of the state's `ema`, where it has one. It is (1 + step) / (10 + step)
        while that is less, so that the first weights are soon forgotten.

    Returns:
      A pure function of the state, a batch and the run's key. The batch has what
      `prepare` takes, and `index`: each image's place in the run, int `[N]`, from which
      its draws follow, so that they do not depend on the devices. With images in
      `unlabelled`, which have a place in a stream of their own, `prepare` takes the
      keys of both. It returns the new state and the batch's means: the objective's
      metrics and `gradient_norm`.
    """
    reduce = partial(jax.lax.pmean, axis_name=axis) if axis else lambda tree: tree
    gradient = jax.grad(objective, has_aux=True)
    if accumulation > 1:
        gradient = _in_parts(gradient, accumulation)

    def step(state, batch, key):
        key = jax.random.fold_in(key, state.step)
        key_images, key_objective, key_batch = jax.random.split(key, 3)
        keys = _image_keys(key_images, batch)
        grads, (changes, metrics) = gradient(
            state.params, state, prepare(keys, batch, key_batch), key_objective
        )
        # The statistics differ only where BatchNorm is local; a checkpoint has one.
        means = (grads, changes["batch_stats"], metrics)
        grads, changes["batch_stats"], metrics = reduce(means)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            **changes,
        )
        if state.ema is not None:
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema = jax.tree.map(
                lambda old, now: old + ((1 - decay) * (now - old)).astype(old.dtype),
                state.ema,
                new.variables,
            )
            new = new.replace(ema=ema)
        return new, {**metrics, "gradient_norm": optax.tree.norm(grads)}

    return step


def _image_keys(key: jax.Array, batch: Batch) -> Any:
    keys = jax.vmap(partial(jax.random.fold_in, key))(batch["index"])
    if "unlabelled" not in batch:
        return keys
    others = _image_keys(jax.random.fold_in(key, _UNLABELLED), batch["unlabelled"])
    return {"labelled": keys, "unlabelled": others}


def _in_parts(gradient: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The mean gradient over `count` parts of the batch, one after the other.

    Part `i` has the rows `i, i + count, ...`: a device's rows of a part are among its
    rows of the batch, so that none has to move.
    """

    def split(rows):
        return rows.reshape(-1, count, *rows.shape[1:]).swapaxes(0, 1)

    def whole(params, state, batch, key):
        def part(carry, xs):
            total, changes = carry
            rows, number = xs
            now = state.replace(**changes)
            key_part = jax.random.fold_in(key, number)
            grads, (changes, metrics) = gradient(params, now, rows, key_part)
            return (jax.tree.map(jnp.add, total, grads), changes), metrics

        before = {"batch_stats": state.batch_stats, "memory": state.memory}
        start = (jax.tree.map(jnp.zeros_like, params), before)
        parts = (jax.tree.map(split, batch), jnp.arange(count))
        (total, changes), metrics = jax.lax.scan(part, start, parts)
        mean = partial(jnp.mean, axis=0)
        grads = jax.tree.map(lambda leaf: leaf / count, total)
        return grads, (changes, jax.tree.map(mean, metrics))

    return whole


def make_predict_step(
    model: nn.Module,
    prepare: Callable[[jax.Array], jax.Array],
    *,
    whole: bool = False,
) -> Callable[[Any, jax.Array], jax.Array]:
    """Builds the step of prediction.

    Args:
      model: gives logits `[N, K]`.
      prepare: normalises a batch of pixels.
      whole: whether all images are computed at once also where parts are faster.

    Returns:
      A pure function of the model's variables and pixels `uint8 [N, H, W, C]`; it
      returns log probabilities `[N, K]`.
    """

    def step(variables, images):
        def apply(images):
            return jnp.asarray(model.apply(variables, prepare(images)))

        return jax.nn.log_softmax(apply(images) if whole else in_parts(apply, images))

    return step


def in_parts(
    function: Callable[[jax.Array], jax.Array], images: jax.Array
) -> jax.Array:
    """What a function makes of images, a few at a time where one CPU computes it.

    There a part's arrays stay in the caches, and the next part has the same memory,
    which the system hands out slowly. Four images of 224 px are a part, or as many
    pixels in others. AlexNet is slower for it, as most of its time goes to reading the
    weights of its head.

    Args:
      function: of `[n, H, W, C]`, for any n; gives an array, a row an image, that
        depends on no other image.
      images: `[N, H, W, C]`.
    """
    size = max(1, _PIXELS // (images.shape[1] * images.shape[2]))
    is_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    if not is_one_cpu or len(images) <= size:
        return function(images)
    return jax.lax.map(lambda image: function(image[None])[0], images, batch_size=size)


def make_eval_step(
    model: nn.Module,
    prepare: Callable[[jax.Array], jax.Array],
    *,
    whole: bool = False,
) -> Callable[[Any, Batch], Metrics]:
    """Builds the step of evaluation.

    Args:
      model: gives logits `[N, K]`.
      prepare: normalises a batch of pixels.
      whole: whether all images are computed at once also where parts are faster.

    Returns:
      A pure function of the model's variables and a batch of `image`, `label` and
      `mask`, 0 where a row only fills the batch. What it returns is an image's own,
      `[N]`, so that any size of batch and number of devices gives the same figures:
      `label` and `mask` as they came; `loss`, the label's negative log probability;
      `prediction`, the most probable class, and `confidence`, its probability; `rank`,
      the number of classes more probable than the label.
    """
    predict = make_predict_step(model, prepare, whole=whole)

    def step(variables, batch):
        log_probs = predict(variables, batch["image"])
        true = jnp.take_along_axis(log_probs, batch["label"][:, None], axis=1)
        return {
            "label": batch["label"],
            "mask": batch["mask"],
            "loss": -true[:, 0],
            "prediction": log_probs.argmax(-1),
            "confidence": jnp.exp(log_probs.max(-1)),
            # Written so that NaN is in nobody's first five.
            "rank": jnp.sum(~(log_probs <= true), axis=-1),
        }

    return step
