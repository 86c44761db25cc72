import json

import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

import cnn_flax
from cnn_flax.registry import UnknownModelError
from cnn_flax.weights import WeightsError, from_torch, to_torch
from cnn_flax.weights.dialects import dialects, rule_of
from cnn_flax.weights.layouts import torch_shape
from cnn_flax.weights.variables import Sizes, flatten, sizes, variable_shapes
from tests.support import figures

REFERENCES = {
    "tv_resnet18": "resnet18",
    "tv_resnet34": "resnet34",
    "tv_resnet50": "resnet50",
    "tv_resnet152": "resnet152",
    "tv_resnext50_32x4d": "resnext50_32x4d",
    "tv_wide_resnet50_2": "wide_resnet50_2",
    "timm_resnet18d": "resnet18d",
    "lab_resnet34": "lab_resnet34",
}


def random_variables(name, in_channels=3, dtype: type = np.float32, **fields):
    rng = np.random.default_rng(0)
    shapes = variable_shapes(name, fields, in_channels, image_size=64)
    flat = {p: rng.standard_normal(x.shape).astype(dtype) for p, x in shapes.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def assert_equal_bits(ours, theirs):
    ours, theirs = flatten(ours), flatten(theirs)
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        assert x.dtype == theirs[path].dtype
        assert x.tobytes() == theirs[path].tobytes()


# Names and shapes.


@pytest.mark.parametrize("reference", REFERENCES)
def test_names_and_shapes_are_the_references(reference):
    name = REFERENCES[reference]
    path = figures.REFERENCE / "models" / f"{reference}.json"
    expected = json.loads(path.read_text())["state_dict"]
    dialect = dialects(name)[0]
    ours = {
        rule_of(dialect, path.partition("/")[2])[0]: list(torch_shape(path, x.shape))
        for path, x in variable_shapes(name, {}).items()
    }
    assert ours == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", cnn_flax.list_models())
def test_each_parameter_of_each_model_has_a_name_of_its_own(name):
    paths = variable_shapes(name, {})
    for dialect in dialects(name):
        names = {rule_of(dialect, path.partition("/")[2])[0] for path in paths}
        assert len(names) == len(paths)


# Round trips.


@pytest.mark.parametrize("name", sorted(set(REFERENCES.values())))
def test_the_way_there_and_back_changes_no_bit(name):
    variables = random_variables(name, stage_sizes=(1,))
    state_dict = to_torch(name, variables)
    assert_equal_bits(from_torch(name, state_dict, stage_sizes=(1,)), variables)


@pytest.mark.parametrize(
    "fields",
    [
        {"shortcut": "projection_all"},
        {"shortcut": "pool_projection"},
        {"shortcut": "zero_pad"},
        {"shortcut": "none"},
        {"small_inputs": True},
        {"stage_sizes": (1, 2)},
    ],
)
@pytest.mark.parametrize("name", ["resnet18", "resnet18d", "lab_resnet34"])
def test_variants_go_there_and_back(name, fields):
    fields = {"stage_sizes": (1, 1), "width": 8, **fields}
    variables = random_variables(name, **fields)
    state_dict = to_torch(name, variables)
    assert_equal_bits(from_torch(name, state_dict, **fields), variables)


def test_trainable_resizing_has_names_of_our_own():
    fields = {"shortcut": "matrix", "width": 8}
    flat = variable_shapes("resnet18", fields)
    variables = {p: np.zeros(x.shape, x.dtype) for p, x in flat.items()}
    variables = traverse_util.unflatten_dict(variables, sep="/")
    state_dict = to_torch("resnet18", variables)
    assert state_dict["layer2.0.resize.height"].shape == (28, 56)
    assert_equal_bits(from_torch("resnet18", state_dict, **fields), variables)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_dtypes_are_kept(dtype):
    variables = random_variables("resnet18", width=8, dtype=dtype)
    state_dict = to_torch("resnet18", variables)
    assert {x.dtype for x in state_dict.values()} == {np.dtype(dtype)}
    assert_equal_bits(from_torch("resnet18", state_dict, width=8), variables)


def test_timms_names_of_a_pooling_shortcut_are_read_too():
    variables = random_variables("resnet18", width=8, shortcut="pool_projection")
    renamed = {
        name.replace("downsample.1", "downsample.2").replace(
            "downsample.0", "downsample.1"
        ): x
        for name, x in to_torch("resnet18", variables).items()
    }
    read = from_torch("resnet18", renamed, width=8, shortcut="pool_projection")
    assert_equal_bits(read, variables)


@pytest.mark.parametrize("collection", ["params", "batch_stats"])
def test_one_collection_alone_goes_there(collection):
    # As gradients or averages do.
    variables = random_variables("resnet18", 1, np.float64, width=8, num_classes=3)
    part = to_torch("resnet18", {collection: variables[collection]})
    whole = to_torch("resnet18", variables)
    running = {name for name in whole if "running" in name}
    wanted = running if collection == "batch_stats" else whole.keys() - running
    assert part.keys() == wanted
    for name, x in part.items():
        np.testing.assert_array_equal(x, whole[name], strict=True)


# Sizes.


@pytest.mark.parametrize("num_classes", [0, 7, 1000])
@pytest.mark.parametrize("in_channels", [1, 3, 5])
@pytest.mark.parametrize("name", ["resnet18", "resnet18d", "lab_resnet34"])
def test_sizes_follow_the_state_dict(name, num_classes, in_channels):
    variables = random_variables(
        name, in_channels, width=8, num_classes=num_classes, stage_sizes=(1,)
    )
    read = from_torch(name, to_torch(name, variables), width=8, stage_sizes=(1,))
    assert_equal_bits(read, variables)
    assert sizes(name, flatten(read)) == Sizes(num_classes, in_channels)


def test_counts_of_batches_are_dropped():
    state_dict = to_torch("resnet18", random_variables("resnet18", width=8))
    state_dict["bn1.num_batches_tracked"] = np.array(5)
    read = from_torch("resnet18", state_dict, width=8)
    assert "bn1.num_batches_tracked" not in to_torch("resnet18", read)


# Errors.


def state_dict_of(name, **fields):
    return to_torch(name, random_variables(name, **fields))


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_names_the_first_keys():
    def message(checkpoint, name):
        path = figures.REFERENCE / "models" / f"{checkpoint}.json"
        shapes = json.loads(path.read_text())["state_dict"]
        # Zeros of every shape, which take no memory.
        zeros = {
            k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()
        }
        with pytest.raises(WeightsError) as error:
            from_torch(name, zeros)
        return str(error.value)

    found = message("tv_resnet50", "resnet34")
    assert found.startswith("The state dict does not fit resnet34. Unexpected: layer1.")
    assert "layer1.0.conv1.weight [64, 64, 1, 1] for [64, 64, 3, 3]" in found
    assert found.endswith("It fits resnet50.")
    found = message("tv_resnet18", "resnet34")
    assert found.startswith("The state dict does not fit resnet34. Missing: layer1.2.")
    assert found.endswith("It fits resnet18.")


@pytest.fixture
def two_models(monkeypatch):
    """Two candidates for the message that says which model fits."""
    two = ["resnet18", "resnet34"]
    monkeypatch.setattr("cnn_flax.weights.convert.list_models", lambda: two)


def test_missing_unexpected_and_other_shapes_are_named(two_models):
    state_dict = state_dict_of("resnet18", width=8, stage_sizes=(1,))
    state_dict["extra"] = state_dict.pop("layer1.0.bn2.bias")
    state_dict["bn1.weight"] = np.ones(9)
    message = (
        r"Missing: layer1\.0\.bn2\.bias\. Unexpected: extra\. "
        r"Of another shape: bn1\.weight \[9\] for \[8\]\.$"
    )
    with pytest.raises(WeightsError, match=message):
        from_torch("resnet18", state_dict, width=8, stage_sizes=(1,))


def test_a_message_counts_what_it_does_not_name(two_models):
    state_dict = state_dict_of("resnet18", width=8, stage_sizes=(1,))
    with pytest.raises(WeightsError, match=r"layer2\.0\.bn2\.bias and 46 more\."):
        from_torch("resnet18", state_dict, width=8, stage_sizes=(1, 2, 2))


def test_fields_that_do_not_fit_are_told_from_the_model(two_models):
    state_dict = state_dict_of("resnet18")
    with pytest.raises(WeightsError, match="It fits resnet18 without those fields."):
        from_torch("resnet18", state_dict, shortcut="none")
    with pytest.raises(WeightsError, match=r"fc\.bias \[1000\] for \[10\]"):
        from_torch("resnet18", state_dict, num_classes=10)


def test_what_is_no_state_dict_is_refused():
    with pytest.raises(WeightsError, match="got str; .*read_checkpoint"):
        from_torch("resnet18", "resnet18.pth")  # pyright: ignore[reportArgumentType]


def test_what_are_no_variables_is_refused():
    params = random_variables("resnet18", width=8, stage_sizes=(1,))["params"]
    with pytest.raises(WeightsError, match="got 'conv1'"):
        to_torch("resnet18", params)
    with pytest.raises(WeightsError, match="parameter 'conv1/conv1/bn/bias'"):
        variables = random_variables("resnet18d", width=8, stage_sizes=(1,))
        to_torch("lab_resnet34", variables)


def test_an_unknown_model_is_refused():
    for convert in (from_torch, to_torch):
        with pytest.raises(UnknownModelError, match="resnet50"):
            convert("resnet5O", {})
