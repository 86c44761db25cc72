"""The program of a run: data, model, state and steps, ready to compile."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import cnn_flax
from train.config import Config, Transfer, random_changes, unreached
from train.config_file import config_to_json
from train.data import Source, steps_per_epoch
from train.data.select import (
    decode_options,
    evaluation_images,
    training_images,
    unlabelled_images,
)
from train.errors import UserError
from train.jit_once import jit_once
from train.learn.inputs import Batch
from train.learn.method import Method, Setup
from train.learn.method_table import check_labels, method_row
from train.learn.optimizer import make_optimizer, make_schedule
from train.learn.parallel import (
    AXIS,
    Placement,
    choose_devices,
    compile_step,
    pmap_step,
    shard_rows,
)
from train.learn.starting_weights import load_starting_weights
from train.learn.step import (
    Metrics,
    TrainState,
    create_state,
    make_eval_step,
    make_train_step,
)
from train.learn.teacher import Teacher, with_room_for_logits
from train.learn.transfer import (
    Stage,
    evaluate_on_features,
    find_layers,
    freeze_stages,
    plan_stages,
    train_on_features,
    with_room_for_features,
)
from train.run.record import (
    build_model,
    describe,
    pixel_inputs,
    reduce_batch_norm_over,
    step_identity,
)

__all__ = [
    "BatchSpec",
    "Program",
    "batch_shapes",
    "build",
    "compile_eval_step",
    "compile_steps",
    "compile_train_step",
    "train_step_shapes",
]

# Pixels; below it, a photograph can hardly be recognized.
_SMALL = 24

TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]
EvalStep = Callable[[Any, Batch], Metrics]


class BatchSpec(NamedTuple):
    """The shape of a batch of images, as options of `train.data`'s batches.

    Attributes:
      batch_size: number of images N, over all devices.
      image_size: height and width, in pixels.
      channels: number of channels C.
    """

    batch_size: int
    image_size: int
    channels: int


@dataclass(frozen=True)
class Program:
    """Everything that a run consists of, before anything is computed.

    Attributes:
      config: the run's config.
      record: the contents of its `config.json`.
      train: the labelled images to train on.
      unlabelled: the unlabelled images, or None.
      test: the images to evaluate on.
      teacher: the frozen model that the run learns from, or None.
      features: shape and dtype of an image's backbone features `[F]`, if the run caches
        them and batches hold them in place of images; None otherwise.
      steps_per_epoch: number of full batches in `train`, or the config's number.
      steps: number of steps of the run.
      placement: devices and shardings.
      key: the random key of all steps.
      schedule: maps a step, counted from 0, to its learning rate.
      load_weights: loads the weights to start from, once; empty without `--init`.
      attach_teacher: adds the teacher's variables to a state from a checkpoint.
      init: creates the state before the first step, from these weights.
      shapes: the shapes of that state, with shardings.
      train_step: the training step, not compiled.
      eval_step: the evaluation step, not compiled.
      warnings: what the run does otherwise than asked or never reaches, one line each.
    """

    config: Config
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
    load_weights: Callable[[], Any]
    attach_teacher: Callable[[TrainState], TrainState]
    init: Callable[[], TrainState]
    shapes: TrainState
    train_step: TrainStep
    eval_step: EvalStep
    warnings: tuple[str, ...]

    @property
    def train_batch(self) -> BatchSpec:
        """Shape of the training batches; their images may be larger, to be cropped."""
        options = self.config.input
        size = options.load_size or options.trained_size
        return self._batch(options.batch_size, size)

    @property
    def unlabelled_batch(self) -> BatchSpec:
        """Shape of the batches of unlabelled images."""
        batch = self.train_batch
        ratio = self.config.unlabelled.ratio
        return batch._replace(batch_size=ratio * batch.batch_size)

    @property
    def eval_batch(self) -> BatchSpec:
        """Shape of the evaluation batches, as large as one part of a training batch."""
        parts = self.config.optimization.gradient_accumulation
        options = self.config.input
        return self._batch(options.batch_size // parts, options.image_size)

    def _batch(self, batch_size: int, image_size: int) -> BatchSpec:
        size = 1 if self.features else image_size
        return BatchSpec(batch_size, size, self.record["input"]["channels"])

    def decode_options(self, *, training: bool = False) -> dict[str, Any]:
        """How images are decoded: see `train.data.select.decode_options`."""
        return {} if self.features else decode_options(self.config, training=training)

    @property
    def process(self) -> dict[str, Any]:
        """Which rows of a batch this process reads, as options of `train.data`."""
        return {
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    @property
    def parameters(self) -> int:
        """Number of the model's parameters."""
        return sum(x.size for x in jax.tree.leaves(self.shapes.variables["params"]))

    @property
    def bytes(self) -> int:
        """Size of the state in bytes, approximately that of a checkpoint."""
        saved = jax.tree.leaves(dataclasses.replace(self.shapes, teacher=None))
        return sum(x.size * x.dtype.itemsize for x in saved)

    @property
    def headline(self) -> str:
        """One line that describes the run."""
        machine, network = self.record["machine"], self.config.network
        head = "" if network.init_head else " except for the head"
        start = f" ({network.init}{head})" if network.init else ""
        unlabelled = ""
        if self.teacher is not None:
            start += f" (taught by {self.teacher.spec})"
        if self.unlabelled is not None:
            spec = self.unlabelled.spec
            unlabelled = f"and {len(self.unlabelled):,} without labels of {spec} "
        return (
            f"{network.model}{start}, {self.parameters:,} parameters, "
            f"on {len(self.train):,} images of {self.train.spec} {unlabelled}"
            f"({len(self.test):,} for {self.config.selection.eval_split}), "
            f"{machine['devices']} x {machine['device']}"
        )


