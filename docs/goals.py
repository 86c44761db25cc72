"""What the project sets itself, against what was measured."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence

from benchmarks.record import Record, Row
from benchmarks.tables import IN_PARTS, OURS

__all__ = ["CPU", "GPU", "Goal", "against"]


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure, and what it should come to.

    Attributes:
      figure: in words.
      benchmark: that measures it.
      case: how its case begins.
      peers: how many times ours should be as fast as each of these candidates; the
        fastest of them that was measured counts, and of ours. Without one, `value`
        tells.
      at_least: what is asked for; at most, where `value` has a cost.
      aim: what would be better; None where there is none.
      value: gives the figure, from the case's rows by candidate.
      form: how the figure is written.
      is_cost: whether less is better.
    """

    figure: str
    benchmark: str
    case: str
    peers: tuple[str, ...]
    at_least: float
    aim: float | None = None
    value: Callable[[dict[str, Row]], float] | None = None
    form: str = ".2f"
    is_cost: bool = False

    def found(self, rows: Iterable[Row]) -> float | None:
        """The figure, from the rows of a run; None where it was not measured."""
        case = {
            row["candidate"]: row
            for row in rows
            if row["benchmark"] == self.benchmark and row["case"].startswith(self.case)
        }
        if self.value is not None:
            with contextlib.suppress(KeyError):
                return self.value(case)
            return None

        def seconds(candidates: Iterable[str]) -> list[float]:
            rows = (case.get(candidate, {}) for candidate in candidates)
            return [row["median"] for row in rows if "median" in row]

        own, others = seconds((OURS, IN_PARTS)), seconds(self.peers)
        return min(others) / min(own) if own and others else None

    def in_one_of(self, records: Sequence[Record]) -> float | None:
        """The figure of the first run that has it: its candidates took turns there."""
        figures = (self.found(record.rows) for record in records)
        return next((figure for figure in figures if figure is not None), None)

    def reached(self, found: float) -> str:
        """How far it came: "the aim", "what is asked" or "short"."""
        for name, goal in (("the aim", self.aim), ("what is asked", self.at_least)):
            if goal is not None and (found <= goal if self.is_cost else found >= goal):
                return name
        return "short"


def against(goals: Sequence[Goal], records: Sequence[Record]) -> list[list[str]]:
    """A line a goal: the figure, against what, asked, aim, measured, reached.

    Args:
      goals: what was sought.
      records: of one device.
    """
    lines = []
    for goal in goals:
        found = goal.in_one_of(records)
        lines.append(
            [
                goal.figure,
                " or ".join(goal.peers),
                format(goal.at_least, goal.form),
                "" if goal.aim is None else format(goal.aim, goal.form),
                "not measured" if found is None else format(found, goal.form),
                "" if found is None else goal.reached(found),
            ]
        )
    return lines


_LAST, _FLAX, _COMPILE = ("torch channels_last",), ("plain Flax",), ("torch.compile",)
_TENSORS = ("torchvision uint8", "torchvision float32")


def _extra_memory(case: dict[str, Row]) -> float:
    return case[OURS]["extra_memory"] / 1e6


def _of_cold(case: dict[str, Row]) -> float:
    return case["warm"]["of_cold"]


def _images_per_second(case: dict[str, Row]) -> float:
    return case[OURS]["images_per_second"]


def _augmentation(case: dict[str, Row]) -> float:
    return case["ours augmenting"]["augmentation_share"]


def _model(
    title: str,
    name: str,
    task: str,
    peers: tuple[str, ...],
    at_least: float,
    aim: float | None = None,
) -> Goal:
    batch = {"inference": 16, "training": 8}[task]
    case = f"{name}, batch {batch}, 224 px, float32"
    return Goal(f"{title}, {task} {batch}", task, case, peers, at_least, aim)


def _deform_conv(what: str, at_least: float, aim: float) -> Goal:
    figure, case = f"deformable 3x3, {what}", f"56x56x64, batch 2, {what}"
    return Goal(figure, "deform_conv", case, ("torchvision",), at_least, aim)


def _deform_conv_memory(what: str) -> Goal:
    return Goal(
        f"deformable 3x3, {what}, extra memory, MB",
        "deform_conv",
        f"56x56x64, batch 2, {what}",
        (),
        30,
        value=_extra_memory,
        form=".0f",
        is_cost=True,
    )


def _augmented(task: str, at_least: float, aim: float) -> Goal:
    figure, case = f"augmentation, {task}", f"{task}, 256 px"
    return Goal(figure, "augmentation", case, _TENSORS, at_least, aim)


def _started(title: str, name: str, at_most: float, aim: float) -> Goal:
    figure = f"{title}, start with a warm compilation cache, of cold"
    case = f"{name}, batch 8, 224 px, float32"
    return Goal(figure, "compile", case, (), at_most, aim, value=_of_cold, is_cost=True)


def _rate(task: str, at_least: float, aim: float) -> Goal:
    return Goal(
        f"ResNet-50, {task}, images/s",
        task,
        "resnet50, ",
        (),
        at_least,
        aim,
        value=_images_per_second,
        form=",.0f",
    )


# Float32, on 2 cores.
CPU = (
    _model("EfficientNet-B0", "efficientnet_b0", "inference", _LAST, 1.1, 1.35),
    _model("EfficientNet-B0", "efficientnet_b0", "inference", _FLAX, 5, 7),
    _model("EfficientNet-B0", "efficientnet_b0", "training", _LAST, 0.65, 1.0),
    _model("EfficientNet-B0", "efficientnet_b0", "training", _FLAX, 6, 9),
    _model("ResNet-50", "resnet50", "inference", _LAST, 1.0, 1.25),
    _model("ResNet-50", "resnet50", "inference", _FLAX, 1.3),
    _model("ResNet-50", "resnet50", "training", _LAST, 0.6, 0.85),
    _model("ResNet-50", "resnet50", "training", _FLAX, 1.35),
    _model("DenseNet-121", "densenet121", "inference", _LAST, 0.85, 1.0),
    _model("DenseNet-121", "densenet121", "training", _LAST, 0.55, 0.8),
    _model("ResNeXt-50", "resnext50_32x4d", "training", _FLAX, 20),
    _deform_conv("forward", 8, 12),
    _deform_conv("with gradients", 11, 15),
    _deform_conv_memory("forward"),
    _deform_conv_memory("with gradients"),
    _augmented("resized crop + flip", 1.5, 3),
    _augmented("rotate", 5, 7),
    _augmented("rand_augment", 2.5, 5),
    _started("ResNet-50", "resnet50", 0.45, 0.3),
    _started("DenseNet-201", "densenet201", 0.25, 0.15),
    Goal(
        "input from JPEG files",
        "input",
        "resized crop, 224 px",
        ("torch DataLoader",),
        1.0,
        1.2,
    ),
)

# Bfloat16, of an H100.
GPU = (
    _rate("training", 4500, 6900),
    _rate("inference", 15000, 25000),
    Goal("ResNet-50, training", "training", "resnet50, ", _COMPILE, 1.0),
    Goal("ResNet-50, inference", "inference", "resnet50, ", _COMPILE, 1.0),
    Goal(
        "augmentation's share of a training step",
        "training",
        "resnet50, ",
        (),
        0.1,
        0.05,
        value=_augmentation,
        form=".0%",
        is_cost=True,
    ),
)
