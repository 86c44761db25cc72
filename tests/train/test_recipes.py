from pathlib import Path

import pytest

import cnn_flax
from train import recipes
from train.noisy_student.plan import TrainStage, plan


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_states_its_command_and_its_result(name):
    recipe = recipes.load(name)
    command = "noisy-student " if recipe.noisy_student else ""
    assert f"    python -m train {command}{name}" in recipe.text
    assert recipe.gave


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_builds_its_models(name):
    recipe = recipes.load(name)
    networks = [recipe.config.network]
    if recipe.noisy_student:
        stages = plan(recipe.noisy_student, Path())
        networks = [s.config.network for s in stages if isinstance(s, TrainStage)]
        assert recipe.models == [
            network.model for network in networks[: len(recipe.models)]
        ]
    for network in networks:
        cnn_flax.create_model(network.model, **network.model_fields)


def test_the_imagenet_noisy_student_has_the_papers_settings():
    """Section 3.1, except for what the recipe's docstring lists."""
    student = recipes.load("noisy_student_imagenet").noisy_student
    config, others = student.config, student.config.unlabelled
    assert (others.min_confidence, others.per_class) == (0.3, 130_000)
    assert others.pseudo_label_kind == "soft"
    assert (config.input.batch_size, others.ratio, config.epochs) == (2048, 14, 350)
    noise = config.network.model_fields
    assert (noise["dropout_rate"], noise["drop_path_rate"]) == (0.5, 0.2)
    policy = config.augment.policy, config.augment.operations, config.augment.magnitude
    assert policy == ("noisy_student", 2, 27)
    rate = config.optimization
    assert (rate.schedule, rate.step_factor, rate.step_epochs) == ("step", 0.97, 2.4)
    assert [s.image_size for s in student.students] == [600, 475]
    images = student.finetune_steps * config.input.batch_size
    assert round(images / 1_281_167, 1) == 1.5 and student.finetune_size == 800
