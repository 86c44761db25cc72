"""What a config asks to be computed: data, model, state and steps, ready to compile."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from train.config import Config
from train.data import Source, steps_per_epoch
from train.errors import UserError
from train.images import evaluation_images, training_images
from train.initial import initial_variables
from train.inputs import Batch, train_inputs
from train.objectives import supervised
from train.optimizer import make_optimizer, make_schedule
from train.parallel import (
    AXIS,
    Placement,
    by_device,
    choose_devices,
    compile_step,
    mapped,
)
from train.record import build_model, describe, over_axis, pixel_inputs
from train.step import (
    Metrics,
    TrainState,
    create_state,
    make_eval_step,
    make_train_step,
)

__all__ = [
    "Program",
    "build",
    "compile_eval_step",
    "compile_steps",
    "compile_train_step",
]

TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]
EvalStep = Callable[[Any, Batch], Metrics]


@dataclass(frozen=True)
class Program:
    """A run, before anything is computed.

    Attributes:
      record: what `config.json` says of it.
      train: the images to learn from.
      test: the images to be judged on.
      steps_per_epoch: full batches in `train`.
      steps: of the whole run.
      placement: where arrays lie.
      key: the run's, for every random draw of its steps.
      schedule: the learning rate of a step, which counts from 0.
      initial: loads the weights to begin from, once; none without `--init`.
      init: makes the state before the first step, of these weights.
      shapes: of that state, with shardings.
      train_step: of `train.step`, not compiled.
      eval_step: of `train.step`, not compiled.
    """

    record: dict[str, Any]
    train: Source
    test: Source
    steps_per_epoch: int
    steps: int
    placement: Placement
    key: jax.Array
    schedule: Callable[[jax.typing.ArrayLike], jax.Array]
    initial: Callable[[], Any]
    init: Callable[[], TrainState]
    shapes: TrainState
    train_step: TrainStep
    eval_step: EvalStep

    @property
    def batch_options(self) -> dict[str, Any]:
        """Of the batches for training."""
        fields = self.record["input"]
        return {
            "batch_size": self.record["config"]["input"]["batch_size"],
            "image_size": fields["image_size"],
            "channels": fields["channels"],
        }

    @property
    def train_options(self) -> dict[str, Any]:
        """The same for training, where images may be larger, to be cut."""
        options, fields = self.batch_options, self.record["config"]["input"]
        size = fields["load_size"] or fields["train_size"] or options["image_size"]
        return {**options, "image_size": size}

    @property
    def eval_split(self) -> str:
        """What the images to be judged on are called."""
        return self.record["config"]["selection"]["eval_split"]

    @property
    def eval_options(self) -> dict[str, Any]:
        """The same for evaluation, which has no more images in memory than training."""
        parts = self.record["config"]["optimization"]["gradient_accumulation"]
        options = self.batch_options
        return {**options, "batch_size": options["batch_size"] // parts}

    @property
    def parameters(self) -> int:
        """Number of the model's parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes.params))

    @property
    def bytes(self) -> int:
        """Size of the state, and so about that of a checkpoint."""
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.shapes))

    @property
    def headline(self) -> str:
        """What is to be run, in a line."""
        machine = self.record["machine"]
        init = self.record["config"]["network"]["init"]
        start = f" ({init} but for the head)" if init else ""
        return (
            f"{self.record['model']['name']}{start}, {self.parameters:,} parameters, "
            f"on {len(self.train):,} images of {self.train.spec} "
            f"({len(self.test):,} for {self.eval_split}), "
            f"{machine['devices']} x {machine['device']}"
        )


def build(
    config: Config, recipe: str = "", images: tuple[Source, Source] | None = None
) -> Program:
    """Opens the data and puts the steps together; computes and writes nothing.

    Args:
      config: the run's.
      recipe: the name of the recipe that it is of.
      images: to learn from and to be judged on; None opens those of the config.

    Raises:
      SourceError: if the data cannot be used.
      UserError: if the model or the devices do not fit the config.
    """
    options = config.optimization
    placement = Placement(choose_devices(config.spread.devices))
    placement.check(
        config.input.batch_size, options.gradient_accumulation, config.augment.pairs
    )
    train, test = images or (training_images(config), evaluation_images(config))
    record = describe(config, recipe, train)
    model = build_model(record)

    per_epoch = steps_per_epoch(train, config.input.batch_size)
    steps = config.epochs * per_epoch
    schedule = make_schedule(options, per_epoch, steps)
    tx = make_optimizer(options, schedule)

    key_init, key_run = jax.random.split(jax.random.key(config.seed))
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    shape, ema = (size, size, channels), options.ema_decay > 0
    init = partial(create_state, model, tx, shape, key_init, ema=ema)
    try:
        shapes = jax.eval_shape(init)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{config.network.model} cannot be built for images of {size} x {size} x "
            f"{channels}: {error}"
        ) from error

    initial = cache(partial(initial_variables, config.network, channels, shapes))
    start = jax.jit(init, out_shardings=placement.whole)
    mean, std = record["input"]["mean"], record["input"]["std"]
    axis = AXIS if config.spread.parallel == "pmap" else None
    if config.spread.bn == "global":
        model = over_axis(model, axis)
    prepare = train_inputs(
        config.augment,
        size=config.input.trained_size,
        mean=mean,
        std=std,
        num_classes=len(record["class_names"]),
    )
    if axis is None:
        prepare = by_device(prepare, placement)
    train_step = make_train_step(
        supervised(
            model,
            label_smoothing=options.label_smoothing,
            axis=axis,
            freeze_bn=options.freeze_bn,
        ),
        tx,
        prepare,
        axis=axis,
        accumulation=options.gradient_accumulation,
        ema_decay=options.ema_decay,
    )
    if axis is not None:
        train_step = mapped(train_step, placement.devices)
    return Program(
        record=record,
        train=train,
        test=test,
        steps_per_epoch=per_epoch,
        steps=steps,
        placement=placement,
        key=jax.device_put(key_run, placement.whole),
        schedule=schedule,
        initial=initial,
        init=lambda: start(initial=initial()),
        shapes=placement.shapes(shapes, placement.whole),
        train_step=train_step,
        eval_step=make_eval_step(model, pixel_inputs(record)),
    )


def compile_steps(program: Program) -> tuple[TrainStep, EvalStep]:
    """Compiles both steps, the slow part of a start."""
    return compile_train_step(program), compile_eval_step(program)


def compile_train_step(program: Program) -> TrainStep:
    """Compiles the step of training; it takes the memory of the state it is given."""
    placement = program.placement
    batch = _batch_shapes(program.train_options)
    key = placement.shapes(program.key, placement.whole)
    return compile_step(
        program.train_step,
        (program.shapes, placement.shapes(batch, placement.split), key),
        out=placement.whole,
        donate=(0,),
    )


def compile_eval_step(program: Program) -> EvalStep:
    """Compiles the step of evaluation."""
    placement = program.placement
    batch = _batch_shapes(program.eval_options)
    batch["mask"] = jax.ShapeDtypeStruct(batch["label"].shape, np.float32)
    return compile_step(
        program.eval_step,
        (program.shapes.variables, placement.shapes(batch, placement.split)),
        out=placement.split,
    )


def _batch_shapes(options: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    batch_size, size, channels = options.values()
    return {
        "image": jax.ShapeDtypeStruct((batch_size, size, size, channels), np.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), np.int32),
        "index": jax.ShapeDtypeStruct((batch_size,), np.int32),
    }
