"""What a config asks to be computed: data, model, state and steps, ready to compile."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from train.config import Config, Transfer
from train.data import Source, steps_per_epoch
from train.errors import UserError
from train.forgetting import beside_the_backbone, old_task, open_old
from train.images import (
    evaluation_images,
    reading,
    training_images,
    unlabelled_images,
)
from train.initial import initial_variables
from train.inputs import (
    Batch,
    Prepare,
    random_changes,
    train_inputs,
    two_streams,
    two_views,
)
from train.methods import make_method
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
from train.teacher import Teacher, expecting_answers, open_teacher
from train.transfer import (
    Layers,
    Stage,
    expecting_features,
    feed,
    find_layers,
    hold_still,
    on_features,
    plan,
)

__all__ = [
    "Program",
    "build",
    "compile_eval_step",
    "compile_steps",
    "compile_train_step",
    "train_step_shapes",
]

TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]
EvalStep = Callable[[Any, Batch], Metrics]


@dataclass(frozen=True)
class Program:
    """A run, before anything is computed.

    Attributes:
      record: what `config.json` says of it.
      train: the images to learn from.
      unlabelled: the images without labels beside them, or None.
      test: the images to be judged on.
      teacher: the model to learn from, or None.
      features: what the backbone gives for an image, `[F]`, where it does so once, and
        batches have that in the place of images; else None.
      steps_per_epoch: full batches in `train`, or as many as the config says.
      steps: of the whole run.
      placement: where arrays lie.
      key: the run's, for every random draw of its steps.
      schedule: the learning rate of a step, which counts from 0.
      initial: loads the weights to begin from, once; none without `--init`.
      hold: puts the teacher into a state that comes from a checkpoint.
      init: makes the state before the first step, of these weights.
      shapes: of that state, with shardings.
      train_step: of `train.step`, not compiled.
      eval_step: of `train.step`, not compiled.
    """

    record: dict[str, Any]
    train: Source
    unlabelled: Source | None
    test: Source
    teacher: Teacher | None
    features: jax.ShapeDtypeStruct | None
    steps_per_epoch: int
    steps: int
    placement: Placement
    key: jax.Array
    schedule: Callable[[jax.typing.ArrayLike], jax.Array]
    initial: Callable[[], Any]
    hold: Callable[[TrainState], TrainState]
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
            "image_size": 1 if self.features else fields["image_size"],
            "channels": fields["channels"],
        }

    @property
    def train_options(self) -> dict[str, Any]:
        """The same for training, where images may be larger, to be cut."""
        options, fields = self.batch_options, self.record["config"]["input"]
        if self.features:
            return options
        size = fields["load_size"] or fields["train_size"] or options["image_size"]
        return {**options, "image_size": size}

    @property
    def unlabelled_options(self) -> dict[str, Any]:
        """The same for the images without labels."""
        options, fields = self.train_options, self.record["config"]["unlabelled"]
        return {**options, "batch_size": fields["ratio"] * options["batch_size"]}

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

    def reading(self, config: Config, *, training: bool = False) -> dict[str, Any]:
        """How the batches' images are read; see `train.images.reading`."""
        return {} if self.features else reading(config, training=training)

    @property
    def parameters(self) -> int:
        """Number of the model's parameters."""
        return sum(x.size for x in jax.tree.leaves(self.shapes.variables["params"]))

    @property
    def bytes(self) -> int:
        """Size of the state, and so about that of a checkpoint."""
        saved = jax.tree.leaves(dataclasses.replace(self.shapes, teacher=None))
        return sum(x.size * x.dtype.itemsize for x in saved)

    @property
    def headline(self) -> str:
        """What is to be run, in a line."""
        machine = self.record["machine"]
        network = self.record["config"]["network"]
        init, head = network["init"], network["init_head"]
        start = f" ({init}{'' if head else ' but for the head'})" if init else ""
        others = ""
        if self.teacher is not None:
            start += f" (taught by {self.teacher.spec})"
        if self.unlabelled is not None:
            spec = self.unlabelled.spec
            others = f"and {len(self.unlabelled):,} without labels of {spec} "
        return (
            f"{self.record['model']['name']}{start}, {self.parameters:,} parameters, "
            f"on {len(self.train):,} images of {self.train.spec} {others}"
            f"({len(self.test):,} for {self.eval_split}), "
            f"{machine['devices']} x {machine['device']}"
        )


