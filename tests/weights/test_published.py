import dataclasses
import importlib.resources
import json
import re

import pytest

import cnn_flax
from cnn_flax.weights import published_weights


def every():
    return [w for name in cnn_flax.list_models() for w in published_weights(name)]


def test_every_list_is_of_a_model_that_there_is():
    file = importlib.resources.files("cnn_flax.weights") / "published.json"
    names = json.loads(file.read_text("utf-8"))["weights"]
    assert set(names) <= set(cnn_flax.list_models())
    assert every()


def test_weights_of_an_address_can_be_checked():
    for weights in every():
        assert (weights.url is None) != (weights.hub_id is None)
        if weights.url:
            assert re.search(r"-[0-9a-f]{8}\.pth$", weights.url)


def test_the_preprocessing_is_whole():
    for weights in every():
        assert weights.interpolation in ("bilinear", "bicubic")
        assert len(weights.mean) == len(weights.std) == 3
        assert weights.image_size <= weights.resize
        assert weights.image_size / weights.resize == pytest.approx(
            weights.crop_pct, abs=0.01
        )
        assert weights.test_image_size >= weights.image_size


def test_torchvisions_weights_come_first():
    first, second, *_ = published_weights("resnet50")
    assert first.url == "https://download.pytorch.org/models/resnet50-0676ba61.pth"
    assert (first.image_size, first.resize, first.crop_pct) == (224, 256, 0.875)
    assert (first.imagenet_top1, first.classes) == (76.13, 1000)
    assert second.source == "torchvision IMAGENET1K_V2"
    assert (second.resize, second.crop_pct) == (232, 224 / 232)


def test_timms_default_comes_first_where_torchvision_has_none():
    first = published_weights("resnet50d")[0]
    assert first.hub_id == "timm/resnet50d.ra2_in1k"
    assert (first.image_size, first.test_image_size, first.resize) == (224, 288, 256)
    assert (first.interpolation, first.license) == ("bicubic", "apache-2.0")


def test_a_model_without_published_weights_has_none():
    assert published_weights("lab_resnet34") == ()


def test_entries_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        published_weights("resnet18")[0].classes = 3  # pyright: ignore
