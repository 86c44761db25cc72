import dataclasses
import json
import re

import pytest

from train.config import (
    Augment,
    Config,
    Input,
    Network,
    Optimization,
    Parallelism,
    Selection,
)
from train.config_file import config_from_json, config_to_json, flag_values
from train.errors import UserError


def test_a_config_survives_json():
    config = Config(
        input=Input(data="idx:here", mean=(0.1, 0.2, 0.3)),
        network=Network(model_fields={"width": 16, "shortcut": "none"}),
        augment=Augment(flip=0.5),
        optimization=Optimization(optimizer="adamw"),
        seed=7,
    )
    written = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(written) == config


def test_what_an_older_version_did_not_write_takes_its_default():
    written = config_to_json(Config(epochs=7))
    del written["seed"], written["input"]["batch_size"]
    assert config_from_json(written) == Config(epochs=7)


def test_a_field_of_a_newer_version_is_named():
    with pytest.raises(UserError, match="'colour'"):
        config_from_json({"augment": {"colour": 1}})


def test_every_field_is_one_flag():
    groups = dataclasses.asdict(Config()).values()
    count = sum(len(g) if isinstance(g, dict) else 1 for g in groups)
    assert len(flag_values(Config())) == count


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


def test_a_subset_is_chosen_in_one_way():
    with pytest.raises(UserError, match="one of --count, --share and --labels"):
        Selection(count=10, share=0.5)


def test_windows_are_cut_in_one_way():
    with pytest.raises(UserError, match="one of --crop-padding and --crop-scale"):
        Augment(crop_padding=1, crop_scale=0.5)
    with pytest.raises(UserError, match="--crop-at-decode needs --crop-scale"):
        Augment(crop_at_decode=True)
    windows = Augment(crop_scale=0.5, crop_at_decode=True)
    with pytest.raises(UserError, match="one of --crop-at-decode and --load-size"):
        Config(input=Input(load_size=256), augment=windows)


def test_local_statistics_need_pmap():
    with pytest.raises(UserError, match="--bn local needs --parallel pmap"):
        Parallelism(bn="local")
    assert Parallelism("pmap", bn="local").bn == "local"


@pytest.mark.parametrize("field", ["num_classes", "dtype"])
def test_model_fields_cannot_set_what_follows_from_elsewhere(field):
    with pytest.raises(UserError, match=f"cannot set {field}"):
        Network(model_fields={field: 1})
