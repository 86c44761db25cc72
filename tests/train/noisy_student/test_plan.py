from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from train.config import Augment, Config, Network, Optimization, Unlabelled
from train.errors import UserError
from train.noisy_student import EACH_ROUND, NoisyStudent, Student
from train.noisy_student.plan import (
    LabelStage,
    ModelSize,
    TrainStage,
    equal_students,
    plan,
    settings,
)

OUT = Path("/runs/noisy")
CONFIG = Config(
    network=Network("resnet18", {"width": 8, "dropout_rate": 0.5}),
    augment=Augment(policy="rand_augment"),
    optimization=Optimization(warmup_epochs=1),
    unlabelled=Unlabelled(
        "rest", ratio=3, pseudo_labels=EACH_ROUND, min_confidence=0.3, per_class=7
    ),
)
STUDENTS = (Student("resnet34", {"width": 12}), Student("resnet50", image_size=32))
STUDENT = NoisyStudent(CONFIG, STUDENTS)


def configs(student):
    stages = plan(student, OUT)
    return {
        stage.name: stage.config for stage in stages if isinstance(stage, TrainStage)
    }


def test_each_round_labels_with_the_last_model_and_trains_the_next():
    names = [stage.name for stage in plan(STUDENT, OUT)]
    assert names == [
        "round0/teacher",
        "round1/labels.npy",
        "round1/student",
        "round2/labels.npy",
        "round2/student",
    ]
    labels = [stage for stage in plan(STUDENT, OUT) if isinstance(stage, LabelStage)]
    assert [label.teacher for label in labels] == ["round0/teacher", "round1/student"]


def test_the_teacher_is_trained_on_labelled_images_alone_with_noise():
    assert configs(STUDENT)["round0/teacher"] == replace(
        CONFIG, unlabelled=Unlabelled()
    )


def test_a_student_is_trained_on_its_rounds_labels_with_all_noise():
    for number, model, width, size in (
        (1, "resnet34", 12, 224),
        (2, "resnet50", 8, 32),
    ):
        config = configs(STUDENT)[f"round{number}/student"]
        labels = f"/runs/noisy/round{number}/labels.npy"
        assert config.unlabelled == replace(CONFIG.unlabelled, pseudo_labels=labels)
        fields = {"width": width, "dropout_rate": 0.5}
        assert config.network == Network(model, fields)
        assert config.input == replace(CONFIG.input, image_size=size)
        assert config.augment == CONFIG.augment
        assert config.optimization == CONFIG.optimization


def test_the_final_stage_has_its_own_size_and_rate_and_no_augmentation():
    student = replace(STUDENT, finetune_size=288, finetune_steps=9, finetune_rate=1e-4)
    stages = plan(student, OUT)
    assert [stage.name for stage in stages[:-1]] == [s.name for s in plan(STUDENT, OUT)]
    config = configs(student)["final"]
    assert config.input.image_size == config.input.trained_size == 288
    assert config.augment == Augment()
    assert config.unlabelled == Unlabelled()
    assert config.optimization == Optimization(learning_rate=1e-4)
    assert (config.epochs, config.epoch_steps) == (1, 9)
    assert config.network.model == "resnet50"
    assert config.network.init == "/runs/noisy/round2/student"
    assert config.network.init_head


def test_only_the_teacher_starts_from_given_weights():
    student = replace(
        STUDENT,
        config=replace(CONFIG, network=replace(CONFIG.network, init="published")),
    )
    found = {name: config.network.init for name, config in configs(student).items()}
    assert found == {
        "round0/teacher": "published",
        "round1/student": "",
        "round2/student": "",
    }


def test_students_are_words_on_the_command_line():
    words = "--students resnet34 width=12 depth=(1,2) resnet50 image_size=40"
    words = [*words.split(), "--learning-rate", "0.5"]
    student = tyro.cli(NoisyStudent, args=words, default=STUDENT)
    assert student.students == (
        Student("resnet34", {"width": 12, "depth": (1, 2)}),
        Student("resnet50", image_size=40),
    )
    assert student.config.optimization.learning_rate == 0.5
    assert student.config.network == CONFIG.network


def test_fields_follow_their_model(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(NoisyStudent, args=["--students", "width=12"], default=STUDENT)
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "'width=12' must follow the model that it is a field of" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"students": ()}, "--students names no model"),
        ({"config": Config()}, "leave out --pseudo-labels"),
        (
            {
                "config": replace(
                    CONFIG,
                    unlabelled=replace(CONFIG.unlabelled, unlabelled="shards:*.tar"),
                )
            },
            "--unlabelled shards:.*as two commands: `python -m train pseudo-label",
        ),
        ({"finetune_size": -1}, "--finetune-size must be at least 0, got -1"),
        ({"finetune_steps": 0}, "--finetune-steps must be at least 1, got 0"),
        ({"finetune_rate": 0.0}, "--finetune-rate must be above 0, got 0"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        replace(STUDENT, **options)


def test_settings_are_the_flags():
    found = settings(STUDENT)
    assert found["students"] == ["resnet34", "width=12", "resnet50", "image_size=32"]
    assert found["min_confidence"] == 0.3
    assert found["finetune_size"] == 0
    assert "config" not in found


def test_a_student_of_another_name_and_its_teachers_size_is_said():
    sizes = [
        ModelSize("round0/teacher", 10, "resnet18"),
        ModelSize("round1/student", 20, "resnet18"),
        ModelSize("round2/student", 20, "resnet34"),
        ModelSize("final", 20, "resnet34"),
    ]
    (line,) = equal_students(sizes)
    assert line.startswith("round2/student, resnet34, has 20 parameters, as its")
    assert "--model-fields apply to all models" in line
