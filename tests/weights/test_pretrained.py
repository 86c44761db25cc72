import dataclasses
import hashlib
import json
import logging
import pathlib
import sys
from typing import Any

import huggingface_hub
import huggingface_hub.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

import cnn_flax
from cnn_flax.weights import (
    CheckpointError,
    PublishedWeights,
    WeightsError,
    load_pretrained,
    pretrained,
    published_weights,
    sources,
    to_torch,
)
from cnn_flax.weights.dialects import dialects, rule_of
from cnn_flax.weights.identify import Twin, identify_weights
from cnn_flax.weights.layouts import to_torch_layout
from cnn_flax.weights.native import write
from cnn_flax.weights.variables import flatten, variable_shapes
from tests.support.small_weights import SMALL, random_variables, save_run


def save(path, variables, name="resnet18"):
    safetensors.numpy.save_file(to_torch(name, variables), path)
    return path


def assert_same(ours, theirs, but=()):
    ours, theirs = flatten(ours), flatten(theirs)
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        if path not in but:
            np.testing.assert_array_equal(x, theirs[path], err_msg=path)


def logits(model, variables, channels=3) -> Any:
    images = np.random.default_rng(1).random((2, 16, 16, 1), np.float32)
    return model.apply(variables, jnp.repeat(images, channels, axis=3))


HEAD = ("params/head/kernel", "params/head/bias")


# Files and folders.


def test_a_file_gives_a_model_of_its_sizes(tmp_path):
    variables = random_variables()
    path = save(tmp_path / "weights", variables)
    model, loaded = load_pretrained("resnet18", path, **SMALL)
    assert_same(loaded, variables)
    assert logits(model, loaded).shape == (2, 5)


def test_a_path_may_be_a_string_below_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    variables = random_variables()
    save(tmp_path / "weights", variables)
    _, loaded = load_pretrained("resnet18", "~/weights", **SMALL)
    assert_same(loaded, variables)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_hugging_faces_libraries_is_read(tmp_path, file):
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    variables = random_variables()
    save(tmp_path / "weights", variables).rename(tmp_path / file)
    _, loaded = load_pretrained("resnet18", tmp_path, **SMALL)
    assert_same(loaded, variables)


def save_shards(folder, variables):
    """Saves two files and their index."""
    state_dict = to_torch("resnet18", variables)
    names, weight_map = sorted(state_dict), {}
    for k in (0, 1):
        file = f"model-{k + 1:05}-of-00002.safetensors"
        part = {name: state_dict[name] for name in names[k::2]}
        safetensors.numpy.save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    metadata = {"total_size": sum(x.nbytes for x in state_dict.values())}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    return path


def test_shards_are_read_from_their_folder_and_their_index(tmp_path):
    variables = random_variables()
    index = save_shards(tmp_path, variables)
    for source in (tmp_path, index):
        _, loaded = load_pretrained("resnet18", source, **SMALL)
        assert_same(loaded, variables)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    message = "2 shards .*, of which 1 are missing: 'model-00002-of-00002.safetensors'"
    with pytest.raises(WeightsError, match=message):
        load_pretrained("resnet18", tmp_path, **SMALL)


def test_parameters_have_the_dtype_of_the_models(tmp_path):
    half = jax.tree.map(lambda x: x.astype(np.float16), random_variables())
    path = save(tmp_path / "weights", half)
    model, loaded = load_pretrained("resnet18", path, dtype=jnp.bfloat16, **SMALL)
    assert model.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(loaded)} == {np.dtype("float32")}
    assert_same(loaded, half)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(WeightsError, match="There is no file or folder .*missing.pth"):
        load_pretrained("resnet18", tmp_path / "missing.pth")
    with pytest.raises(WeightsError, match="holds no weights: no model.safetensors or"):
        load_pretrained("resnet18", tmp_path)
    with pytest.raises(ValueError, match="Nearest: resnet1"):
        load_pretrained("resnet10", tmp_path)


# Other sizes.


def test_a_head_of_another_size_is_fresh_and_said_so(tmp_path, caplog):
    variables = random_variables()
    path = save(tmp_path / "weights", variables)
    model, loaded = load_pretrained("resnet18", path, num_classes=7, **SMALL)
    messages = [r.message for r in caplog.records if r.name == "cnn_flax"]
    assert messages == [
        "resnet18: the head of 5 classes is replaced by a new one of 7."
    ]
    assert caplog.records[0].levelno == logging.WARNING
    assert_same(loaded, variables, but=HEAD)
    images = jnp.zeros((1, 16, 16, 3))
    fresh = jax.jit(model.init)(jax.random.key(0), images)["params"]["head"]
    assert fresh["kernel"].shape == (8, 7)
    np.testing.assert_array_equal(loaded["params"]["head"]["kernel"], fresh["kernel"])


