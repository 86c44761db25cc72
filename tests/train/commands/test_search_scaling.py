import io
from dataclasses import replace

import pytest
from rich.console import Console

from train import recipes
from train.__main__ import main
from train.commands.search_scaling import scaled, scaling_table, search
from train.config import Network
from train.errors import UserError

BASE = recipes.load("digits_efficientnet").config


def test_depth_width_and_resolution_are_multiplied():
    config = scaled(BASE, (2.0, 1.4, 1.2))
    assert config.network.model_fields["depth_multiplier"] == 2.0
    assert config.network.model_fields["width_multiplier"] == 0.35
    assert config.input.image_size == 38
    assert replace(config, network=BASE.network, input=BASE.input) == BASE


def search_without_training(tmp_path, **options):
    folders = []

    def fit(config, run, **_):
        folders.append(run.name)
        fields = config.network.model_fields
        return {"accuracy": fields["depth_multiplier"], "parameters": 1000}

    return *search(BASE, tmp_path, fit=fit, **options), folders


def test_every_net_with_about_twice_the_work_is_trained_and_the_best_is_picked(
    tmp_path,
):
    best, points, folders = search_without_training(tmp_path)
    assert best == (2.0, 1.0, 1.0)
    assert len(points) == len(set(folders)) == 6
    assert folders[0] == "depth1_width1_resolution1.4"
    for (alpha, beta, gamma), _ in points:
        assert abs(alpha * beta**2 * gamma**2 - 2) <= 0.1


def test_the_table_marks_the_best(tmp_path):
    best, points, _ = search_without_training(tmp_path)
    console = Console(file=io.StringIO(), width=100)
    console.print(scaling_table(best, points))
    marked = [r for r in console.file.getvalue().splitlines() if "best" in r]
    assert len(marked) == 1 and "200.00 %" in marked[0]


def test_bad_arguments_are_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="take a finer grid"):
        search_without_training(tmp_path, step=0.9)
    plain = replace(BASE, network=Network("resnet18"))
    with pytest.raises(UserError, match="resnet18 has no depth and width to scale"):
        search(plain, tmp_path)
    assert main(["search-scaling", "digits_efficentnet"]) == 2
    assert "Did you mean digits_efficientnet?" in capsys.readouterr().err
