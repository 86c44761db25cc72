from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import Augment
from train.inputs import eval_inputs, train_inputs

MEAN, STD = (0.5,), (0.25,)


@pytest.fixture
def batch():
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 1), np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.arange(6)}


def keys(seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds))


def prepare(options, batch, seeds=tuple(range(6))):
    return train_inputs(options, mean=MEAN, std=STD)(keys(seeds), batch)


def test_pixels_become_normalised_floats():
    pixels = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
    expected = jnp.array([-2.0, -1.2, 2.0]).reshape(1, 1, 3, 1)
    out = eval_inputs(pixels, mean=MEAN, std=STD)
    chex.assert_trees_all_close(out, expected, rtol=1e-6)
    assert out.dtype == jnp.float32


def test_without_augmentation_training_sees_what_evaluation_sees(batch):
    out = prepare(Augment(), batch)
    expected = eval_inputs(batch["image"], mean=MEAN, std=STD)
    chex.assert_trees_all_equal(out, {"image": expected, "label": batch["label"]})


def test_a_flip_for_certain_mirrors_every_image(batch):
    out = prepare(Augment(flip=1.0), batch)["image"]
    expected = eval_inputs(batch["image"][:, :, ::-1], mean=MEAN, std=STD)
    chex.assert_trees_all_equal(out, expected)


def test_padding_is_black_and_the_size_stays():
    white = {"image": jnp.full((32, 5, 4, 1), 255, jnp.uint8)}
    out = prepare(Augment(crop_padding=2), white, tuple(range(32)))["image"]
    chex.assert_shape(out, (32, 5, 4, 1))
    assert set(np.unique(out)) == {-2.0, 2.0}  # Black and white, normalised.


def test_windows_of_the_models_size_are_cut_from_larger_images(batch):
    images = jnp.full((6, 12, 12, 1), 255, jnp.uint8)
    large = {"image": images.at[:, :, :6].set(0), "label": batch["label"]}
    for options in (Augment(), Augment(crop_scale=0.25)):
        make = train_inputs(options, mean=MEAN, std=STD, size=8)
        out = make(keys(range(6)), large)["image"]
        chex.assert_shape(out, (6, 8, 8, 1))
        assert len({float(image.mean()) for image in out}) > 2


@pytest.mark.parametrize(
    "augment",
    [Augment(flip=0.5, crop_padding=2), Augment(flip=0.5, crop_scale=0.1)],
)
def test_an_images_draw_depends_on_its_key_alone(batch, augment):
    whole = prepare(augment, batch)["image"]
    for i in range(6):
        one = {name: rows[i : i + 1] for name, rows in batch.items()}
        chex.assert_trees_all_equal(prepare(augment, one, (i,))["image"][0], whole[i])


def test_jit_equals_eager(batch):
    f = partial(train_inputs(Augment(0.5, 1), mean=MEAN, std=STD), keys(range(6)))
    chex.assert_trees_all_close(jax.jit(f)(batch), f(batch), rtol=1e-6)