def build(
    config: Config,
    recipe: str = "",
    images: tuple[Source, Source] | None = None,
    unlabelled: Source | None = None,
    opened: Source | None = None,
) -> Program:
    """Opens the data and puts the steps together; computes and writes nothing.

    Args:
      config: the run's.
      recipe: the name of the recipe that it is of.
      images: to learn from and to be judged on; None opens those of the config.
      unlabelled: the images without labels; None opens those of the config.
      opened: the set of these, before pseudo-labels, where it is open already.

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
    if unlabelled is None:
        unlabelled = unlabelled_images(config, train.class_names, opened)
    record = describe(config, recipe, train)
    model = build_model(record)
    teacher = _open_teacher(config, record, train)
    if teacher is not None and _is_lwf(config):
        record["old_task"] = old_task(teacher)
    if teacher is not None and config.distillation.cache_teacher:
        if changes := random_changes(config):
            raise UserError(
                "--cache-teacher keeps one answer to each image, and these flags "
                f"change it at random: {', '.join(changes)}."
            )
        answer = teacher.answer(config.input.trained_size)
        train = expecting_answers(train, answer)
        if unlabelled is not None:
            unlabelled = expecting_answers(unlabelled, answer)

    per_epoch = config.epoch_steps or steps_per_epoch(train, config.input.batch_size)
    steps = config.epochs * per_epoch
    schedule = make_schedule(options, per_epoch, steps)

    key_init, key_run = jax.random.split(jax.random.key(config.seed))
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    with _fitting(config.network.model, (size, size, channels)):
        layers, stages = _stages(config, model, (size, size, channels), per_epoch)
    tx = make_optimizer(options, schedule, stages)
    axis = AXIS if config.spread.parallel == "pmap" else None
    learner = over_axis(model, axis) if config.spread.bn == "global" else model
    method = make_method(
        config,
        learner,
        record=record,
        axis=axis,
        unlabelled=unlabelled,
        teacher=teacher,
        layers=layers,
        steps_per_epoch=per_epoch,
    )
    init = partial(
        create_state,
        model,
        tx,
        (size, size, channels),
        key_init,
        ema=options.ema_decay > 0,
        own=method.own,
        memory=method.memory,
    )
    with _fitting(config.network.model, (size, size, channels)):
        shapes = jax.eval_shape(init)

    initial = cache(partial(initial_variables, config.network, channels, shapes))
    start = jax.jit(init, out_shardings=placement.whole)
    asked = None
    if teacher is not None and not config.distillation.cache_teacher:
        asked = teacher.variables
    shapes = dataclasses.replace(shapes, teacher=asked)
    hold = partial(_hold, asked, placement)
    objective = hold_still(method.objective, stages)
    prepare = _make_prepare(config, record, unlabelled is not None)
    eval_step = make_eval_step(model, pixel_inputs(record))
    features = None
    if layers and _has_features(config):
        shape = (size, size, channels)
        features = _backbone_gives(model, shapes, shape)
        train, test = (expecting_features(s, features) for s in (train, test))
        objective = feed(objective, layers, shape)
        # A batch's features are of all its images.
        eval_step = make_eval_step(model, pixel_inputs(record), whole=True)
        eval_step = on_features(eval_step, layers, shape)
        prepare = _as_they_are
    if axis is None:
        prepare = by_device(prepare, placement)
    train_step = make_train_step(
        objective,
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
        unlabelled=unlabelled,
        test=test,
        teacher=teacher,
        features=features,
        steps_per_epoch=per_epoch,
        steps=steps,
        placement=placement,
        key=jax.device_put(key_run, placement.whole),
        schedule=schedule,
        initial=initial,
        hold=hold,
        init=lambda: hold(start(initial=initial())),
        shapes=placement.shapes(shapes, placement.whole),
        train_step=train_step,
        eval_step=eval_step,
    )


@contextlib.contextmanager
def _fitting(name: str, image_shape: tuple[int, int, int]) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        shape = " x ".join(map(str, image_shape))
        raise UserError(
            f"{name} cannot be built for images of {shape}: {error}"
        ) from error


def _stages(
    config: Config,
    model: nn.Module,
    image_shape: tuple[int, int, int],
    steps_per_epoch: int,
) -> tuple[Layers | None, tuple[Stage, ...]]:
    """The model's layers and how they learn, where a flag of transfer needs them."""
    if config.transfer == Transfer():
        return None, ()
    layers = find_layers(model, image_shape)
    learning = beside_the_backbone(layers) if _is_lwf(config) else layers
    return layers, plan(config.transfer, learning, steps_per_epoch)


