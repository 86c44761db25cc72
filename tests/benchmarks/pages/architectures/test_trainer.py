import numpy as np
import pytest

from benchmarks.pages.architectures.experiments import SmallNet, _transformed
from benchmarks.pages.architectures.trainer import Images, Trainer, digits


@pytest.mark.slow
def test_a_run_learns_and_follows_from_its_seed():
    train = digits("train")
    few = Images(train.image[:320], train.label[:320])
    trainer = Trainer(SmallNet("BatchNorm"), epochs=3)
    first, again, other = (trainer.run(few, {"train": few}, s) for s in (0, 0, 1))
    assert first["loss"] == again["loss"]
    assert first["accuracy"] == again["accuracy"]
    assert first["loss"] != other["loss"]
    assert first["loss"][-1] < first["loss"][0]
    assert first["accuracy"]["train"] > 0.5


def test_digits_are_turned_and_shrunk_about_the_centre():
    images = Images(np.ones((20, 8, 8, 1), np.float32), np.zeros(20, np.int32))
    half = _transformed(images, 0, 0.5, 0.5).image
    assert half.shape == (20, 16, 16, 1)
    np.testing.assert_allclose(half[:, 5:11, 5:11], 1, rtol=1e-6)
    assert not half[:, :3].any()
    assert not half[:, :, :3].any()
    # A square of 8 px turned by 45 degrees reaches 11.3 / 2 px from the centre.
    turned = _transformed(images, 45, 0.5, 0.5, least=45).image
    np.testing.assert_allclose(turned[:, 7:9, 4:12], 1, atol=1e-5)
    assert not turned[:, 3, 3:6].any()
