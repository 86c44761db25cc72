import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import train
from tests.support.runs import untrained_run
from train.__main__ import main
from train.config import Augment, Config, Input, Network
from train.data import open_source
from train.errors import UserError
from train.run.inference import evaluate_run
from train.run.load import load_run
from train.run.record import pixel_inputs
from train.run.views import loaded_size, make_views, mean_log_probs

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def run(programs, tmp_path_factory):
    fields = {"stage_sizes": (1,), "width": 4, "small_inputs": True}
    images = Input("digits", image_size=8, batch_size=100, mean=(0.3,), std=(0.4,))
    augment = Augment(crop_padding=1, mixup=0.2)
    config = Config(images, network=Network("resnet18", fields), augment=augment)
    return untrained_run(tmp_path_factory.mktemp("run") / "run", config)


def by_hand(run, views_of):
    """Mean probabilities of views that NumPy makes: `[n, K]`."""
    loaded, source = load_run(run), open_source("digits", "test")
    prepare = pixel_inputs(loaded.record)
    pixels = np.stack([source.read(i) for i in range(len(source))])
    probabilities = [
        np.asarray(
            jax.nn.softmax(
                loaded.model.apply(loaded.variables, prepare(jnp.asarray(view)))
            ),
            np.float64,
        )
        for view in views_of(pixels)
    ]
    return np.mean(probabilities, axis=0), source


def test_flipped_images_are_averaged(run):
    expected, source = by_hand(run, lambda x: [x, x[:, :, ::-1]])
    evaluation, _ = evaluate_run(run, split="test", tta="flip")
    np.testing.assert_allclose(evaluation.confidence, expected.max(1), rtol=1e-4)
    loss = -np.log(expected[np.arange(len(source)), source.labels])
    np.testing.assert_allclose(evaluation.loss, loss, rtol=1e-4)
    # The same, one file at a time.
    path = run.parent / "digit.png"
    Image.fromarray(source.read(0).squeeze()).save(path)
    found = train.predict(run, path, tta="flip").probabilities
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)


def test_five_windows_are_of_a_larger_image(run):
    assert loaded_size("crops5", 8) == 10 and loaded_size("crops5", 224) == 256
    assert loaded_size("flip", 8) == 8
    pixels = np.arange(100, dtype=np.uint8).reshape(1, 10, 10, 1)
    views = make_views("crops5", 8, lambda x: x)
    corners = [np.asarray(view(pixels))[0, 0, 0, 0] for view in views]
    assert corners == [0, 2, 20, 22, 11]
    evaluation, _ = evaluate_run(run, split="test", tta="crops5")
    assert np.isfinite(evaluation.loss).all()


def test_draws_of_the_runs_augmentation_are_the_same_in_every_call(run):
    first, second = (evaluate_run(run, split="test", tta="policy")[0] for _ in range(2))
    np.testing.assert_array_equal(first.loss, second.loss)
    loaded = load_run(run)
    inputs = {name: loaded.record["input"][name] for name in ("mean", "std")}
    views = make_views("policy", 8, lambda x: x, loaded.config, inputs)
    pixels = jnp.asarray(open_source("digits", "test").read(0)[None])
    drawn = np.stack([np.asarray(view(pixels)) for view in views])
    assert len(views) == 8 and len(np.unique(drawn.reshape(8, -1), axis=0)) > 4


def test_the_mean_is_of_probabilities_at_the_temperature():
    logits = jnp.array([[[0.0, 2.0]], [[1.0, -1.0]]])

    class Net:
        def apply(self, variables, images):
            return images

    views = [lambda pixels, i=i: logits[i] + pixels for i in range(2)]
    predict = mean_log_probs(Net(), views, 2.0)  # pyright: ignore
    expected = jax.nn.softmax(logits / 2).mean(0)
    found = jnp.exp(predict({}, jnp.zeros((1, 2))))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_needs_a_run_says_so():
    with pytest.raises(UserError, match="--tta policy .* needs a run"):
        make_views("policy", 8, lambda x: x)
    with pytest.raises(UserError, match="one of none, flip, crops5, policy; got 'x'"):
        make_views("x", 8, lambda x: x)  # pyright: ignore
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--tta", "x"])
