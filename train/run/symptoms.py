"""What is wrong with a run's losses, the likely cause, and the command to try."""

import math
import shlex
from collections.abc import Mapping

from train.config import Config
from train.console import program_name
from train.data import Source

__all__ = ["divergence", "overfitting"]

# Times the loss of guessing, ln K or ln 2. A model starts near 1; noise stays below 2.
_DIVERGED = 3.0
# Of the loss of guessing: at most this in training, and more than that of guessing in
# evaluation, is a model that knows its training images and no others.
_LEARNED = 0.5


def divergence(config: Config, figures: Mapping[str, float], train: Source) -> str:
    """A line if the training loss has exploded; empty otherwise.

    Args:
      config: the run's config.
      figures: a line of training metrics.
      train: the training images.
    """
    guessing = _loss_of_guessing(train)
    loss, rate = figures["loss"], config.optimization.learning_rate
    if loss <= _DIVERGED * guessing:
        return ""
    return (
        f"The training loss is {loss:,.4g}, and guessing has {guessing:.3g}: the run "
        f"diverges, most likely because --learning-rate {rate:g} is too high. Stop it, "
        f"and try --learning-rate {rate / 10:g}, or --clip-norm 1, with another --out."
    )


def overfitting(
    config: Config,
    trained: Mapping[str, float],
    evaluated: Mapping[str, float],
    train: Source,
) -> str:
    """A line if the evaluation's loss is far above training's; empty otherwise.

    Args:
      config: the run's config.
      trained: the last line of training metrics.
      evaluated: the figures of the last evaluation.
      train: the training images.
    """
    guessing = _loss_of_guessing(train)
    loss, split = evaluated["loss"], config.selection.eval_split
    if trained["loss"] > _LEARNED * guessing or loss <= guessing:
        return ""
    return (
        f"The {split} loss is {loss:,.4g}, worse than that of guessing "
        f"({guessing:.3g}), and the training loss {trained['loss']:.3g}: the model "
        f"knows its {len(train):,} training images and does not recognize others. "
        f"{_remedy(config)}"
    )


def _loss_of_guessing(train: Source) -> float:
    return math.log(2 if train.multi_label else len(train.class_names))


def _remedy(config: Config) -> str:
    data = shlex.quote(config.input.data)
    if config.transfer.transfer == "features":
        return "More images, or --weight-decay 0.1, may help."
    if config.network.init:
        return (
            "With few images, learn the head alone: the same command with --transfer "
            "features, without --backbone-rate, and another --out."
        )
    return (
        "With few images, start from a model that has seen many: "
        f"{program_name()} features_folder --data {data} --out runs/features"
    )
