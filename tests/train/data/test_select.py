import dataclasses

import numpy as np
import pytest
from PIL import Image

from train.config import Augment, Selection, Unlabelled
from train.data import SourceError
from train.data.select import (
    decode_options,
    evaluation_images,
    open_unlabelled,
    training_images,
    unlabelled_images,
)
from train.errors import UserError
from train.run.loop import fit
from train.run.program import build


@pytest.fixture
def windows(tiny):
    """Windows of 6 px, cropped as the images are decoded; evaluation is at 8 px."""
    return dataclasses.replace(
        tiny,
        input=dataclasses.replace(tiny.input, train_size=6, crop_pct=0.9),
        augment=Augment(crop_scale=0.5, crop_at_decode=True, policy="rand_augment"),
        epochs=1,
    )


def test_windows_are_cropped_only_in_training(windows):
    assert decode_options(windows, training=True)["window_scale"] == (0.5, 1.0)
    assert "window_scale" not in decode_options(windows)
    on_device = dataclasses.replace(windows, augment=Augment(crop_scale=0.5))
    assert "window_scale" not in decode_options(on_device, training=True)


def test_training_has_its_own_size(windows):
    program = build(windows)
    assert program.train_batch.image_size == 6
    assert program.eval_batch.image_size == 8
    usual = dataclasses.replace(
        windows, input=dataclasses.replace(windows.input, train_size=0)
    )
    assert build(usual).train_batch.image_size == 8


@pytest.mark.slow
def test_a_run_trains_on_windows_and_is_evaluated_on_whole_images(
    windows, tmp_path, quiet
):
    result = fit(windows, tmp_path, console=quiet)
    assert result["steps"] == 14 and result["test_images"] == 359


@pytest.fixture
def few(tiny):
    """Five labels per class; 0.1 of the training images is held out for validation."""
    return dataclasses.replace(
        tiny, selection=Selection(labels_per_class=5, val_share=0.1), seed=3
    )


def names(source):
    return {source.name(i) for i in range(len(source))}


def test_the_rest_are_the_training_images_left_out(few):
    used, rest = names(training_images(few)), names(open_unlabelled(few, "rest"))
    val, test = (names(evaluation_images(few, split=s)) for s in ("val", "test"))
    assert [len(part) for part in (used, rest)] == [50, 1797 - 50 - len(val | test)]
    assert len(used | rest | val | test) == 1797


def test_the_data_itself_as_unlabelled_has_no_evaluation_image(few):
    whole = names(open_unlabelled(few, "digits"))
    assert whole == names(training_images(few)) | names(open_unlabelled(few, "rest"))
    assert names(open_unlabelled(few, "digits", "test")) == names(
        evaluation_images(few, split="test")
    )


def test_the_rest_must_not_be_empty_and_has_no_test_split(tiny, few):
    with pytest.raises(UserError, match="No images are left over: the rest are the"):
        open_unlabelled(tiny, "rest")
    with pytest.raises(UserError, match="there is no test split of them"):
        open_unlabelled(few, "rest", "test")


def test_files_serve_only_as_unlabelled_images(tiny, tmp_path):
    for i in range(3):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    spec = f"files:{tmp_path}"
    config = dataclasses.replace(
        tiny, unlabelled=Unlabelled(spec, consistency="fixmatch")
    )
    source = unlabelled_images(config)
    assert source is not None and len(source) == 3
    np.testing.assert_array_equal(source.columns["image_index"], [0, 1, 2])
    labelled = dataclasses.replace(
        tiny, input=dataclasses.replace(tiny.input, data=spec)
    )
    for images in (training_images, evaluation_images):
        with pytest.raises(SourceError, match="has no labels to learn from"):
            images(labelled)
