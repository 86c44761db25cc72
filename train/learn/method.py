"""What a method of learning is, and what it is built from.

A method is one file of this folder with a function `make_method(setup)`, and one row of
`train.learn.method_table`, which says the flags that ask for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import linen as nn

from train.config import Config
from train.data import Source
from train.learn.inputs import Prepare, train_inputs
from train.learn.objectives import Objective
from train.learn.teacher import Teacher
from train.learn.transfer import Layers

__all__ = ["Method", "Setup"]


@dataclass(frozen=True)
class Setup:
    """What a method may use.

    Attributes:
      config: the run's.
      model: the model that learns; its BatchNorm reduces over `axis`.
      channels: of the images.
      mean: what images in [0, 1] are normalised with, one value per channel.
      std: what they are then divided by, one value per channel.
      train: the labelled images.
      unlabelled: the images without labels, or None.
      steps_per_epoch: of the run.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      layers: the model's, if a flag of transfer is set.
      teacher: what the method's `open_teacher` returned, or None.
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
        return {"axis": self.axis, "freeze_bn": self.config.optimization.freeze_bn}

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
    def ramp_up_steps(self) -> int:
        """Steps over which the weight of the unlabelled images' loss ramps up."""
        return round(self.config.unlabelled.ramp_up_epochs * self.steps_per_epoch)

    @property
    def knows_true_labels(self) -> bool:
        """Whether the unlabelled images have labels of the run's classes, to measure.

        They are never learned from.
        """
        names = self.unlabelled.class_names if self.unlabelled is not None else ()
        return list(names) == list(self.train.class_names)

    def labelled_inputs(self) -> Prepare:
        """Preparation of the labelled images, as the flags of augmentation say."""
        return train_inputs(self.config.augment, **self.input_options)


@dataclass(frozen=True)
class Method:
    """How a run learns.

    Attributes:
      objective: what is minimized.
      prepare: turns a batch of pixels into the views that the objective takes.
      init_params: returns the objective's own parameters for a key; None if it has
        none. They are `params["objective"]`.
      state: what the objective carries from step to step, before the first step; None
        if nothing. It is the train state's `method_state`.
      layers: the model's layers with the objective's own parameters placed among them;
        None leaves these with the head.
      record: what `config.json` says of the method.
    """

    objective: Objective
    prepare: Prepare
    init_params: Callable[[jax.Array], Any] | None = None
    state: Any = None
    layers: Layers | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