def test_a_head_of_the_same_size_stays(tmp_path, caplog):
    variables = random_variables()
    path = save(tmp_path / "weights", variables)
    _, loaded = load_pretrained("resnet18", path, num_classes=5, **SMALL)
    assert_same(loaded, variables)
    assert not caplog.records


def test_a_head_may_be_left_out_or_added(tmp_path):
    variables = random_variables()
    path = save(tmp_path / "weights", variables)
    model, loaded = load_pretrained("resnet18", path, num_classes=0, **SMALL)
    assert "head" not in loaded["params"]
    assert logits(model, loaded).shape == (2, 8)

    path = save(tmp_path / "headless", loaded)
    model, loaded = load_pretrained("resnet18", path, **SMALL)
    assert "head" not in loaded["params"]
    model, loaded = load_pretrained("resnet18", path, num_classes=4, **SMALL)
    assert logits(model, loaded).shape == (2, 4)


@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
def test_grey_images_give_what_they_give_as_three_channels(tmp_path, name):
    path = save(tmp_path / "weights", random_variables(name), name)
    model, colour = load_pretrained(name, path, **SMALL)
    _, grey = load_pretrained(name, path, in_channels=1, **SMALL)
    np.testing.assert_allclose(
        logits(model, grey, channels=1), logits(model, colour, channels=3), rtol=1e-4
    )


def test_a_head_that_the_model_cannot_have_is_replaced_or_left_out(tmp_path, caplog):
    variables = random_variables()
    entries = to_torch("resnet18", variables)
    entries["fc.0.weight"], entries["fc.0.bias"] = (
        entries.pop("fc.weight"),
        entries.pop("fc.bias"),
    )
    path = tmp_path / "weights"
    safetensors.numpy.save_file(entries, path)
    with pytest.raises(WeightsError, match="All but the head fits: num_classes=0"):
        load_pretrained("resnet18", path, **SMALL)
    model, loaded = load_pretrained("resnet18", path, num_classes=0, **SMALL)
    assert not caplog.records
    assert "head" not in loaded["params"]
    model, loaded = load_pretrained("resnet18", path, num_classes=7, **SMALL)
    assert logits(model, loaded).shape == (2, 7)
    messages = [r.message for r in caplog.records]
    assert messages == ["resnet18: the weights have no head that fits: a new one of 7."]
    assert_same(
        {**loaded, "params": {**loaded["params"], "head": {}}},
        {**variables, "params": {**variables["params"], "head": {}}},
    )


def timms_kernel(kernel, channels):
    """`adapt_input_conv` of timm, for kernels [kh, kw, I, O]."""
    given = kernel.shape[2]
    if channels == given:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.concatenate([kernel] * -(-channels // given), axis=2)
    return repeated[:, :, :channels] * np.float32(given / channels)


@pytest.mark.parametrize("given", [1, 3, 5])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 5, 6, 13, np.int64(4)])
def test_the_first_kernel_takes_any_channels_as_in_timm(tmp_path, given, wanted):
    variables = random_variables(in_channels=given)
    path = save(tmp_path / "weights", variables)
    model, loaded = load_pretrained("resnet18", path, in_channels=wanted, **SMALL)
    kernel = "params/conv1/conv/kernel"
    assert_same(loaded, variables, but=(kernel,))
    expected = timms_kernel(flatten(variables)[kernel], wanted)
    np.testing.assert_allclose(flatten(loaded)[kernel], expected, rtol=1e-6)
    assert logits(model, loaded, channels=wanted).shape == (2, 5)


# One model of each kind of stem.
STEMS = ("resnet18", "resnet18d", "alexnet", "vgg11")
SLOW_STEMS = (
    *("lab_resnet34", "resnet50_dcnv2", "googlenet", "densenet121", "mobilenet_v2"),
    *("seresnet18", "legacy_senet154", "efficientnet_b0", "tf_efficientnet_lite0"),
)


@pytest.mark.parametrize(
    "name", [*STEMS, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW_STEMS)]
)
def test_only_the_first_kernel_depends_on_the_channels(name):
    three, five = (variable_shapes(name, {}, channels) for channels in (3, 5))
    changed = [path for path, x in three.items() if x.shape != five[path].shape]
    assert len(changed) == 1
    height, width, _, features = three[changed[0]].shape
    assert five[changed[0]].shape == (height, width, 5, features)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("in_channels", value) for value in (0, -1, 2.5, "3", True)),
        *(("num_classes", value) for value in (-1, 1.0, "3", False)),
    ],
)
def test_sizes_that_are_no_counts_are_refused(tmp_path, option, value):
    path = save(tmp_path / "weights", random_variables())
    with pytest.raises(WeightsError, match=f"{option} is an integer of at least [01]"):
        load_pretrained("resnet18", path, **{option: value}, **SMALL)