def build(
    config: Config,
    recipe: str = "",
    images: tuple[Source, Source] | None = None,
    unlabelled: Source | None = None,
    unlabelled_set: Source | None = None,
    *,
    devices: Sequence[Any] | None = None,
) -> Program:
    """Opens the data and builds the steps; computes and writes nothing.

    Args:
      config: the run's config.
      recipe: name of its recipe.
      images: the images to train and to evaluate on; None opens those of the config.
      unlabelled: the unlabelled images; None opens those of the config.
      unlabelled_set: the set that they are selected from, if it is open already.
      devices: the devices to compile for, which may be those of a machine that is not
        there; None for those of this machine that the config names.

    Raises:
      SourceError: if the data cannot be used.
      UserError: if the model, the teacher or the devices do not fit the config.
    """
    options = config.optimization
    is_here = devices is None
    if devices is None:
        devices = choose_devices(config.parallelism.device_count)
    elif config.parallelism.device_count not in (0, len(devices)):
        raise UserError(
            f"--mesh {config.parallelism.mesh} has "
            f"{config.parallelism.device_count} devices, and there are {len(devices)}."
        )
    placement = Placement(devices, config.parallelism.axes.get("model", 1))
    placement.check(
        config.input.batch_size, options.gradient_accumulation, config.augment.pairs
    )
    train, test = images or (training_images(config), evaluation_images(config))
    if unlabelled is None:
        unlabelled = unlabelled_images(config, train.class_names, unlabelled_set)
    # The run's record keeps the batch size that was asked for.
    record = describe(config, recipe, train)
    config, smaller = _fit_batch(config, len(train), placement)
    if unlabelled is not None and unlabelled.digest:
        record["pseudo_labels"]["shards"] = unlabelled.digest
    model = build_model(record)
    per_epoch = config.epoch_steps or steps_per_epoch(train, config.input.batch_size)
    steps = config.epochs * per_epoch
    schedule = make_schedule(options, per_epoch, steps)
    key_init, key_run = jax.random.split(jax.random.key(config.seed))
    size, channels = config.input.image_size, train.channels
    image_shape = (size, size, channels)

    axis = AXIS if config.parallelism.parallel == "pmap" else None
    is_global = config.parallelism.bn == "global"
    row = method_row(config)
    check_labels(row, config, train)
    setup = row.with_teacher(
        Setup(
            config=config,
            model=reduce_batch_norm_over(model, axis) if is_global else model,
            channels=channels,
            mean=record["input"]["mean"],
            std=record["input"]["std"],
            train=train,
            unlabelled=unlabelled,
            steps_per_epoch=per_epoch,
            axis=axis,
        )
    )
    teacher = setup.teacher
    if teacher is not None and config.distillation.cache_teacher:
        train, unlabelled = _with_room_for_logits(config, teacher, train, unlabelled)
    with _build_errors(config.network.model, image_shape):
        if config.transfer != Transfer():
            layers = find_layers(model, image_shape)
            setup = dataclasses.replace(setup, layers=layers)
    method = row.make(setup)
    record |= method.record
    stages = _stages(setup, method)
    tx = make_optimizer(options, schedule, stages)
    init = partial(
        create_state,
        model,
        tx,
        image_shape,
        key_init,
        ema=options.ema_decay > 0,
        init_params=method.init_params,
        method_state=method.state,
    )
    with _build_errors(config.network.model, image_shape):
        shapes = jax.eval_shape(init)

    load_weights = cache(
        partial(load_starting_weights, config.network, channels, shapes)
    )
    start = jit_once(init, out_shardings=placement.state(shapes))
    teacher_variables = None
    if teacher is not None and not config.distillation.cache_teacher:
        teacher_variables = teacher.variables
    shapes = dataclasses.replace(shapes, teacher=teacher_variables)
    attach_teacher = partial(_attach_teacher, teacher_variables, placement)
    objective = freeze_stages(method.objective, stages)
    prepare = method.prepare
    # On a single CPU device a batch is evaluated in parts, and nowhere else.
    whole = not placement.is_one_cpu
    many = train.multi_label
    eval_step = make_eval_step(
        model, pixel_inputs(record), whole=whole, multi_label=many
    )
    features = None
    if setup.layers and _caches_features(config):
        features = _backbone_output(model, shapes, image_shape)
        train, test = (with_room_for_features(s, features) for s in (train, test))
        objective = train_on_features(objective, setup.layers, image_shape)
        # The features of a batch are all computed already, so no parts.
        eval_step = make_eval_step(
            model, pixel_inputs(record), whole=True, multi_label=many
        )
        eval_step = evaluate_on_features(eval_step, setup.layers, image_shape)
        prepare = _identity
    train_step = make_train_step(
        objective,
        tx,
        prepare if axis else shard_rows(prepare, placement),
        axis=axis,
        accumulation=options.gradient_accumulation,
        ema_decay=options.ema_decay,
    )
    return Program(
        config=config,
        record=record,
        train=train,
        unlabelled=unlabelled,
        test=test,
        teacher=teacher,
        features=features,
        steps_per_epoch=per_epoch,
        steps=steps,
        placement=placement,
        # A machine that is not there has no place for it, nor any use.
        key=placement.replicate(key_run) if is_here else key_run,
        schedule=schedule,
        load_weights=load_weights,
        attach_teacher=attach_teacher,
        init=lambda: attach_teacher(start(initial=load_weights())),
        shapes=placement.state_shapes(shapes),
        train_step=pmap_step(train_step, placement.devices) if axis else train_step,
        eval_step=eval_step,
        warnings=(
            *smaller,
            *_shrinks(config, train),
            *unreached(config),
            *_never_unfrozen(stages, steps),
        ),
    )


