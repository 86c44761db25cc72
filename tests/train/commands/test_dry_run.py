import dataclasses

import jax
import jax.numpy as jnp
import pytest

from train.__main__ import main
from train.commands.dry_run import _cost, dry_run
from train.config import Augment, Transfer
from train.data import SourceError
from train.run.loop import fit

pytestmark = pytest.mark.usefixtures("programs")


def rows(console):
    """The cells of each row of the tables, by the first cell."""
    lines = console.file.getvalue().splitlines()
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells if row}


def test_it_prints_shapes_and_costs(tiny, quiet):
    fields = {**tiny.network.model_fields, "width": 16}
    network = dataclasses.replace(tiny.network, model_fields=fields)
    dry_run(dataclasses.replace(tiny, network=network), "digits_resnet", quiet)
    found = rows(quiet)
    assert found["training batch"] == ["uint8 [100, 8, 8, 1]", "6,400"]
    assert found["head"] == ["float32 [16, 10], and 1 more", "170"]
    assert found["steps per epoch, in all"][0] == "14, 42"
    assert found["images"] == ["1,438", "359"]
    for name, unit in (("operations", "GFLOP"), ("memory", "MB"), ("temporary", "MB")):
        training, evaluation = found[name]
        assert training.endswith(unit) and evaluation.endswith(unit)
        assert float(training.split()[0]) >= float(evaluation.split()[0]) > 0
    assert "nothing was trained" in quiet.file.getvalue()


def test_operations_are_those_of_all_parts():
    step = jax.jit(lambda x: x @ x).lower(jnp.ones((100, 100))).compile()
    assert _cost(step, 3)["operations"] == "0.01 GFLOP"  # 3 x 2 x 100 ** 3
    assert _cost(step, 1)["operations"] == "0.00 GFLOP"


@pytest.mark.slow
def test_missing_images_are_replaced_by_a_stand_in(tiny, quiet, tmp_path):
    options = dataclasses.replace(
        tiny.input, data=f"folder:{tmp_path / 'missing'}", load_size=10, mean=(0.5,) * 3
    )
    config = dataclasses.replace(tiny, input=options, augment=Augment(crop_scale=0.5))
    dry_run(config, "", quiet)
    text = quiet.file.getvalue()
    assert f"folder:{tmp_path / 'missing'}: no such folder" in text
    assert "A stand-in of 1000 classes and 3 channels" in text
    found = rows(quiet)
    assert found["training batch"][0] == "uint8 [100, 10, 10, 3]"
    assert found["evaluation batch"][0] == "uint8 [100, 8, 8, 3]"
    assert "images" not in found
    with pytest.raises(SourceError):
        fit(config, tmp_path / "run", console=quiet)


@pytest.mark.slow
def test_the_flag_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = ["--model-fields", "stage_sizes=(1,)", "width=4", "small_inputs=True"]
    assert main(["digits_resnet", "--dry-run", "--out", "here", *fields]) == 0
    assert "training batch" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["digits_resnet"], ["noisy-student", "noisy_student_digits"]]
)
def test_a_folder_inside_the_data_is_refused(words, tmp_path, capsys):
    (tmp_path / "cat").mkdir()
    out = str(tmp_path / "cat" / "run")
    data = f"folder:{tmp_path}"
    assert main([*words, "--dry-run", "--data", data, "--out", out]) == 2
    assert "is inside" in capsys.readouterr().err


def test_cached_features_take_the_place_of_images(tiny, quiet):
    network = dataclasses.replace(tiny.network, init="none is read")
    config = dataclasses.replace(
        tiny,
        network=network,
        augment=Augment(),
        transfer=Transfer(transfer="features"),
    )
    dry_run(config, "", quiet)
    assert rows(quiet)["training batch"] == ["float32 [100, 4]", "400"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        "imagenet_resnet50",
        pytest.param("imagenet_resnet50_modern", marks=pytest.mark.long),
    ],
)
def test_the_imagenet_recipes_compile(capsys, recipe):
    assert main([recipe, "--dry-run"]) == 0
    assert "25,557,032" in capsys.readouterr().out
