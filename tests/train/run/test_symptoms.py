import dataclasses
import math

import pytest

from train.config import Config, Input, Network, Transfer
from train.data import open_source
from train.run.symptoms import divergence, overfitting

CONFIG = Config(input=Input(data="folder:my photos"))


def test_a_loss_far_above_guessing_is_said_with_a_lower_rate():
    digits = open_source("digits")
    assert divergence(CONFIG, {"loss": 2.9 * math.log(10)}, digits) == ""
    said = divergence(CONFIG, {"loss": 8425.0}, digits)
    assert "The training loss is 8,425, and guessing has 2.3" in said
    assert "try --learning-rate 0.01" in said
    several = dataclasses.replace(digits, multi_label=True)
    said = divergence(CONFIG, {"loss": 3.1 * math.log(2)}, several)
    assert "guessing has 0.693" in said


@pytest.mark.parametrize(
    ("trained", "evaluated", "is_said"),
    [(0.1, 3.0, True), (0.1, 2.2, False), (1.5, 3.0, False)],
)
def test_a_loss_in_evaluation_alone_is_said(trained, evaluated, is_said):
    digits = open_source("digits")
    said = overfitting(CONFIG, {"loss": trained}, {"loss": evaluated}, digits)
    assert ("knows its 1,438 training images" in said) == is_said


def test_the_command_to_try_follows_from_how_the_run_started():
    def remedy(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        digits = open_source("digits")
        return overfitting(config, {"loss": 0.1}, {"loss": 3.0}, digits)

    assert "features_folder --data 'folder:my photos' --out" in remedy()
    assert "--transfer features" in remedy(network=Network(init="published"))
    published, features = Network(init="published"), Transfer(transfer="features")
    assert "--weight-decay" in remedy(network=published, transfer=features)
