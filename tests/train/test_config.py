import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import (
    Augment,
    Config,
    Input,
    Network,
    Optimization,
    Parallelism,
    Selection,
    UnevenClasses,
    may_change,
    random_changes,
    unreached,
)
from train.data.select import decode_options
from train.errors import UserError
from train.learn.inputs import train_inputs


@pytest.mark.parametrize(
    ("group", "field", "value", "allowed"),
    [
        (Input, "image_size", 0, "at least 1"),
        (Input, "batch_size", -1, "at least 1"),
        (Input, "mean", (1.0, 2.0), "one or three numbers"),
        (Input, "std", (), "one or three numbers"),
        (Input, "std", (0.0,), "above 0"),
        (Input, "load_size", 100, "0 or at least the image size 224"),
        (Augment, "crop_scale", 1.5, "in [0, 1]"),
        (Input, "crop_pct", 0.0, "in (0, 1]"),
        (Input, "max_bad_share", 1.5, "in [0, 1]"),
        (Input, "threads", -1, "at least 0"),
        (Selection, "val_share", 1.0, "in [0, 1)"),
        (Selection, "count", -1, "at least 0"),
        (Selection, "share", 0.0, "in (0, 1]"),
        (Selection, "labels_per_class", -1, "at least 0"),
        (Selection, "imbalance", 0.5, "at least 1"),
        (UnevenClasses, "logit_adjustment", -1.0, "at least 0"),
        (Augment, "flip", 1.5, "in [0, 1]"),
        (Augment, "crop_padding", -1, "at least 0"),
        (Augment, "vertical_flip", -0.5, "in [0, 1]"),
        (Augment, "erase", 2.0, "in [0, 1]"),
        (Augment, "operations", 0, "at least 1"),
        (Augment, "magnitude", 31, "in [0, 30]"),
        (Augment, "mixup", -0.2, "at least 0"),
        (Augment, "cutmix", -1.0, "at least 0"),
        (Input, "train_size", -1, "at least 0"),
        (Optimization, "label_smoothing", -0.1, "in [0, 1]"),
        (Optimization, "learning_rate", 0.0, "above 0"),
        (Optimization, "warmup_epochs", -1.0, "at least 0"),
        (Optimization, "momentum", 1.0, "in [0, 1)"),
        (Optimization, "weight_decay", -1.0, "at least 0"),
        (Optimization, "step_epochs", 0.0, "above 0"),
        (Optimization, "step_factor", 1.5, "in (0, 1]"),
        (Optimization, "clip_norm", -1.0, "at least 0"),
        (Optimization, "gradient_accumulation", 0, "at least 1"),
        (Optimization, "ema_decay", 1.0, "in [0, 1)"),
        (Parallelism, "devices", -1, "at least 0"),
        (Config, "epochs", 0, "at least 1"),
        (Config, "seed", -1, "in [0, 2 ** 32)"),
        (Config, "log_every", 0, "at least 1"),
        (Config, "checkpoint_every", -1, "at least 0"),
    ],
)
def test_a_value_out_of_range_is_refused(group, field, value, allowed):
    flag = "--" + field.replace("_", "-")
    message = re.escape(f"{flag} must be {allowed}, got {value}.")
    with pytest.raises(UserError, match=message):
        group(**{field: value})


def test_only_one_way_to_choose_a_subset_is_allowed():
    with pytest.raises(UserError, match="one of --count, --share and --labels"):
        Selection(count=10, share=0.5)


def test_only_one_way_to_crop_is_allowed():
    with pytest.raises(UserError, match="one of --crop-padding and --crop-scale"):
        Augment(crop_padding=1, crop_scale=0.5)
    with pytest.raises(UserError, match="--crop-at-decode needs --crop-scale"):
        Augment(crop_at_decode=True)
    windows = Augment(crop_scale=0.5, crop_at_decode=True)
    with pytest.raises(UserError, match="one of --crop-at-decode and --load-size"):
        Config(input=Input(load_size=256), augment=windows)


def test_local_batch_norm_needs_pmap():
    with pytest.raises(UserError, match="--bn local needs --parallel pmap"):
        Parallelism(bn="local")
    assert Parallelism("pmap", bn="local").bn == "local"


@pytest.mark.parametrize("field", ["num_classes", "dtype"])
def test_model_fields_cannot_set_the_classes_or_the_dtype(field):
    with pytest.raises(UserError, match=f"cannot set {field}"):
        Network(model_fields={field: 1})