# Runs.


def test_a_run_gives_its_model_and_its_last_checkpoint(tmp_path):
    variables = random_variables()
    run = save_run(tmp_path / "run", variables, steps=(1, 2))
    model, loaded = load_pretrained("resnet18", run)
    assert_same(loaded, jax.tree.map(lambda x: x * 2, variables))
    assert logits(model, loaded).shape == (2, 5)


def test_a_run_may_be_changed_as_any_weights(tmp_path):
    variables = random_variables()
    run = save_run(tmp_path / "run", variables, steps=(1,))
    model, loaded = load_pretrained(
        "resnet18", run, num_classes=2, in_channels=1, drop_path_rate=0.2
    )
    assert model.drop_path_rate == 0.2
    assert_same(loaded, variables_of_sizes(variables, loaded), but=HEAD)
    assert logits(model, loaded, channels=1).shape == (2, 2)


def variables_of_sizes(variables, loaded):
    flat = dict(flatten(variables))
    kernel = "params/conv1/conv/kernel"
    flat[kernel] = flat[kernel].sum(axis=2, keepdims=True)
    return traverse_util.unflatten_dict(flat, sep="/")


def test_a_run_fixes_the_image_size_of_its_shapes(tmp_path):
    # Trainable matrices over height and width: 16 px become 4 and 2.
    fields = {"width": 8, "stage_sizes": [1, 1], "shortcut": "matrix", "num_classes": 5}
    variables = random_variables(**fields)
    model = {"name": "resnet18", "fields": fields}
    run = save_run(tmp_path / "run", variables, steps=(1,), model=model)
    _, loaded = load_pretrained("resnet18", run)
    assert_same(loaded, variables)


def test_a_run_of_another_model_is_refused(tmp_path):
    run = save_run(tmp_path / "run", random_variables())
    with pytest.raises(WeightsError, match="run is a run of resnet18, not of resnet34"):
        load_pretrained("resnet34", run)


def test_fields_that_change_a_runs_parameters_are_refused(tmp_path):
    run = save_run(tmp_path / "run", random_variables())
    with pytest.raises(WeightsError, match="The run has other fields of resnet18"):
        load_pretrained("resnet18", run, width=16)


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    run = save_run(tmp_path / "run", random_variables(), steps=())
    with pytest.raises(WeightsError, match="has no checkpoint yet"):
        load_pretrained("resnet18", run)
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="has no checkpoint yet"):
        load_pretrained("resnet18", run)


def test_a_run_whose_checkpoint_is_of_another_model_is_refused(tmp_path):
    model = {"name": "resnet18", "fields": {"width": 8, "stage_sizes": [2]}}
    run = save_run(tmp_path / "run", random_variables(), model=model)
    with pytest.raises(
        WeightsError, match="step 3 in .* does not fit the model in its"
    ):
        load_pretrained("resnet18", run)


@pytest.mark.parametrize("text", ['{"format": 2}', '{"a": 1}', "{", "[]"])
def test_a_config_that_is_no_runs_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="config.json (is not of a run|cannot be)"):
        load_pretrained("resnet18", tmp_path)


# The Hugging Face Hub.


def hub(monkeypatch, download):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_id_is_downloaded(tmp_path, monkeypatch, file):
    path = save(tmp_path / "weights", random_variables())

    def download(repository, wanted, local_files_only):
        assert repository == "timm/resnet18.a1_in1k" and not local_files_only
        if wanted != file:
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return str(path)

    hub(monkeypatch, download)
    _, loaded = load_pretrained("resnet18", "timm/resnet18.a1_in1k", **SMALL)
    assert_same(loaded, random_variables())


def test_shards_are_downloaded_with_their_index(tmp_path, monkeypatch):
    variables = random_variables()
    save_shards(tmp_path, variables)
    asked = []

    def download(repository, file, local_files_only):
        asked.append(file)
        if not (tmp_path / file).exists():
            raise huggingface_hub.errors.EntryNotFoundError(f"404: no {file}")
        return str(tmp_path / file)

    hub(monkeypatch, download)
    _, loaded = load_pretrained("resnet18", "owner/name", **SMALL)
    assert_same(loaded, variables)
    second = "model-00002-of-00002.safetensors"
    assert asked[-2:] == [second, "config.json"]
    (tmp_path / second).unlink()
    with pytest.raises(WeightsError, match=f"{second}, which model.safetensors.index"):
        load_pretrained("resnet18", "owner/name", **SMALL)


