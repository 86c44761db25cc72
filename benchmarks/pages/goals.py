"""The project's goals for speed and memory, and the figures measured for them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence

from benchmarks.measurements import Measurements, Row
from benchmarks.tables import IN_PARTS, OURS

__all__ = ["CPU", "GPU", "Goal", "goal_lines"]


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure with a required and a target value.

    Attributes:
      title: names the figure.
      benchmark: the benchmark that measures it.
      case: prefix of the case's name.
      peers: candidates that ours is compared with: the figure is how many times as fast
        ours is as the fastest measured peer. The faster of `ours` and `ours in parts`
        counts. Empty where `value` computes the figure.
      required: the least acceptable figure, or the greatest if `is_cost`.
      target: a better figure to aim for; None without one.
      value: computes the figure from the case's rows by candidate.
      form: format of the figure.
      is_cost: whether less is better.
      best: whether the best run counts, not the first that has the figure; for figures
        that are not compared with a peer's.
    """

    title: str
    benchmark: str
    case: str
    peers: tuple[str, ...]
    required: float
    target: float | None = None
    value: Callable[[dict[str, Row]], float] | None = None
    form: str = ".2f"
    is_cost: bool = False
    best: bool = False

    def figure(self, rows: Iterable[Row]) -> float | None:
        """Returns the figure from the rows of a run; None if it was not measured."""
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

    def figure_of_one_run(self, runs: Sequence[Measurements]) -> float | None:
        """Returns the figure of the first run that has it, or of the best.

        Times of two runs are not compared: candidates take turns within one run.
        """
        found = (self.figure(run.rows) for run in runs)
        figures = [figure for figure in found if figure is not None]
        if self.best and figures:
            return min(figures) if self.is_cost else max(figures)
        return figures[0] if figures else None

    def reached(self, figure: float) -> str:
        """Returns what a figure reaches: "target", "required" or "short"."""
        for name, goal in (("target", self.target), ("required", self.required)):
            if goal is None:
                continue
            if figure <= goal if self.is_cost else figure >= goal:
                return name
        return "short"


def goal_lines(goals: Sequence[Goal], runs: Sequence[Measurements]) -> list[list[str]]:
    """Returns one line per goal: title, peers, required, target, measured, reached.

    Args:
      goals: the goals of a device.
      runs: the measurements on that device.
    """
    lines = []
    for goal in goals:
        figure = goal.figure_of_one_run(runs)
        lines.append(
            [
                goal.title,
                " or ".join(goal.peers),
                format(goal.required, goal.form),
                "" if goal.target is None else format(goal.target, goal.form),
                "not measured" if figure is None else format(figure, goal.form),
                "" if figure is None else goal.reached(figure),
            ]
        )
    return lines


_TORCH, _FLAX, _COMPILE = ("torch channels_last",), ("plain Flax",), ("torch.compile",)
_TENSORS = ("torchvision uint8", "torchvision float32")


def _extra_memory(case: dict[str, Row]) -> float:
    return case[OURS]["extra_memory"] / 1e6


def _share_of_cold(case: dict[str, Row]) -> float:
    return case["warm"]["of_cold"]


def _images_per_second(case: dict[str, Row]) -> float:
    return case[OURS]["images_per_second"]


def _augmentation_share(case: dict[str, Row]) -> float:
    return case["ours augmenting"]["augmentation_share"]


def _model(
    title: str,
    name: str,
    task: str,
    peers: tuple[str, ...],
    required: float,
    target: float | None = None,
) -> Goal:
    batch = {"inference": 16, "training": 8}[task]
    case = f"{name}, batch {batch}, 224 px, float32"
    return Goal(f"{title}, {task} {batch}", task, case, peers, required, target)


def _deform_conv(what: str, required: float, target: float) -> Goal:
    title, case = f"deformable 3x3, {what}", f"56x56x64, batch 2, {what}"
    return Goal(title, "deform_conv", case, ("torchvision",), required, target)


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


def _augmented(task: str, required: float, target: float) -> Goal:
    title, case = f"augmentation, {task}", f"{task}, 256 px"
    return Goal(title, "augmentation", case, _TENSORS, required, target)


def _started(title: str, name: str, required: float, target: float) -> Goal:
    return Goal(
        f"{title}, time of a warm start relative to a cold one",
        "compile",
        f"{name}, batch 8, 224 px, float32",
        (),
        required,
        target,
        value=_share_of_cold,
        is_cost=True,
    )


def _rate(task: str, required: float, target: float) -> Goal:
    return Goal(
        f"ResNet-50, {task}, images/s",
        task,
        "resnet50, ",
        (),
        required,
        target,
        value=_images_per_second,
        form=",.0f",
        best=True,  # Of the batch sizes.
    )


# Float32, on 2 cores.
CPU = (
    _model("EfficientNet-B0", "efficientnet_b0", "inference", _TORCH, 1.1, 1.35),
    _model("EfficientNet-B0", "efficientnet_b0", "inference", _FLAX, 5, 7),
    _model("EfficientNet-B0", "efficientnet_b0", "training", _TORCH, 0.65, 1.0),
    _model("EfficientNet-B0", "efficientnet_b0", "training", _FLAX, 6, 9),
    _model("ResNet-50", "resnet50", "inference", _TORCH, 1.0, 1.25),
    _model("ResNet-50", "resnet50", "inference", _FLAX, 1.3),
    _model("ResNet-50", "resnet50", "training", _TORCH, 0.6, 0.85),
    _model("ResNet-50", "resnet50", "training", _FLAX, 1.35),
    _model("DenseNet-121", "densenet121", "inference", _TORCH, 0.85, 1.0),
    _model("DenseNet-121", "densenet121", "training", _TORCH, 0.55, 0.8),
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

# Bfloat16, on an H200: 4.8 TB/s, and 989 TFLOP/s without sparsity.
#
# Per image, ResNet-50's convolutions write 11.1 M activations, or 22 MB. With
# BatchNorms in kernels of their own, a training step moves them about 15 times.
# Forward, 5: written by the convolution, read for the sums, read and written
# normalized, read by the next convolution. Backward, 10: gradient and activation read
# for the sums; both read and the gradient written; the convolution's two gradients
# read the gradient twice and the activation once, and write one; about one for
# additions and ReLUs. That is 333 MB: 14,000 images/s at most. The 24.5 GFLOP would
# allow 40,000.
#
# Inference with folded BatchNorms moves 44 MB and takes 8.2 GFLOP, which allow
# 108,000 and 121,000 images/s.
GPU = (
    _rate("training", 6900, 11000),
    _rate("inference", 25000, 45000),
    Goal("ResNet-50, training", "training", "resnet50, ", _COMPILE, 1.0),
    Goal("ResNet-50, inference", "inference", "resnet50, ", _COMPILE, 1.0),
    Goal(
        "augmentation's share of a training step",
        "training",
        "resnet50, ",
        (),
        0.1,
        0.05,
        value=_augmentation_share,
        form=".0%",
        is_cost=True,
    ),
)
