import re

import pytest

from train import recipes
from train.__main__ import main
from train.commands.short_help import _texts
from train.config import Config
from train.config_file import flag_values
from train.noisy_student import NoisyStudent


def shown_by(capsys, *words):
    try:
        assert main(list(words)) == 0
    except SystemExit as done:  # tyro's own help.
        assert not done.code
    return capsys.readouterr().out


def flags_in(text):
    return set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipes_help_has_about_a_dozen_of_its_flags_on_a_screen(
    capsys, monkeypatch, name
):
    monkeypatch.setenv("COLUMNS", "80")
    recipe = recipes.load(name)
    words = ["noisy-student"] if recipe.noisy_student else []
    text = shown_by(capsys, *words, name, "--help")
    assert text == shown_by(capsys, *words, name, "--epochs", "3", "-h")
    known = {f"--{field.replace('_', '-')}" for field in flag_values(recipe.config)}
    own = {"--out", "--seed", "--dry-run", "--extend", "--students", "--finetune-size"}
    assert 12 <= len(flags_in(text)) <= 20
    assert flags_in(text) <= known | own
    assert f"(default: runs/{name})" in " ".join(text.split())
    described = text.partition("Images:")[2]
    assert max(map(len, described.splitlines()[:-1])) <= 80
    assert len(described.splitlines()) < 60


def test_help_all_has_every_flag(capsys):
    text = shown_by(capsys, "digits_resnet", "--help-all")
    for field in flag_values(Config()):
        assert f"--{field.replace('_', '-')}" in text
    text = shown_by(capsys, "noisy-student", "noisy_student_digits", "--help-all")
    assert "--finetune-rate" in text and "--warmup-epochs" in text


def test_the_help_of_noisy_student_names_its_recipes(capsys):
    text = shown_by(capsys, "noisy-student", "--help")
    for name in recipes.names():
        assert (f"  {name}\n" in text) == bool(recipes.load(name).noisy_student)


def test_every_flag_has_its_own_text():
    texts = _texts(Config)
    assert texts.keys() >= flag_values(Config()).keys()
    assert texts["seed"].startswith("Seed of the split, the initial weights, the order")
    assert texts["dtype"].endswith("float64 with float64.")
    assert _texts(NoisyStudent)["finetune_steps"] == "Steps of fine-tuning."