def test_an_index_on_the_hub_names_no_other_folder(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "../../secret"}}')

    def download(repository, file, local_files_only):
        if file != path.name:
            raise huggingface_hub.errors.EntryNotFoundError(f"404: no {file}")
        return str(path)

    hub(monkeypatch, download)
    with pytest.raises(WeightsError, match="names the shard '../../secret'"):
        load_pretrained("resnet18", "owner/name", **SMALL)


def test_a_hub_that_is_not_reached_is_asked_once(monkeypatch):
    asked = []

    def download(repository, file, local_files_only):
        asked.append((file, local_files_only))
        raise huggingface_hub.errors.LocalEntryNotFoundError("No network.\nAt all.")

    hub(monkeypatch, download)
    by_hand = "https://huggingface.co/owner/name/resolve/main/model.safetensors"
    message = f"no file or folder owner/name, .* No network. By hand: .*{by_hand}"
    with pytest.raises(WeightsError, match=message):
        load_pretrained("resnet18", "owner/name")
    assert asked == [
        ("model.safetensors", False),
        ("model.safetensors.index.json", True),
        ("pytorch_model.bin", True),
        ("pytorch_model.bin.index.json", True),
    ]


def test_a_repository_that_there_is_not_is_said(monkeypatch):
    def download(repository, file, local_files_only):
        raise huggingface_hub.errors.HFValidationError("No such repository.")

    hub(monkeypatch, download)
    with pytest.raises(WeightsError, match="No such repository"):
        load_pretrained("resnet18", "owner/name")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install .*\[hub\]'. By hand"):
        load_pretrained("resnet18", "owner/name")


# Published weights.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CNN_FLAX_CACHE", str(folder))
    return folder


