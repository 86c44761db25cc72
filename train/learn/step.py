"""The steps of training, evaluation and prediction, as pure functions.

They do not jit, shard, log or loop: `train.learn.parallel` compiles them for the
devices, and `train.run.loop` runs them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct, traverse_util

from cnn_flax.losses import binary_cross_entropy
from cnn_flax.prediction import in_parts
from train.learn.inputs import Batch
from train.learn.objectives import OBJECTIVE, Objective, check_metrics

__all__ = [
    "TrainState",
    "create_state",
    "evaluated",
    "make_eval_step",
    "make_predict_step",
    "make_train_step",
]

Metrics = dict[str, jax.Array]

# Folded into the key of the unlabelled images; indices of images are smaller.
_UNLABELLED = 2**31


@struct.dataclass
class TrainState:
    """Everything that a step updates and a checkpoint holds.

    Attributes:
      step: number of completed steps, int32.
      params: the model's parameters; those of the objective, if any, are in
        `params[OBJECTIVE]`.
      batch_stats: the model's running statistics; empty if it has none.
      opt_state: the optimizer's state.
      ema: exponential moving average of `variables`, or None.
      method_state: what the objective carries from step to step, or None.
      teacher: the variables of a frozen teacher, or None; not in checkpoints.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any = None
    method_state: Any = None
    teacher: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """The model's variables, as `model.apply` takes them."""
        params = {k: v for k, v in self.params.items() if k != OBJECTIVE}
        return {"params": params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    key: jax.Array,
    *,
    initial: Mapping[str, Any] | None = None,
    ema: bool = False,
    init_params: Callable[[jax.Array], Any] | None = None,
    method_state: Any = None,
    teacher: Any = None,
) -> TrainState:
    """The state before the first step.

    Args:
      model: the model.
      tx: the optimizer.
      image_shape: (height, width, channels).
      key: key of the random initialization.
      initial: variables to start from; missing ones are initialized at random.
      ema: whether to keep a moving average of the variables, which starts at these.
      init_params: initializer of the objective's own parameters.
      method_state: the initial value of what the objective carries from step to step.
      teacher: variables of a frozen teacher.

    Raises:
      ValueError: if a module of the model has the name that is reserved for the
        objective's own parameters.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    if OBJECTIVE in variables["params"]:
        raise ValueError(f"{OBJECTIVE!r} is reserved: give that module another name.")
    if initial:
        random: Any = traverse_util.flatten_dict(variables)
        loaded: Any = traverse_util.flatten_dict(initial)
        flat = {k: loaded.get(k, v).astype(v.dtype) for k, v in random.items()}
        variables = traverse_util.unflatten_dict(flat)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    averages = {"params": params, "batch_stats": batch_stats} if ema else None
    if init_params is not None:
        params = {**params, OBJECTIVE: init_params(jax.random.fold_in(key, 1))}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(params),
        # Copies, because a step donates all buffers of its state.
        ema=jax.tree.map(jnp.copy, averages),
        method_state=jax.tree.map(jnp.asarray, method_state),
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
    """Builds the training step.

    Args:
      objective: the objective to minimize: see `train.learn.objectives.Objective`.
      tx: the optimizer.
      prepare: augments and normalises; a function of keys, one per image, a batch, and
        a key for draws that are made once per batch.
      axis: mapped axis that the batch is split over under `jax.pmap`; None under
        `jax.jit`, where the batch is global on any devices.
      accumulation: number of parts that the batch is processed in, one after the other;
        each has its own batch statistics and dropout.
      ema_decay: decay of the state's `ema`, if it has one. The decay is (1 + step) /
        (10 + step) while that is less, so that the first weights are soon forgotten.

    Returns:
      A pure function of the state, a batch and the run's key. The batch has what
      `prepare` takes, and `index`, int `[N]`: each image's position in the stream of
      training images. The random draws of an image follow from it, so that they do not
      depend on the devices. If the batch has images in `unlabelled`, with an `index` of
      their own, `prepare` takes the keys `labelled` and `unlabelled`. The function
      returns the new state, and the metrics: those of the objective, as means over the
      batch, and `gradient_norm`.
    """
    reduce = partial(jax.lax.pmean, axis_name=axis) if axis else lambda tree: tree
    gradient = jax.grad(objective, has_aux=True)
    if accumulation > 1:
        gradient = _in_parts(gradient, accumulation)

    def step(state, batch, key):
        key = jax.random.fold_in(key, state.step)
        key_images, key_objective, key_batch = jax.random.split(key, 3)
        keys = _image_keys(key_images, batch)
        grads, (fields, metrics) = gradient(
            state.params, state, prepare(keys, batch, key_batch), key_objective
        )
        check_metrics(metrics)
        # Statistics differ between devices only if BatchNorm is local; the state has
        # one copy.
        means = (grads, fields["batch_stats"], metrics)
        grads, fields["batch_stats"], metrics = reduce(means)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            **fields,
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
    key_unlabelled = jax.random.fold_in(key, _UNLABELLED)
    unlabelled = _image_keys(key_unlabelled, batch["unlabelled"])
    return {"labelled": keys, "unlabelled": unlabelled}


def _in_parts(gradient: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The mean gradient over `count` parts of the batch, one after the other.

    Part `i` has the rows `i, i + count, ...`: each device's rows of a part are already
    on that device, so that no row has to move.
    """

    def split(rows):
        return rows.reshape(-1, count, *rows.shape[1:]).swapaxes(0, 1)

    def accumulated(params, state, batch, key):
        def part(carry, xs):
            total, fields = carry
            rows, number = xs
            key_part = jax.random.fold_in(key, number)
            grads, (fields, metrics) = gradient(
                params, state.replace(**fields), rows, key_part
            )
            return (jax.tree.map(jnp.add, total, grads), fields), metrics

        fields = {"batch_stats": state.batch_stats, "method_state": state.method_state}
        start = (jax.tree.map(jnp.zeros_like, params), fields)
        parts = (jax.tree.map(split, batch), jnp.arange(count))
        (total, fields), metrics = jax.lax.scan(part, start, parts)
        mean = partial(jnp.mean, axis=0)
        grads = jax.tree.map(lambda leaf: leaf / count, total)
        return grads, (fields, jax.tree.map(mean, metrics))

    return accumulated


