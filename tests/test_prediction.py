from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnn_flax
from cnn_flax import prediction
from cnn_flax.prediction import in_parts, part_size
from tests.support.model_checks import relative_norm
from tests.support.small_models import random_variables, variable_shapes

SHAPE = (8, 8, 3)
FIELDS = {"num_classes": 3, "stage_sizes": (1,), "width": 4, "small_inputs": True}
RESNET = cnn_flax.create_model("resnet18", **FIELDS)
VARIABLES = random_variables(RESNET, 1, *SHAPE)


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *SHAPE), np.float32)


@pytest.fixture
def one_cpu(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


class Weighed(nn.Module):
    """Logits of `features` classes from one product; counts how often it is traced."""

    features: int = 2
    traced = 0

    @nn.compact
    def __call__(self, x):
        Weighed.traced += 1
        return nn.Dense(self.features, use_bias=False)(x.mean((1, 2)))


def weighed(monkeypatch):
    """A prediction function, and the number of times that it traced its model."""
    model: Any = Weighed()
    variables = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    monkeypatch.setattr(prediction, "in_parts", lambda f, v, x: f(v, x))
    predict = cnn_flax.predict_fn(model, variables)
    before = Weighed.traced

    def expected(x):
        return x.mean((1, 2)) @ variables["params"]["Dense_0"]["kernel"]

    return predict, expected, lambda: Weighed.traced - before


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 0.03)])
def test_logits_are_those_of_the_model(dtype, tolerance, one_cpu, monkeypatch):
    monkeypatch.setattr(prediction, "part_size", lambda *_: 2)
    model = cnn_flax.create_model("resnet18", dtype=jnp.dtype(dtype), **FIELDS)
    predict = cnn_flax.predict_fn(model, VARIABLES)
    batch = images(5)
    expected: Any = model.apply(VARIABLES, jnp.asarray(batch))
    for given in (batch, jnp.asarray(batch)):
        logits = predict(given)
        assert logits.shape == (5, 3) and logits.dtype == jnp.float32
        assert relative_norm(logits, expected) < tolerance
    # JAX's images are not donated: they can be read again.
    np.testing.assert_array_equal(given, batch)


def test_pixels_are_prepared_in_the_program():
    def prepare(pixels):
        return pixels.astype(jnp.float32) / 255

    predict = cnn_flax.predict_fn(RESNET, VARIABLES, prepare=prepare)
    pixels = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, *SHAPE)
    expected: Any = RESNET.apply(VARIABLES, jnp.asarray(pixels, jnp.float32) / 255)
    assert relative_norm(predict(pixels), expected) < 1e-5


def test_a_last_smaller_batch_is_padded_and_a_size_that_returns_is_compiled(
    monkeypatch,
):
    predict, expected, traced = weighed(monkeypatch)
    counts = []
    for count in (4, 4, 3, 1, 3, 3, 1, 6, 5):
        batch = images(count, seed=count)
        np.testing.assert_allclose(predict(batch), expected(batch), rtol=1e-5)
        counts.append(traced())
    # 4 | 3 and 1 padded | 3 returns | 1 returns | 6 is larger | 5 padded.
    assert counts == [1, 1, 1, 1, 2, 2, 3, 4, 4]


def test_images_of_another_size_or_dtype_are_not_padded_to_those_compiled(monkeypatch):
    predict, expected, traced = weighed(monkeypatch)
    predict(images(4))
    wider = np.ones((2, 8, 16, 3), np.float32)
    np.testing.assert_allclose(predict(wider), expected(wider), rtol=1e-5)
    assert traced() == 2
    assert predict(jnp.ones((2, *SHAPE), jnp.bfloat16)).shape == (2, 2)
    assert traced() == 3


def test_a_caller_may_compile_it(monkeypatch):
    predict, expected, _ = weighed(monkeypatch)
    batch = images(3)
    probabilities = jax.jit(lambda x: jax.nn.softmax(predict(x)))(batch)
    np.testing.assert_allclose(
        probabilities, jax.nn.softmax(expected(batch)), rtol=1e-5
    )


def test_bad_arguments_say_what_is_allowed(monkeypatch):
    predict, _, _ = weighed(monkeypatch)
    with pytest.raises(ValueError, match=r"\[8, 8, 3\]; image\[None\] makes a batch"):
        predict(images(1)[0])
    with pytest.raises(TypeError, match=r"must be a flax\.linen\.Module"):
        cnn_flax.predict_fn(RESNET.apply, VARIABLES)  # pyright: ignore


@pytest.mark.parametrize(
    "name, size",
    [
        # Images per second in parts of 16 images of 224 px, on 2 cores of an AMD EPYC,
        # were highest at these sizes; AlexNet's and VGG's when computed whole, as
        # batches of up to two parts are.
        ("alexnet", 64),
        ("vgg16", 8),
        pytest.param("googlenet", 4, marks=pytest.mark.slow),
        pytest.param("resnet50", 2, marks=pytest.mark.slow),
        pytest.param("densenet121", 2, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 2, marks=pytest.mark.slow),
    ],
)
def test_a_part_is_as_large_as_the_net_asks_for(name, size):
    model = cnn_flax.create_model(name)
    variables = variable_shapes(model, 1, 224, 224, 3)
    assert part_size(model.apply, variables, (224, 224, 3), jnp.float32) == size


def test_the_size_of_a_part_by_hand(monkeypatch):
    monkeypatch.setattr(prediction, "_LEAST_TRAFFIC", 0)
    # 3 x 10 weights of 4 bytes; 10 activations of 4 bytes, written and read.
    model: Any = Weighed(features=10)
    variables = variable_shapes(model, 1, *SHAPE)
    assert part_size(model.apply, variables, SHAPE, jnp.float32) == 2
    monkeypatch.setattr(prediction, "_LEAST_TRAFFIC", 8 * 80 + 1)
    assert part_size(model.apply, variables, SHAPE, jnp.float32) == 16
    # Without products there is nothing to split by.
    assert part_size(lambda v, x: x[:, 0, 0], {}, SHAPE, jnp.float32) is None


@pytest.mark.parametrize("count", [4, 5, 8, 11])
def test_parts_give_the_outputs_of_the_full_batch(count, one_cpu, monkeypatch):
    monkeypatch.setattr(prediction, "part_size", lambda *_: 2)
    apply: Any = RESNET.apply
    batch = jnp.asarray(images(count))

    def taken(batch):
        return in_parts(apply, VARIABLES, batch)

    assert ("scan[" in str(jax.make_jaxpr(taken)(batch))) == (count > 4)
    assert relative_norm(jax.jit(taken)(batch), apply(VARIABLES, batch)) < 1e-5


def test_images_on_several_devices_are_not_split(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    monkeypatch.setattr(prediction, "part_size", lambda *_: 1)
    seen = []
    in_parts(lambda v, x: seen.append(x.shape) or x, {}, jnp.ones((9, 8, 8, 1)))
    assert seen == [(9, 8, 8, 1)]
