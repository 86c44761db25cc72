import pytest

import cnn_flax
from train import recipes


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_its_command_and_what_it_gave(name):
    recipe = recipes.load(name)
    assert f"    python -m train {name}" in recipe.text
    assert recipe.gave


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_builds_its_model(name):
    network = recipes.load(name).config.network
    cnn_flax.create_model(network.model, **network.model_fields)
