"""The interface of a training method, and what a method is built from.

A method is one file in this folder with a function `make_method(setup)`, and one row of
`train.learn.method_table`, which names the flags that select it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import linen as nn

from train.config import Config
from train.data import Source
from train.learn.inputs import Prepare, train_inputs
from train.learn.label_loss import LabelLoss, label_loss
from train.learn.objectives import Objective
from train.learn.teacher import Teacher
from train.learn.transfer import Layers

__all__ = ["Method", "Setup"]


@dataclass(frozen=True)
class Setup:
    """What a method is built from.

    Attributes:
      config: the run's config.
      model: the model that learns; its BatchNorm reduces over `axis`, unless it is
        local.
      channels: number of channels of the images.
      mean: subtracted from images in [0, 1], one value per channel.
      std: images are then divided by it, one value per channel.
      train: the labelled images.
      unlabelled: the unlabelled images, or None.
      steps_per_epoch: number of steps per epoch.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      layers: the model's layers, if a flag of transfer is set.
      teacher: the frozen model that the method learns from, or None.
    """

    config: Config
    model: nn.Module
    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    train: Source
    unlabelled: Source | None
    steps_per_epoch: int
    axis: str | None = None
    layers: Layers | None = None
    teacher: Teacher | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images in training."""
        size = self.config.input.trained_size
        return size, size, self.channels

    @property
    def pass_options(self) -> dict[str, Any]:
        """Arguments of `train.learn.objectives.training_pass`."""
        return {
            "axis": self.axis,
            "freeze_bn": self.config.optimization.freeze_bn,
            "remat": self.config.parallelism.remat == "stage",
        }

    @property
    def input_options(self) -> dict[str, Any]:
        """Arguments of `train.learn.inputs.train_inputs`."""
        return {
            "size": self.config.input.trained_size,
            "mean": self.mean,
            "std": self.std,
            "num_classes": len(self.train.class_names),
        }

    @property
    def label_loss(self) -> LabelLoss:
        """The loss of the labels, with the run's label smoothing and class weights."""
        return label_loss(self.config, self.train)

    @property
    def steps(self) -> int:
        """Number of steps of the run."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def ramp_up_steps(self) -> int:
        """Steps over which the weight of the unlabelled images' loss ramps up."""
        return round(self.config.unlabelled.ramp_up_epochs * self.steps_per_epoch)

    @property
    def knows_true_labels(self) -> bool:
        """Whether the unlabelled images have labels of the run's classes, for metrics.

        These labels are never learned from.
        """
        names = self.unlabelled.class_names if self.unlabelled is not None else ()
        return list(names) == list(self.train.class_names)

    def labelled_inputs(self) -> Prepare:
        """Preparation of the labelled images, with the run's augmentation."""
        return train_inputs(self.config.augment, **self.input_options)


@dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
      objective: the objective to minimize.
      prepare: turns a batch of pixels into the views that the objective takes.
      init_params: initializes the objective's own parameters, `params[OBJECTIVE]`, from
        a key; None if it has none.
      state: the initial value of what the objective carries from step to step, the
        train state's `method_state`; None for nothing.
      layers: the model's layers, with the objective's own parameters in one of the
        stages; None trains these with the head.
      record: entries to add to the run's `config.json`.
    """

    objective: Objective
    prepare: Prepare
    init_params: Callable[[jax.Array], Any] | None = None
    state: Any = None
    layers: Layers | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