def publish(monkeypatch, path, digits=None):
    """Publishes a file as the weights of every model; returns its new path."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    named = path.with_name(f"resnet18-{digits or digest[:8]}.pth")
    path.rename(named)
    fields = vars(published_weights("resnet18")[0])
    entry = PublishedWeights(**{**fields, "url": named.as_uri()})
    monkeypatch.setattr(sources, "published_weights", lambda name: (entry,))
    return named


def test_published_weights_are_downloaded_once(tmp_path, cache, monkeypatch):
    variables = random_variables()
    source = publish(monkeypatch, save(tmp_path / "weights", variables))
    _, loaded = load_pretrained("resnet18", **SMALL)
    assert_same(loaded, variables)
    assert [p.name for p in cache.iterdir()] == [source.name]
    source.unlink()
    _, loaded = load_pretrained("resnet18", **SMALL)
    assert_same(loaded, variables)


def test_a_download_of_another_content_is_refused(tmp_path, cache, monkeypatch):
    path = save(tmp_path / "weights", random_variables())
    publish(monkeypatch, path, digits="01234567")
    with pytest.raises(
        WeightsError, match="the SHA-256 of the download differs. By hand"
    ):
        load_pretrained("resnet18", **SMALL)
    assert list(cache.iterdir()) == []


def test_a_wrong_file_in_the_cache_is_refused(tmp_path, cache, monkeypatch):
    path = save(tmp_path / "weights", random_variables())
    source = publish(monkeypatch, path)
    cache.mkdir()
    (cache / source.name).write_bytes(b"half of it")
    with pytest.raises(WeightsError, match="its SHA-256 differs. Remove it"):
        load_pretrained("resnet18", **SMALL)


def test_offline_the_message_says_where_to_put_the_file(tmp_path, cache, monkeypatch):
    path = save(tmp_path / "weights", random_variables())
    source = publish(monkeypatch, path)
    source.unlink()
    message = f"{source.name} cannot be downloaded: .*put the file at {cache}"
    with pytest.raises(WeightsError, match=message):
        load_pretrained("resnet18", **SMALL)


def test_the_cache_is_in_the_home_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("CNN_FLAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    source = publish(monkeypatch, save(tmp_path / "x", random_variables()))
    load_pretrained("resnet18", **SMALL)
    assert (tmp_path / ".cache/cnn_flax" / source.name).exists()


def test_published_weights_may_be_on_the_hub(tmp_path, monkeypatch):
    variables = random_variables("resnet18d")
    path = save(tmp_path / "weights", variables, "resnet18d")

    def download(repository, file, local_files_only):
        assert repository == cnn_flax.model_info("resnet18d").weights[0].hub_id
        return str(path)

    hub(monkeypatch, download)
    _, loaded = load_pretrained("resnet18d", **SMALL)
    assert_same(loaded, variables)


B5_TINY = {"depth_multiplier": 0.1, "width_multiplier": 0.1}


def b5_state_dict(dialect, classes=1000):
    """A tiny EfficientNet-B5 with torchvision's names (0) or timm's (1)."""
    name = "efficientnet_b5"
    shapes = variable_shapes(name, {**B5_TINY, "num_classes": classes})
    return {
        entry: to_torch_layout(path, np.ones(x.shape, np.float32), rule.flattened)
        for path, x in shapes.items()
        for entry, rule in [rule_of(dialects(name)[dialect], path.partition("/")[2])]
    }


def epsilon(source, name="efficientnet_b5", **fields):
    model: Any = load_pretrained(name, source, **{**B5_TINY, **fields})[0]
    return model.bn_epsilon


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "classes", "expected"), [(0, 1000, 1e-3), (1, 1000, 1e-5), (1, 7, 1e-5)]
)
def test_a_file_has_the_fields_of_the_published_weights_it_is_named_like(
    tmp_path, monkeypatch, caplog, dialect, classes, expected
):
    path = tmp_path / "efficientnet_b5-mine.safetensors"
    safetensors.numpy.save_file(b5_state_dict(dialect, classes), path)
    assert epsilon(path) == expected
    hub(monkeypatch, lambda *args, **options: str(path))
    assert epsilon("timm/efficientnet_b5.sw_in12k_ft_in1k") == 1e-5
    assert epsilon("timm/efficientnet_b5.sw_in12k", bn_epsilon=0.1) == 0.1
    assert not caplog.records


def warnings_of(name, source, caplog, **fields):
    """What is logged on which weights a file may be, before it is converted."""
    caplog.clear()
    pretrained._warn_of_others(identify_weights(name, source), fields)
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.message for record in caplog.records]


def test_a_file_that_may_be_two_published_weights_names_both(tmp_path, caplog):
    path = tmp_path / "ours.safetensors"
    arrays = {"params/head/kernel": np.zeros((8, 1000))}
    write(path, arrays, {"model": "efficientnet_b5"})
    assert warnings_of("efficientnet_b5", path, caplog) == [
        f"{path} may be torchvision IMAGENET1K_V1, which needs the model's defaults, "
        "or timm efficientnet_b5.sw_in12k_ft_in1k, which needs bn_epsilon=1e-05, "
        "bn_momentum=0.9. The first is assumed; fields that are given count."
    ]
    given = {"bn_epsilon": 1e-5, "bn_momentum": 0.9}
    assert not warnings_of("efficientnet_b5", path, caplog, **given)
    write(path, arrays, {"source": "timm efficientnet_b5.sw_in12k_ft_in1k"})
    assert not warnings_of("efficientnet_b5", path, caplog)


@pytest.mark.parametrize(("first", "second"), [("", "tf_"), ("tf_", "")])
def test_a_file_that_fits_two_models_names_both(tmp_path, caplog, first, second):
    name, other = f"{first}efficientnet_b0", f"{second}efficientnet_b0"
    path = tmp_path / "mine.safetensors"
    kernel = np.zeros((32, 3, 3, 3), np.float32)
    safetensors.numpy.save_file({"model.conv_stem.weight": kernel}, path)
    (message,) = warnings_of(name, path, caplog)
    assert message.startswith(f"{path} may be of {name} or of {other}, which compute")
    assert message.endswith(f"parameters. It is loaded as {name}.")
    path = path.rename(tmp_path / f"{other}.safetensors")
    (message,) = warnings_of(name, path, caplog)
    assert message.endswith(f", and is named {other}. It is loaded as {name}.")
    assert not warnings_of(other, path, caplog)


def test_a_file_that_fits_two_models_warns_when_it_is_loaded(caplog, monkeypatch):
    def read(path):
        raise CheckpointError("nothing")

    monkeypatch.setattr(pretrained, "read_checkpoint", read)
    weights = identify_weights("efficientnet_b0")
    twin = Twin("tf_efficientnet_b0", False)
    weights = dataclasses.replace(weights, file=pathlib.Path("x"), twin=twin)
    with pytest.raises(CheckpointError):
        pretrained.load_identified(weights)
    assert "may be of efficientnet_b0 or of tf_efficientnet_b0" in caplog.text


def test_a_model_without_published_weights_says_so():
    with pytest.raises(WeightsError, match="No weights are published for lab_resnet34"):
        load_pretrained("lab_resnet34")
