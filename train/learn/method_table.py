"""The table of training methods, with the flags that select each."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from train.config import Config
from train.data import Source
from train.errors import UserError
from train.learn import (
    adamatch,
    balanced_classifier,
    distillation,
    fixmatch,
    flexmatch,
    forgetting,
    freematch,
    mixmatch,
    semi_supervised,
    softmatch,
    supervised,
)
from train.learn.method import Method, Setup
from train.learn.teacher import Teacher

__all__ = ["METHODS", "MethodRow", "check_labels", "method_row"]


class MethodRow(NamedTuple):
    """A method, and how a user selects it.

    Attributes:
      flags: the flags that select it.
      is_asked_for: whether a config has these flags.
      make: builds the method.
      open_teacher: opens the frozen model that the method learns from; None if it has
        none.
    """

    flags: str
    is_asked_for: Callable[[Config], bool]
    make: Callable[[Setup], Method]
    open_teacher: Callable[[Setup], Teacher] | None = None

    def with_teacher(self, setup: Setup) -> Setup:
        """The setup with the method's teacher, if it has one."""
        if self.open_teacher is None:
            return setup
        return replace(setup, teacher=self.open_teacher(setup))


def _consistency(name: str) -> tuple[str, Callable[[Config], bool]]:
    return (
        f"--unlabelled --consistency {name}",
        lambda config: config.unlabelled.consistency == name,
    )


# A config's method is the first row that it selects.
METHODS = (
    MethodRow(
        "--transfer lwf",
        lambda config: config.transfer.transfer == "lwf",
        forgetting.make_method,
        forgetting.open_old_model,
    ),
    MethodRow(
        "--teacher",
        lambda config: bool(config.distillation.teacher),
        distillation.make_method,
        distillation.open_named_teacher,
    ),
    MethodRow(*_consistency("pseudo_label"), semi_supervised.with_self_labels),
    MethodRow(
        "--unlabelled --consistency fixmatch --abc",
        lambda config: config.uneven_classes.abc,
        balanced_classifier.make_method,
    ),
    MethodRow(*_consistency("fixmatch"), fixmatch.make_method),
    MethodRow(*_consistency("flexmatch"), flexmatch.make_method),
    MethodRow(*_consistency("softmatch"), softmatch.make_method),
    MethodRow(*_consistency("freematch"), freematch.make_method),
    MethodRow(*_consistency("adamatch"), adamatch.make_method),
    MethodRow(*_consistency("mixmatch"), mixmatch.make_method),
    MethodRow(
        "--unlabelled --pseudo-labels",
        lambda config: bool(config.unlabelled.pseudo_labels),
        semi_supervised.with_given_labels,
    ),
    MethodRow("", lambda config: True, supervised.make_method),
)


def method_row(config: Config) -> MethodRow:
    """The row of the method that a config selects."""
    return next(row for row in METHODS if row.is_asked_for(config))


def check_labels(row: MethodRow, config: Config, train: Source) -> None:
    """Raises `UserError` if a method cannot learn from such labels.

    Args:
      row: the method's row.
      config: the run's config.
      train: the training images.
    """
    if train.multi_label and row.flags:
        raise UserError(
            f"{train.spec} has several classes per image, and {row.flags} needs one: "
            "leave it out to learn from the labels alone."
        )
    if config.augment.mixed_labels == "max" and not train.multi_label:
        raise UserError(
            f"--mixed-labels max is for several classes per image; {train.spec} has "
            "one: leave it out."
        )
