from pathlib import Path

import pytest

import cnn_flax
from train import recipes
from train.noisy_student.plan import Train, plan


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_its_command_and_what_it_gave(name):
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
        networks = [s.config.network for s in stages if isinstance(s, Train)]
        assert recipe.models == [
            network.model for network in networks[: len(recipe.models)]
        ]
    for network in networks:
        cnn_flax.create_model(network.model, **network.model_fields)