def make_predict_step(
    model: nn.Module,
    prepare: Callable[[jax.Array], jax.Array],
    *,
    whole: bool = False,
    multi_label: bool = False,
) -> Callable[[Any, jax.Array], jax.Array]:
    """Builds the prediction step.

    Args:
      model: a module that returns logits `[N, K]`.
      prepare: normalises a batch of pixels.
      whole: whether to compute the batch in one piece even if parts are faster.
      multi_label: whether images have several classes each.

    Returns:
      A pure function of the model's variables and pixels `uint8 [N, H, W, C]`. It
      returns log probabilities `[N, K]`: of one class per image, or with `multi_label`
      of each class.
    """
    predict = _logits(model, prepare, whole)
    log_probs = jax.nn.log_sigmoid if multi_label else jax.nn.log_softmax
    return lambda variables, images: log_probs(predict(variables, images))


def _logits(
    model: nn.Module, prepare: Callable[[jax.Array], jax.Array], whole: bool
) -> Callable[[Any, jax.Array], jax.Array]:
    def apply(variables, images):
        return jnp.asarray(model.apply(variables, prepare(images)))

    return apply if whole else partial(in_parts, apply)


def make_eval_step(
    model: nn.Module,
    prepare: Callable[[jax.Array], jax.Array],
    *,
    whole: bool = False,
    multi_label: bool = False,
    temperature: float = 1.0,
) -> Callable[[Any, Batch], Metrics]:
    """Builds the evaluation step.

    Args:
      model: a module that returns logits `[N, K]`.
      prepare: normalises a batch of pixels.
      whole: whether to compute the batch in one piece even if parts are faster.
      multi_label: whether images have several classes each.
      temperature: divides the logits, where images have one class each.

    Returns:
      A pure function of the model's variables and a batch of `image`, `label` and
      `mask`, which is 0 for a row that pads the batch. It returns values per image,
      `[N]`, so that the figures do not depend on the batch size or the number of
      devices: `label` and `mask` unchanged; `loss`, the label's negative log
      probability; `prediction`, the most probable class, and `confidence`, its
      probability; `rank`, the number of classes that are more probable than the label.
      With `multi_label` they are `label`, `mask`, `probability` `[N, K]`, and `loss`,
      the mean negative log probability of what the classes are, an image's or not.
    """
    if multi_label:
        return _multi_label_step(_logits(model, prepare, whole))
    predict = _logits(model, prepare, whole)

    def step(variables, batch):
        logits = predict(variables, batch["image"])
        return evaluated(jax.nn.log_softmax(logits / temperature), batch)

    return step


def evaluated(log_probs: jax.Array, batch: Batch) -> Metrics:
    """The values per image of `make_eval_step`, from log probabilities `[N, K]`."""
    true = jnp.take_along_axis(log_probs, batch["label"][:, None], axis=1)
    return {
        "label": batch["label"],
        "mask": batch["mask"],
        "loss": -true[:, 0],
        "prediction": log_probs.argmax(-1),
        "confidence": jnp.exp(log_probs.max(-1)),
        # Written so that NaN is never among the top five.
        "rank": jnp.sum(~(log_probs <= true), axis=-1),
    }


def _multi_label_step(
    predict: Callable[[Any, jax.Array], jax.Array],
) -> Callable[[Any, Batch], Metrics]:
    def step(variables, batch):
        logits, targets = predict(variables, batch["image"]), batch["label"]
        loss = jax.vmap(lambda x, t: binary_cross_entropy(x[None], t[None]))
        return {
            "label": targets,
            "mask": batch["mask"],
            "loss": loss(logits, targets),
            "probability": jax.nn.sigmoid(logits),
        }

    return step