def _fit_batch(
    config: Config, images: int, placement: Placement
) -> tuple[Config, list[str]]:
    """The config with a batch that the training images fill, and a line if it changed.

    With a number of steps per epoch, the images are repeated to fill the batch instead.
    """
    asked = config.input.batch_size
    if config.epoch_steps or asked <= images:
        return config, []
    unit = placement.batch_unit(
        config.optimization.gradient_accumulation, config.augment.pairs
    )
    size = images // unit * unit
    if size == 0:  # Fewer images than devices: `steps_per_epoch` says so.
        return config, []
    smaller = dataclasses.replace(config.input, batch_size=size)
    line = (
        f"--batch-size {asked} is more than the {images:,} training images: a batch "
        f"has {size}, and an epoch one step."
    )
    return dataclasses.replace(config, input=smaller), [line]


def _shrinks(config: Config, train: Source) -> list[str]:
    """A line if little is left of the images at the size of the model's input."""
    size = config.input.image_size
    sides = min(train.native_size or (math.inf,))
    if size >= _SMALL or sides < 2 * size:
        return []
    usual = cnn_flax.model_info(config.network.model).image_size
    return [
        f"--image-size {size} leaves little of the images: {config.network.model} is "
        f"usually trained at {usual} pixels."
    ]


@contextlib.contextmanager
def _build_errors(name: str, image_shape: tuple[int, int, int]) -> Iterator[None]:
    """Turns what a model raises for images of the wrong shape into `UserError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        shape = " x ".join(map(str, image_shape))
        raise UserError(
            f"{name} cannot be built for images of {shape}: {error}"
        ) from error


def _stages(setup: Setup, method: Method) -> tuple[Stage, ...]:
    """How the model's stages are trained; empty without a flag of transfer."""
    layers = method.layers or setup.layers
    if layers is None:
        return ()
    return plan_stages(setup.config.transfer, layers, setup.steps_per_epoch)


def _never_unfrozen(stages: Sequence[Stage], steps: int) -> list[str]:
    """A line if gradual unfreezing takes longer than the run; empty otherwise."""
    late = [stage for stage in stages if stage.start and stage.start >= steps]
    if not late:
        return []
    modules = ", ".join(late[-1].modules)
    return [
        f"--unfreeze-epochs is too long for this run: {modules} and what is before it "
        "stay frozen to the end."
    ]