# A value of each field that affects images, other than its default, and the flags by
# which it changes them at random. Images are of 8 px.
CHANGES = {
    "input": {
        "data": ("npz:elsewhere", []),
        "image_size": (9, []),
        "train_size": (6, []),
        "load_size": (12, ["--load-size"]),
        "batch_size": (32, []),
        "mean": ((0.1, 0.2, 0.3), []),
        "std": ((0.5,), []),
        "crop_pct": (0.5, []),
        "interpolation": ("nearest", []),
        "crop_mode": ("squash", []),
        "max_bad_share": (0.5, []),
        "threads": (3, []),
        "max_pixels": (10**9, []),
        "max_unpacked_bytes": (10**9, []),
    },
    "augment": {
        "crop_padding": (2, ["--crop-padding"]),
        "crop_scale": (0.25, ["--crop-scale"]),
        "crop_at_decode": (True, ["--crop-scale"]),
        "flip": (0.5, ["--flip"]),
        "vertical_flip": (0.5, ["--vertical-flip"]),
        "policy": ("rand_augment", ["--policy"]),
        "operations": (3, []),
        "magnitude": (20, []),
        "erase": (0.5, ["--erase"]),
        "mixup": (1.0, ["--mixup"]),
        "cutmix": (1.0, ["--cutmix"]),
        "mixed_labels": ("max", []),
    },
}
# Fields that need another one to be set.
NEEDED = {"crop_at_decode": {"crop_scale": 0.25}}
BASE = Config(input=Input(image_size=8))


def with_change(group, field):
    value, _ = CHANGES[group][field]
    changes = {field: value, **NEEDED.get(field, {})}
    options = dataclasses.replace(getattr(BASE, group), **changes)
    return dataclasses.replace(BASE, **{group: options})


def images_differ_between_keys(config):
    """Whether training sees other images under another key, as in `Setup`."""
    options = config.input
    size = options.load_size or options.trained_size
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    batch = {"image": jnp.asarray(pixels), "label": jnp.arange(8)}
    prepare = train_inputs(
        config.augment,
        mean=options.mean,
        std=options.std * (3 if len(options.std) == 1 else 1),
        size=options.trained_size,
        num_classes=8,
    )
    prepare = jax.jit(prepare)
    one, other = (
        prepare(jax.random.split(key, 8), batch, key)["image"]
        for key in map(jax.random.key, (0, 1))
    )
    return bool((one != other).any())


@pytest.mark.parametrize("group", CHANGES)
def test_every_field_that_affects_images_is_in_the_table(group):
    default = getattr(BASE, group)
    fields = [field.name for field in dataclasses.fields(default)]
    assert list(CHANGES[group]) == fields
    for field, (value, _) in CHANGES[group].items():
        assert value != getattr(default, field)


@pytest.mark.parametrize(
    ("group", "field"),
    [
        pytest.param(group, field, marks=[pytest.mark.slow] * (field == "policy"))
        for group in CHANGES
        for field in CHANGES[group]
    ],
)
def test_a_field_is_marked_random_if_and_only_if_it_changes_images_at_random(
    group, field
):
    config = with_change(group, field)
    # Random windows at decode are drawn on the host, before the step's keys.
    at_decode = "window_scale" in decode_options(config, training=True)
    assert at_decode == (field == "crop_at_decode")
    is_random = images_differ_between_keys(config) or at_decode
    assert is_random == bool(random_changes(config))
    assert random_changes(config) == CHANGES[group][field][1]


def test_by_default_no_image_is_changed_at_random():
    assert not images_differ_between_keys(BASE)
    assert random_changes(Config()) == []


def test_images_loaded_at_the_size_in_training_are_not_changed_at_random():
    config = dataclasses.replace(BASE, input=Input(image_size=8, load_size=8))
    assert random_changes(config) == []
    assert not images_differ_between_keys(config)


def test_several_random_changes_are_named_in_the_order_of_the_flags():
    augment = Augment(flip=0.5, policy="trivial_augment", cutmix=1.0)
    config = Config(input=Input(load_size=256), augment=augment)
    expected = ["--load-size", "--flip", "--policy", "--cutmix"]
    assert random_changes(config) == expected


def test_only_what_changes_no_result_may_change_when_a_run_is_resumed():
    assert may_change() == {
        "max_bad_share",
        "threads",
        "parallel",
        "devices",
        "mesh",
        "remat",
        "tensorboard",
    }


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("optimization", {"warmup_epochs": 3.0}),
        ("optimization", {"schedule": "step", "step_epochs": 3.0}),
        (
            "unlabelled",
            {"unlabelled": "rest", "consistency": "fixmatch", "ramp_up_epochs": 3.5},
        ),
    ],
)
def test_a_period_longer_than_the_run_is_reported(group, name):
    default = getattr(Config(), group)
    config = Config(epochs=3, **{group: dataclasses.replace(default, **name)})
    flag = f"--{list(name)[-1].replace('_', '-')}"
    (line,) = unreached(config)
    assert line.startswith(flag) and "--epochs 3" in line
    assert unreached(dataclasses.replace(config, epochs=4)) == []
