"""The configuration of a Noisy Student, and the stages that it consists of."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from tyro.conf import OmitArgPrefixes

from train.config import Augment, Config, Transfer, Unlabelled, parse_fields
from train.config_file import flag_values
from train.console import program_name
from train.errors import UserError

__all__ = [
    "EACH_ROUND",
    "LabelStage",
    "ModelSize",
    "NoisyStudent",
    "Stage",
    "Student",
    "TrainStage",
    "check_growth",
    "equal_students",
    "plan",
    "settings",
    "teacher_config",
]

# Placeholder for the pseudo-labels, whose file differs between rounds.
EACH_ROUND = "made in each round"


@dataclass(frozen=True)
class Student:
    """A model trained on pseudo-labels, and what differs from the teacher's config."""

    model: str
    """One of cnn_flax.list_models()."""
    model_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the model; they take precedence over those of all models."""
    image_size: int = 0
    """Height and width of its input, in pixels; 0 for the config's."""


def _parse_students(words: list[str]) -> tuple[Student, ...]:
    students: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            students.append((word, []))
        elif students:
            students[-1][1].append(word)
        else:
            raise ValueError(f"{word!r} must follow the model that it is a field of")
    parsed = []
    for model, words in students:
        fields = parse_fields(words)
        size = fields.pop("image_size", 0)
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"image_size must be a number of pixels, got {size!r}")
        parsed.append(Student(model, fields, size))
    return tuple(parsed)


def _format_students(students: tuple[Student, ...]) -> list[str]:
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
    str_from_instance=_format_students,
)


@dataclass(frozen=True)
class NoisyStudent:
    """Rounds in which a model labels images, and the next model is trained on them.

    Xie et al. 2019, "Self-training with Noisy Student improves ImageNet
    classification", https://arxiv.org/abs/1911.04252, algorithm 1.
    """

    config: Annotated[Config, OmitArgPrefixes] = Config(
        unlabelled=Unlabelled(unlabelled="rest", pseudo_labels=EACH_ROUND)
    )
    """Config of every model. --model is the first one, the teacher, which is trained on
    the labelled images alone; --model-fields apply to all models. Noise, that is
    augmentation and the fields dropout_rate and drop_path_rate, is on in training and
    off in labelling."""
    students: Annotated[tuple[Student, ...], _STUDENTS] = (Student("resnet18"),)
    """The models after the teacher, one per round, each at least as large as the one
    before. Their fields override --model-fields; image_size=PIXELS sets a student's
    input size."""
    finetune_size: int = 0
    """Height and width, in pixels, at which the last student is fine-tuned on the
    labelled images alone, without augmentation; 0 for no fine-tuning."""
    finetune_steps: int = 100
    """Steps of fine-tuning."""
    finetune_rate: float = 0.001
    """Initial learning rate of fine-tuning."""

    def __post_init__(self):
        if not self.students:
            raise UserError("--students names no model: give one per round.")
        if self.config.unlabelled.pseudo_labels != EACH_ROUND:
            raise UserError(
                "A Noisy Student makes its pseudo-labels itself: leave out "
                "--pseudo-labels."
            )
        if self.config.unlabelled.unlabelled.startswith("shards:"):
            program = program_name()
            raise UserError(
                f"--unlabelled {self.config.unlabelled.unlabelled}: a Noisy Student "
                "labels a set whose images it can list. With shards, run each round as "
                f"two commands: `{program} pseudo-label TEACHER --data shards:.. "
                f"--out DIR` and `{program} RECIPE --unlabelled shards:.. "
                "--pseudo-labels DIR`."
            )
        for field, is_valid, allowed in (
            ("finetune_size", self.finetune_size >= 0, "at least 0"),
            ("finetune_steps", self.finetune_steps >= 1, "at least 1"),
            ("finetune_rate", self.finetune_rate > 0, "above 0"),
        ):
            if not is_valid:
                flag, value = field.replace("_", "-"), getattr(self, field)
                raise UserError(f"--{flag} must be {allowed}, got {value}.")

    @property
    def models(self) -> list[str]:
        """Names of the models, the teacher's first."""
        return [self.config.network.model, *(s.model for s in self.students)]


@dataclass(frozen=True)
class TrainStage:
    """A stage that trains a model.

    Attributes:
      name: the run's folder, relative to that of the Noisy Student.
      config: the run's config.
    """

    name: str
    config: Config


@dataclass(frozen=True)
class LabelStage:
    """A stage in which a model labels the unlabelled images, without noise.

    Attributes:
      name: the file of pseudo-labels, relative to the Noisy Student's folder.
      teacher: name of the stage that trained the model.
    """

    name: str
    teacher: str


Stage = TrainStage | LabelStage


class ModelSize(NamedTuple):
    """The size of a model.

    Attributes:
      stage: name of the stage that trains it.
      parameters: number of its parameters.
      model: its name.
    """

    stage: str
    parameters: int
    model: str = ""


def plan(student: NoisyStudent, out: Path) -> list[Stage]:
    """The stages, in order.

    Args:
      student: the Noisy Student.
      out: its folder.
    """
    config = student.config
    last = TrainStage("round0/teacher", teacher_config(student))
    stages: list[Stage] = [last]
    for number, model in enumerate(student.students, 1):
        labels = LabelStage(f"round{number}/labels.npy", last.name)
        model_config = _student_config(config, model, out, labels)
        last = TrainStage(f"round{number}/student", model_config)
        stages += [labels, last]
    if student.finetune_size:
        stages.append(TrainStage("final", _finetune_config(student, last, out)))
    return stages


def check_growth(models: Sequence[ModelSize]) -> None:
    """Raises `UserError` if a student has fewer parameters than its teacher.

    Args:
      models: the models of the stages that train, in order.
    """
    for teacher, student in pairwise(models):
        if student.parameters < teacher.parameters:
            raise UserError(
                f"{student.stage} has {student.parameters:,} parameters, and its "
                f"teacher {teacher.parameters:,}: a noisy student must be at least as "
                "large. To distill into a smaller one, see --teacher."
            )


def equal_students(models: Sequence[ModelSize]) -> list[str]:
    """One line for each student of another name than its teacher, but of its size.

    `--model-fields` apply to all models: those that say how many layers a model has
    leave nothing of its name.

    Args:
      models: the models of the stages that train, in order.
    """
    return [
        f"{student.stage}, {student.model}, has {student.parameters:,} parameters, as "
        f"its teacher {teacher.model} has: --model-fields apply to all models, and can "
        "make them the same. Fields after a student's name in --students, such as "
        "resnet34 stage_sizes=(3,4,6,3), are its own."
        for teacher, student in pairwise(models)
        if student.model != teacher.model and student.parameters == teacher.parameters
    ]


def teacher_config(student: NoisyStudent) -> Config:
    """The config of the first model, trained on the labelled images alone."""
    return replace(student.config, unlabelled=Unlabelled())


def settings(student: NoisyStudent) -> dict[str, Any]:
    """Values of the flags, by name without dashes."""
    fields = dataclasses.fields(student)
    own = {f.name: getattr(student, f.name) for f in fields if f.name != "config"}
    return {
        **flag_values(student.config),
        **own,
        "students": _format_students(student.students),
    }


def _student_config(
    config: Config, student: Student, out: Path, labels: LabelStage
) -> Config:
    """The config of a student."""
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


def _finetune_config(student: NoisyStudent, last: TrainStage, out: Path) -> Config:
    """The config of the final fine-tuning.

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