def _caches_features(config: Config) -> bool:
    """Whether features are the same in every epoch, and nothing else is used."""
    return (
        config.transfer.transfer == "features"
        and not random_changes(config)
        and not config.distillation.teacher
        and not config.unlabelled.unlabelled
    )


def _backbone_output(
    model: nn.Module, shapes: TrainState, image_shape: tuple[int, int, int]
) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an image's backbone features."""
    images = jnp.zeros((1, *image_shape))
    features: Any = jax.eval_shape(
        model.clone(num_classes=0).apply, shapes.variables, images
    )
    return jax.ShapeDtypeStruct(features.shape[1:], features.dtype)


def _identity(keys: Any, batch: Batch, key: Any) -> Batch:
    return batch


def _with_room_for_logits(
    config: Config, teacher: Teacher, train: Source, unlabelled: Source | None
) -> tuple[Source, Source | None]:
    """The images with room for the teacher's logits.

    Raises:
      UserError: if the logits differ between epochs.
    """
    if changes := random_changes(config):
        raise UserError(
            "--cache-teacher caches one row of logits per image, and these flags "
            f"change images at random: {', '.join(changes)}."
        )
    logits = teacher.logits_shape(config.input.trained_size)
    if unlabelled is not None:
        unlabelled = with_room_for_logits(unlabelled, logits)
    return with_room_for_logits(train, logits), unlabelled


def _attach_teacher(
    variables: Any, placement: Placement, state: TrainState
) -> TrainState:
    # Copies, because a step donates all buffers of its state.
    copy = jax.jit(
        partial(jax.tree.map, jnp.copy), out_shardings=placement.state(variables)
    )
    return dataclasses.replace(state, teacher=copy(variables))


def compile_steps(program: Program) -> tuple[TrainStep, EvalStep]:
    """Compiles both steps, which is the slow part of starting a run."""
    return compile_train_step(program), compile_eval_step(program)


def compile_train_step(program: Program) -> TrainStep:
    """Compiles the training step, which donates its state."""
    placement = program.placement
    return compile_step(
        program.train_step,
        train_step_shapes(program),
        out=(placement.state(program.shapes), placement.replicated),
        donate=(0,),
        identity=_identity_of(program, "training"),
    )


def _identity_of(program: Program, step: str) -> dict[str, Any] | None:
    """What a step follows from, other than shapes; None if that is not all known.

    A training step may follow from a teacher too, whose file may change.
    """
    if program.config.parallelism.parallel == "pmap":
        return None
    if step == "training" and program.teacher is not None:
        return None
    changing = ("machine", "versions")
    unlabelled = program.unlabelled
    return step_identity(
        step,
        program.config.network.model,
        record={k: v for k, v in program.record.items() if k not in changing},
        config=config_to_json(program.config),
        steps_per_epoch=program.steps_per_epoch,
        unlabelled=unlabelled and list(unlabelled.class_names),
        features=str(program.features),
    )


def train_step_shapes(program: Program) -> tuple[Any, Any, Any]:
    """Shapes of the training step's arguments, with shardings."""
    placement = program.placement
    batch = batch_shapes(program.train, program.train_batch)
    if program.unlabelled is not None:
        batch["unlabelled"] = batch_shapes(program.unlabelled, program.unlabelled_batch)
    key = placement.shapes(program.key, placement.replicated)
    return program.shapes, placement.shapes(batch, placement.sharded), key


def compile_eval_step(program: Program) -> EvalStep:
    """Compiles the evaluation step."""
    placement = program.placement
    batch = batch_shapes(program.test, program.eval_batch)
    batch["mask"] = jax.ShapeDtypeStruct(batch["index"].shape, np.float32)

    def with_index(variables, batch):  # Each process has its rows of the batch only.
        return {**program.eval_step(variables, batch), "index": batch["index"]}

    return compile_step(
        with_index,
        (program.shapes.variables, placement.shapes(batch, placement.sharded)),
        out=placement.fetched,
        identity=_identity_of(program, "evaluation"),
    )


def batch_shapes(source: Source, spec: BatchSpec) -> dict[str, Any]:
    """The shapes of a batch of a set's images, on one host."""
    count, size, channels = spec
    columns = {
        name: jax.ShapeDtypeStruct((count, *rows.shape[1:]), rows.dtype)
        for name, rows in source.columns.items()
    }
    return {
        "image": jax.ShapeDtypeStruct((count, size, size, channels), np.uint8),
        "label": jax.ShapeDtypeStruct((count,), np.int32),
        "index": jax.ShapeDtypeStruct((count,), np.int32),
        **columns,
    }
