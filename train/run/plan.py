"""Plans a run on chips that need not be there: compiles its steps, executes nothing."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from train.config import Config
from train.data import Source
from train.errors import UserError
from train.learn.parallel import compile_step
from train.learn.step import make_predict_step
from train.run.compiled_cost import Cost, Roofline, cost_of, roofline
from train.run.program import Program, build, compile_eval_step, compile_train_step
from train.run.record import build_model, pixel_inputs
from train.run.topology import Topology

__all__ = [
    "RunPlan",
    "StepName",
    "StepPlan",
    "build_for",
    "plan_run",
    "plan_step",
]

StepName = Literal["training", "evaluation", "labelling"]


@dataclass(frozen=True)
class StepPlan:
    """A step, compiled.

    Attributes:
      name: what it does.
      images: images per step, over all chips.
      cost: what it costs each chip; None if the compiler found no room for it.
      roofline: its shortest time; None if it does not fit.
      fits: whether its memory is that of the chip at most.
      needs: bytes of memory that it needs; 0 if unknown.
      compiling: seconds that the compilation took.
    """

    name: StepName
    images: int
    cost: Cost | None
    roofline: Roofline | None
    fits: bool
    needs: int
    compiling: float

    def record(self) -> dict[str, Any]:
        """The figures, for JSON."""
        fields = dataclasses.asdict(self)
        if self.roofline is not None:
            roof = self.roofline
            fields["roofline"] |= {"seconds": roof.seconds, "binds": roof.binds}
        return fields


@dataclass(frozen=True)
class RunPlan:
    """A run's steps, compiled for a topology.

    Attributes:
      topology: the chips.
      program: the run.
      steps: its steps by name.
    """

    topology: Topology
    program: Program
    steps: dict[StepName, StepPlan]

    @property
    def fits(self) -> bool:
        """Whether what was compiled of the run's training and evaluation fits."""
        run = [self.steps.get("training"), self.steps.get("evaluation")]
        return all(step.fits for step in run if step is not None)

    @property
    def seconds(self) -> float | None:
        """The run's shortest time: its training steps, and the evaluations.

        Evaluation counts only if it was compiled. None if training was not compiled, or
        if either does not fit.
        """
        program, training = self.program, self.steps.get("training")
        if not self.fits or training is None or training.roofline is None:
            return None
        total = program.steps * training.roofline.seconds
        step = self.steps.get("evaluation")
        if step is not None and step.roofline is not None:
            models = 2 if program.config.optimization.ema_decay else 1
            batches = -(-len(program.test) // step.images)
            total += models * program.config.epochs * batches * step.roofline.seconds
        return total

    @property
    def chip_hours(self) -> float | None:
        """The same, over all chips, in hours."""
        seconds = self.seconds
        return None if seconds is None else seconds * self.topology.chips / 3600

    def record(self) -> dict[str, Any]:
        """The figures, for JSON."""
        config, topology = self.program.config, self.topology
        return {
            "recipe": self.program.record["recipe"],
            "model": config.network.model,
            "fields": dict(config.network.model_fields),
            "dtype": config.network.dtype,
            "image_size": config.input.trained_size,
            "remat": config.parallelism.remat,
            "parameters": self.program.parameters,
            "topology": topology.name,
            "chips": topology.chips,
            "batch_parts": self.program.placement.parts,
            "chip": dataclasses.asdict(topology.chip),
            "is_estimate": topology.is_estimate,
            "steps": {name: step.record() for name, step in self.steps.items()},
            "fits": self.fits,
            "training_steps": self.program.steps,
            "seconds": self.seconds,
            "chip_hours": self.chip_hours,
        }


def plan_run(
    config: Config,
    recipe: str,
    topology: Topology,
    images: tuple[Source, Source],
    steps: Sequence[StepName] = ("training", "evaluation", "labelling"),
) -> RunPlan:
    """Compiles a run's steps for a topology.

    Args:
      config: the run's config; its `--devices` is ignored.
      recipe: name of its recipe.
      topology: the chips.
      images: the images to train and to evaluate on, or stand-ins.
      steps: the steps to compile.

    Raises:
      UserError: if the config cannot be run on these chips.
    """
    program = build_for(config, recipe, topology, images)
    return RunPlan(
        topology, program, {name: plan_step(program, name, topology) for name in steps}
    )


def build_for(
    config: Config, recipe: str, topology: Topology, images: tuple[Source, Source]
) -> Program:
    """Builds a run for a topology: see `plan_run`."""
    parallelism = dataclasses.replace(config.parallelism, devices=0)
    config = dataclasses.replace(config, parallelism=parallelism)
    if parallelism.parallel == "pmap" and not topology.is_estimate:
        raise UserError(
            "Only --parallel jit can be compiled for chips that are not there."
        )
    return build(config, recipe, images, devices=topology.devices)


def plan_step(program: Program, name: StepName, topology: Topology) -> StepPlan:
    """Compiles a step of a run that was built for a topology."""
    compilers: dict[StepName, Callable[[Program], Any]] = {
        "training": compile_train_step,
        "evaluation": compile_eval_step,
        "labelling": _compile_labelling_step,
    }
    options = program.config.optimization
    parts = options.gradient_accumulation if name == "training" else 1
    batch = program.train_batch if name == "training" else program.eval_batch
    plan = partial(StepPlan, name, batch.batch_size)
    started = time.perf_counter()
    try:
        compiled = compilers[name](program)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return plan(None, None, False, 0, time.perf_counter() - started)
    seconds = time.perf_counter() - started
    cost = cost_of(compiled, parts)
    fits = cost.memory <= topology.chip.memory
    roof = roofline(cost, topology.chip, topology.chips) if fits else None
    return plan(cost, roof, fits, cost.memory, seconds)


def _compile_labelling_step(program: Program) -> Any:
    """Compiles what `pseudo-label` runs: log probabilities of a batch of images."""
    placement = program.placement
    step = make_predict_step(
        build_model(program.record),
        pixel_inputs(program.record),
        whole=not placement.is_one_cpu,
    )
    count, _, channels = program.eval_batch
    size = program.config.input.image_size
    images = jax.ShapeDtypeStruct((count, size, size, channels), np.uint8)
    return compile_step(
        step,
        (program.shapes.variables, placement.shapes(images, placement.sharded)),
        out=placement.sharded,
    )
