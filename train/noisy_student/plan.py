"""What a Noisy Student is, and the stages that it comes to."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes

from train.config import Augment, Config, Transfer, Unlabelled, parse_fields
from train.config_file import flag_values
from train.errors import UserError

__all__ = [
    "EACH_ROUND",
    "Label",
    "NoisyStudent",
    "Stage",
    "Student",
    "Train",
    "check_growth",
    "plan",
    "settings",
    "teacher_config",
]

# Stands for the pseudo-labels in the config of all rounds.
EACH_ROUND = "made in each round"


@dataclass(frozen=True)
class Student:
    """A model that learns from pseudo-labels, and what is its own."""

    model: str
    """One of cnn_flax.list_models()."""
    model_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the model, before those that all models have."""
    image_size: int = 0
    """Height and width that it sees, in pixels; 0 for those of the config."""


def _parse_students(words: list[str]) -> tuple[Student, ...]:
    students: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            students.append((word, []))
        elif students:
            students[-1][1].append(word)
        else:
            raise ValueError(f"{word!r} stands before the model that it is a field of")
    parsed = []
    for model, words in students:
        fields = parse_fields(words)
        size = fields.pop("image_size", 0)
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"image_size must be a number of pixels, got {size!r}")
        parsed.append(Student(model, fields, size))
    return tuple(parsed)


def _words(students: tuple[Student, ...]) -> list[str]:
    words = []
    for student in students:
        size = {"image_size": student.image_size} if student.image_size else {}
        fields = {**student.model_fields, **size}
        words += [student.model, *(f"{name}={v}" for name, v in fields.items())]
    return words


_STUDENTS = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[MODEL [NAME=VALUE ...] ...]",
    instance_from_str=_parse_students,
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=_words,
)


@dataclass(frozen=True)
class NoisyStudent:
    """Rounds in which a model labels images, and the next model learns from them.

    Xie et al. 2019, "Self-training with Noisy Student improves ImageNet
    classification", https://arxiv.org/abs/1911.04252, algorithm 1.
    """

    config: Annotated[Config, OmitArgPrefixes] = Config(
        unlabelled=Unlabelled(unlabelled="rest", pseudo_labels=EACH_ROUND)
    )
    """Of every model: --model is the first, the teacher, which learns from the labels
    alone, and --model-fields are of all. What is noise, changes to the images and the
    fields dropout_rate and drop_path_rate, is on while they learn and off while they
    label."""
    students: Annotated[tuple[Student, ...], _STUDENTS] = (Student("resnet18"),)
    """The models after the teacher, one a round, each at least as large as the last
    one. Their fields go before --model-fields; image_size=PIXELS is a student's own."""
    finetune_size: int = 0
    """Height and width, in pixels, at which the last student learns a little more from
    the labels alone, its images unchanged; 0 for none of that."""
    finetune_steps: int = 100
    """Steps of that."""
    finetune_rate: float = 0.001
    """Learning rate of that, at its start."""

    def __post_init__(self):
        if not self.students:
            raise UserError("--students names no model: give one a round.")
        if self.config.unlabelled.pseudo_labels != EACH_ROUND:
            raise UserError(
                "A Noisy Student makes its pseudo-labels: leave out --pseudo-labels."
            )
        for field, held, allowed in (
            ("finetune_size", self.finetune_size >= 0, "at least 0"),
            ("finetune_steps", self.finetune_steps >= 1, "at least 1"),
            ("finetune_rate", self.finetune_rate > 0, "above 0"),
        ):
            if not held:
                flag, value = field.replace("_", "-"), getattr(self, field)
                raise UserError(f"--{flag} must be {allowed}, got {value}.")

    @property
    def models(self) -> list[str]:
        """Names of the models, the teacher's first."""
        return [self.config.network.model, *(s.model for s in self.students)]


@dataclass(frozen=True)
class Train:
    """A stage in which a model learns.

    Attributes:
      name: its folder, below that of the whole.
      config: of the run.
    """

    name: str
    config: Config


@dataclass(frozen=True)
class Label:
    """A stage in which a model labels the images without labels, without noise.

    Attributes:
      name: its file, below the folder of the whole.
      teacher: the stage of the model.
    """

    name: str
    teacher: str


Stage = Train | Label


def plan(student: NoisyStudent, out: Path) -> list[Stage]:
    """The stages, in their order.

    Args:
      student: what is to be done.
      out: the folder of the whole.
    """
    config = student.config
    last = Train("round0/teacher", teacher_config(student))
    stages: list[Stage] = [last]
    for number, learner in enumerate(student.students, 1):
        labels = Label(f"round{number}/labels.npy", last.name)
        last = Train(f"round{number}/student", _learner(config, learner, out, labels))
        stages += [labels, last]
    if student.finetune_size:
        stages.append(Train("final", _finetuned(student, last, out)))
    return stages


def check_growth(parameters: Mapping[str, int]) -> None:
    """Raises `UserError` for a student with fewer parameters than its teacher.

    Args:
      parameters: their number in each stage that trains, by its name, in order.
    """
    for (_, teacher), (name, student) in pairwise(parameters.items()):
        if student < teacher:
            raise UserError(
                f"{name} has {student:,} parameters, and its teacher {teacher:,}: a "
                "noisy student is at least as large. A smaller one distills: see "
                "--teacher."
            )


def teacher_config(student: NoisyStudent) -> Config:
    """The config of the first model, which learns from labels alone."""
    return replace(student.config, unlabelled=Unlabelled())


def settings(student: NoisyStudent) -> dict[str, Any]:
    """Each flag's name, without its dashes, and its value."""
    fields = dataclasses.fields(student)
    own = {f.name: getattr(student, f.name) for f in fields if f.name != "config"}
    return {**flag_values(student.config), **own, "students": _words(student.students)}


def _learner(config: Config, student: Student, out: Path, labels: Label) -> Config:
    """A student's config."""
    fields = {**config.network.model_fields, **student.model_fields}
    network = replace(config.network, model=student.model, model_fields=fields, init="")
    size = student.image_size or config.input.image_size
    return replace(
        config,
        input=replace(config.input, image_size=size),
        network=network,
        transfer=Transfer(),
        unlabelled=replace(config.unlabelled, pseudo_labels=str(out / labels.name)),
    )


def _finetuned(student: NoisyStudent, last: Train, out: Path) -> Config:
    """The config of the last stage.

    Section 3.1, "Training details", after Touvron et al. 2019, "Fixing the train-test
    resolution discrepancy", https://arxiv.org/abs/1906.06423.
    """
    config, size, rate = last.config, student.finetune_size, student.finetune_rate
    return replace(
        config,
        input=replace(config.input, image_size=size, train_size=0, load_size=0),
        network=replace(config.network, init=str(out / last.name), init_head=True),
        augment=Augment(),
        optimization=replace(config.optimization, learning_rate=rate, warmup_epochs=0),
        unlabelled=Unlabelled(),
        epochs=1,
        epoch_steps=student.finetune_steps,
    )
