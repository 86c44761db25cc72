import dataclasses

import pytest

from train.config import Augment
from train.images import reading
from train.loop import fit
from train.program import build


@pytest.fixture
def windows(tiny):
    """Windows of 6 px, cut as the images are read; the test is at 8 px."""
    return dataclasses.replace(
        tiny,
        input=dataclasses.replace(tiny.input, train_size=6, crop_pct=0.9),
        augment=Augment(crop_scale=0.5, crop_at_decode=True, policy="rand_augment"),
        epochs=1,
    )


def test_windows_are_cut_in_training_alone(windows):
    assert reading(windows, training=True)["window_scale"] == (0.5, 1.0)
    assert "window_scale" not in reading(windows)
    on_device = dataclasses.replace(windows, augment=Augment(crop_scale=0.5))
    assert "window_scale" not in reading(on_device, training=True)


def test_training_has_a_size_of_its_own(windows):
    program = build(windows)
    assert program.train_options["image_size"] == 6
    assert program.eval_options["image_size"] == 8
    usual = dataclasses.replace(
        windows, input=dataclasses.replace(windows.input, train_size=0)
    )
    assert build(usual).train_options["image_size"] == 8


def test_a_run_trains_on_windows_and_is_judged_on_whole_images(
    windows, tmp_path, quiet
):
    result = fit(windows, tmp_path, console=quiet)
    assert result["steps"] == 14 and result["test_images"] == 359
