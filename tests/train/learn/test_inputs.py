from functools import partial
from typing import get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax import augment
from train.config import Augment, Policy
from train.learn.inputs import eval_inputs, train_inputs

MEAN, STD = (0.5,), (0.25,)


@pytest.fixture
def batch():
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 1), np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.arange(6)}


def keys(seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds))


KEY = jax.random.key(9)  # For draws that are made once per batch.


def prepare(options, batch, seeds=tuple(range(6))):
    make = train_inputs(options, mean=MEAN, std=STD, num_classes=6)
    return make(keys(seeds), batch, KEY)


def test_pixels_become_normalised_floats():
    pixels = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
    expected = jnp.array([-2.0, -1.2, 2.0]).reshape(1, 1, 3, 1)
    out = eval_inputs(pixels, mean=MEAN, std=STD)
    chex.assert_trees_all_close(out, expected, rtol=1e-6)
    assert out.dtype == jnp.float32


def test_without_augmentation_training_inputs_equal_evaluation_inputs(batch):
    out = prepare(Augment(), batch)
    expected = eval_inputs(batch["image"], mean=MEAN, std=STD)
    chex.assert_trees_all_equal(out, {"image": expected, "label": batch["label"]})


def test_a_flip_of_probability_1_mirrors_every_image(batch):
    out = prepare(Augment(flip=1.0), batch)["image"]
    expected = eval_inputs(batch["image"][:, :, ::-1], mean=MEAN, std=STD)
    chex.assert_trees_all_equal(out, expected)


def test_padding_is_black_and_keeps_the_size():
    pixels = jnp.full((32, 5, 4, 1), 255, jnp.uint8)
    white = {"image": pixels, "label": jnp.zeros(32, int)}
    out = prepare(Augment(crop_padding=2), white, tuple(range(32)))["image"]
    chex.assert_shape(out, (32, 5, 4, 1))
    assert set(np.unique(out)) == {-2.0, 2.0}  # Black and white, normalised.


@pytest.mark.slow
def test_windows_of_the_models_size_are_cropped_from_larger_images(batch):
    images = jnp.full((6, 12, 12, 1), 255, jnp.uint8)
    large = {"image": images.at[:, :, :6].set(0), "label": batch["label"]}
    for options in (Augment(), Augment(crop_scale=0.25)):
        make = train_inputs(options, mean=MEAN, std=STD, size=8)
        out = make(keys(range(6)), large, KEY)["image"]
        chex.assert_shape(out, (6, 8, 8, 1))
        assert len({float(image.mean()) for image in out}) > 2


def test_images_that_were_cropped_at_decode_are_not_cropped_again(batch):
    out = prepare(Augment(crop_scale=0.1, crop_at_decode=True), batch)
    expected = eval_inputs(batch["image"], mean=MEAN, std=STD)
    chex.assert_trees_all_equal(out["image"], expected)


def test_a_vertical_flip_of_probability_1_turns_every_image_upside_down(batch):
    out = prepare(Augment(vertical_flip=1.0), batch)["image"]
    expected = eval_inputs(batch["image"][:, ::-1], mean=MEAN, std=STD)
    chex.assert_trees_all_equal(out, expected)


def test_erased_boxes_have_the_mean_colour():
    white = {"image": jnp.full((6, 20, 20, 1), 255, jnp.uint8), "label": jnp.arange(6)}
    out = prepare(Augment(erase=1.0), white)["image"]
    assert set(np.unique(out)) == {0.0, 2.0}
    assert ((out == 0).any(axis=(1, 2, 3))).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "function"),
    [
        ("rand_augment", partial(augment.rand_augment, num_ops=1, magnitude=15)),
        (
            "noisy_student",
            partial(augment.noisy_student_augment, num_ops=1, magnitude=15),
        ),
        ("trivial_augment", augment.trivial_augment),
        ("augmix", augment.augmix),
        ("auto_augment_svhn", partial(augment.auto_augment, policy="svhn")),
    ],
)
def test_a_policy_is_the_librarys_with_the_values_of_the_flags(batch, policy, function):
    images = {"image": jnp.repeat(batch["image"], 3, -1), "label": batch["label"]}
    key = jax.vmap(jax.random.split, (0, None))(keys(range(6)), 6)[:, 3]
    options = Augment(policy=policy, operations=1, magnitude=15)
    make = train_inputs(options, mean=(0.0,) * 3, std=(1.0,) * 3)
    out = jax.jit(make)(keys(range(6)), images, KEY)["image"]
    # Rounding differs: the compiler fuses the scaling differently.
    expected = jax.jit(function)(key, images["image"] / 255)
    chex.assert_trees_all_close(out, expected, atol=1e-5)


@pytest.mark.slow
def test_every_policy_is_implemented():
    for policy in get_args(Policy):
        images = {"image": jnp.zeros((2, 8, 8, 1), jnp.uint8), "label": jnp.arange(2)}
        make = train_inputs(Augment(policy=policy), mean=MEAN, std=STD)
        out = jax.eval_shape(make, keys(range(2)), images, KEY)
        assert out["image"].shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("options", "mix"),
    [
        (Augment(mixup=0.3), partial(augment.mixup, alpha=0.3)),
        (Augment(cutmix=0.7), partial(augment.cutmix, alpha=0.7)),
        (
            Augment(mixup=0.3, cutmix=0.7),
            partial(augment.cutmix_or_mixup, cutmix_alpha=0.7, mixup_alpha=0.3),
        ),
    ],
)
def test_images_are_mixed_last_and_labels_become_soft(batch, options, mix):
    out = prepare(options, batch)
    key = jax.vmap(jax.random.split, (0, None))(keys(range(6)), 6)[:, 5]
    images = eval_inputs(batch["image"], mean=MEAN, std=STD)
    if options.mixup and options.cutmix:
        expected = mix(KEY, images, batch["label"], num_classes=6, keys=key)
    else:
        expected = mix(key, images, batch["label"], num_classes=6)
    chex.assert_trees_all_close((out["image"], out["label"]), expected, rtol=1e-6)
    assert (out["label"].max(-1) < 1).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [Augment(flip=0.5, crop_padding=2), Augment(flip=0.5, crop_scale=0.1)],
)
def test_an_images_augmentation_depends_only_on_its_key(batch, options):
    whole = prepare(options, batch)["image"]
    for i in range(6):
        one = {name: rows[i : i + 1] for name, rows in batch.items()}
        chex.assert_trees_all_equal(prepare(options, one, (i,))["image"][0], whole[i])


def test_jit_equals_eager(batch):
    make = train_inputs(Augment(flip=0.5, crop_padding=1), mean=MEAN, std=STD)
    arguments = keys(range(6)), batch, KEY
    chex.assert_trees_all_close(jax.jit(make)(*arguments), make(*arguments), rtol=1e-6)
