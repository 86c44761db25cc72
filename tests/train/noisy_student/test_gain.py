"""The gain of a Noisy Student's rounds with few labels, over seeds."""

from dataclasses import replace

import numpy as np
import pytest

from train.config import Augment
from train.noisy_student.run import run
from train.recipes import noisy_student_digits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs")]


def test_the_last_round_beats_the_first(tmp_path, quiet):
    recipe = noisy_student_digits.noisy_student
    # Two blocks, to save time.
    fields = {**recipe.config.network.model_fields, "stage_sizes": (1, 1)}
    accuracies = []
    for seed in range(3):
        config = replace(
            recipe.config,
            # A policy takes long to compile; the other noise remains.
            augment=Augment(crop_padding=1, erase=0.3),
            network=replace(recipe.config.network, model_fields=fields),
            epochs=2,
            seed=seed,
        )
        out = tmp_path / str(seed)
        summary = run(replace(recipe, config=config), out, recipe="r", console=quiet)
        accuracies.append([model.accuracy for model in summary.models])
    first, *_, last = np.mean(accuracies, 0)
    assert last > first