def _is_lwf(config: Config) -> bool:
    return config.transfer.transfer == "lwf"


def _has_features(config: Config) -> bool:
    """Whether an image's features are the same in every epoch, and all there is."""
    return (
        config.transfer.transfer == "features"
        and not random_changes(config)
        and not config.distillation.teacher
        and not config.unlabelled.unlabelled
    )


def _backbone_gives(
    model: nn.Module, shapes: TrainState, image_shape: tuple[int, int, int]
) -> jax.ShapeDtypeStruct:
    images = jnp.zeros((1, *image_shape))
    features: Any = jax.eval_shape(
        model.clone(num_classes=0).apply, shapes.variables, images
    )
    return jax.ShapeDtypeStruct(features.shape[1:], features.dtype)


def _as_they_are(keys: Any, batch: Batch, key: Any) -> Batch:
    return batch


def _open_teacher(
    config: Config, record: dict[str, Any], train: Source
) -> Teacher | None:
    if _is_lwf(config):
        return open_old(config.network, record)
    if not config.distillation.teacher:
        return None
    return open_teacher(
        config.distillation.teacher,
        train,
        size=config.input.trained_size,
        channels=record["input"]["channels"],
        dtype=config.network.dtype,
    )


def _hold(variables: Any, placement: Placement, state: TrainState) -> TrainState:
    # Copies: a step that is given the state takes the memory of all of it.
    copy = jax.jit(partial(jax.tree.map, jnp.copy), out_shardings=placement.whole)
    return dataclasses.replace(state, teacher=copy(variables))


def _make_prepare(config: Config, record: dict[str, Any], two: bool) -> Prepare:
    """What makes of a batch of pixels what the objective takes."""
    inputs = {
        "size": config.input.trained_size,
        "mean": record["input"]["mean"],
        "std": record["input"]["std"],
        "num_classes": len(record["class_names"]),
    }
    labelled = train_inputs(config.augment, **inputs)
    if not two:
        return labelled
    if config.unlabelled.consistency in ("fixmatch", "flexmatch"):
        others = two_views(config.augment, config.unlabelled, **inputs)
    elif config.unlabelled.consistency == "pseudo_label":  # No label to mix yet.
        whole = dataclasses.replace(config.augment, mixup=0, cutmix=0)
        others = train_inputs(whole, **inputs)
    else:
        others = labelled
    return two_streams(labelled, others)


def compile_steps(program: Program) -> tuple[TrainStep, EvalStep]:
    """Compiles both steps, the slow part of a start."""
    return compile_train_step(program), compile_eval_step(program)


def compile_train_step(program: Program) -> TrainStep:
    """Compiles the step of training; it takes the memory of the state it is given."""
    return compile_step(
        program.train_step,
        train_step_shapes(program),
        out=program.placement.whole,
        donate=(0,),
    )


def train_step_shapes(program: Program) -> tuple[Any, Any, Any]:
    """What the step of training takes, as `jax.ShapeDtypeStruct` with shardings."""
    placement = program.placement
    batch = _batch_shapes(program.train, program.train_options)
    if program.unlabelled is not None:
        options = program.unlabelled_options
        batch["unlabelled"] = _batch_shapes(program.unlabelled, options)
    key = placement.shapes(program.key, placement.whole)
    return program.shapes, placement.shapes(batch, placement.split), key


def compile_eval_step(program: Program) -> EvalStep:
    """Compiles the step of evaluation."""
    placement = program.placement
    batch = _batch_shapes(program.test, program.eval_options)
    batch["mask"] = jax.ShapeDtypeStruct(batch["label"].shape, np.float32)
    return compile_step(
        program.eval_step,
        (program.shapes.variables, placement.shapes(batch, placement.split)),
        out=placement.split,
    )


def _batch_shapes(source: Source, options: dict[str, Any]) -> dict[str, Any]:
    batch_size, size, channels = options.values()
    beside = {
        name: jax.ShapeDtypeStruct((batch_size, *rows.shape[1:]), rows.dtype)
        for name, rows in source.beside.items()
    }
    return {
        "image": jax.ShapeDtypeStruct((batch_size, size, size, channels), np.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), np.int32),
        "index": jax.ShapeDtypeStruct((batch_size,), np.int32),
        **beside,
    }
