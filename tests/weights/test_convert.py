import json

import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

import cnn_flax
from cnn_flax.registry import UnknownModelError
from cnn_flax.weights import WeightsError, from_torch, to_torch
from cnn_flax.weights.convert import fits
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


# State dicts that hold more than the model.

TINY = {"width_multiplier": 0.1, "depth_multiplier": 0.1}
FAMILIES = {
    "resnet18": {"width": 8, "stage_sizes": (1,)},
    "resnet18d": {"width": 8, "stage_sizes": (1,)},
    "lab_resnet34": {"width": 8, "stage_sizes": (1,)},
    "vgg11": {"width": 2},
    "mobilenet_v2": {"width_multiplier": 0.1},
    "efficientnet_b0": TINY,
    "tf_efficientnet_b0": TINY,
    "tf_efficientnet_lite0": TINY,
    "googlenet": {},
    "densenet121": {},
    "legacy_seresnet18": {},
}
QUICK = ("resnet18", "vgg11")
each_family = pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)


def ones(name, **fields):
    shapes = variable_shapes(name, {**FAMILIES[name], "num_classes": 5, **fields})
    flat = {path: np.ones(x.shape, np.float32) for path, x in shapes.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


@each_family
def test_a_net_inside_another_module_is_found(name):
    variables = ones(name)
    entries = to_torch(name, variables)
    more = {
        "n_averaged": np.array(3),
        "student.projector.0.weight": np.zeros((2, 2)),
        "queue": np.zeros(3),
        "loss.weight": np.zeros(5),
    }
    wrapped = {f"student.backbone.{e}": x for e, x in entries.items()} | more
    assert_equal_bits(from_torch(name, wrapped, **FAMILIES[name]), variables)


def test_averaged_weights_are_preferred_to_others():
    first, second = (
        to_torch("resnet18", random_variables("resnet18", 3, dtype, width=8))
        for dtype in (np.float32, np.float64)
    )
    both = {f"model.{e}": x for e, x in first.items()}
    both |= {f"model_ema.module.{e}": x for e, x in second.items()}
    read = from_torch("resnet18", both, width=8)
    assert {x.dtype for x in flatten(read).values()} == {np.dtype("float64")}


def test_two_nets_alike_are_refused_by_their_names():
    entries = to_torch("resnet18", random_variables("resnet18", width=8))
    both = {
        f"{net}.{e}": x for net in ("student", "teacher") for e, x in entries.items()
    }
    either = "'student.', 'teacher.'|'teacher.', 'student.'"
    message = f"holds several nets .* under ({either}): pass"
    with pytest.raises(WeightsError, match=message):
        from_torch("resnet18", both, width=8)
    assert not fits("resnet18", both)


def test_blocks_whose_kernels_are_named_like_the_first_one_are_no_nets(two_models):
    entries = to_torch("legacy_seresnet18", ones("legacy_seresnet18"))
    assert "layer0.conv1.weight" in entries and "layer1.0.conv1.weight" in entries
    with pytest.raises(WeightsError, match=r"Unexpected: 'layer0\."):
        from_torch("resnet18", entries)


@pytest.mark.parametrize("count", ["num_batches_tracked", "total_ops", "total_params"])
def test_counts_of_every_module_are_dropped(count):
    variables = random_variables("resnet18", width=8, stage_sizes=(1,))
    entries = to_torch("resnet18", variables)
    counts = {f"{e.rpartition('.')[0]}.{count}": np.zeros(1) for e in entries}
    fields = {"width": 8, "stage_sizes": (1,)}
    read = from_torch("resnet18", {**entries, **counts, count: np.zeros(1)}, **fields)
    assert_equal_bits(read, variables)


# Heads.


@each_family
def test_without_classes_any_head_is_left_out(name):
    entries = to_torch(name, ones(name))
    expected = ones(name, num_classes=0)
    own = rule_of(dialects(name)[0], "head/kernel")[0].removesuffix("weight")
    body = {e: x for e, x in entries.items() if not e.startswith(own)}
    leaves = ("0.weight", "0.bias", "weight", "fc1.weight", "bn.running_mean")
    others = [*(own + leaf for leaf in leaves), "head.weight", "classifier.11.weight"]
    custom = {**body, **{e: np.zeros((4, 3)) for e in others}}
    for with_head in (custom, entries, body):
        read = from_torch(name, with_head, num_classes=0, **FAMILIES[name])
        assert_equal_bits(read, expected)


def test_a_head_of_its_own_is_told_from_another_architecture(two_models):
    entries = to_torch("resnet18", random_variables("resnet18", width=8))
    entries["fc.0.weight"] = entries.pop("fc.weight")
    entries["fc.0.bias"] = entries.pop("fc.bias")
    message = r"Unexpected: 'fc\.0\..*All but the head fits: num_classes=0 leaves that"
    with pytest.raises(WeightsError, match=message):
        from_torch("resnet18", entries, width=8)
    del entries["layer1.0.conv1.weight"]
    with pytest.raises(WeightsError, match=r"bias'\.$"):
        from_torch("resnet18", entries, width=8)


def test_a_head_next_to_the_net_is_not_dropped_in_silence():
    entries = to_torch("resnet18", random_variables("resnet18", num_classes=0, width=8))
    wrapped = {f"model.backbone.{e}": x for e, x in entries.items()}
    wrapped["model.classifier.weight"] = np.zeros((5, 64))
    with pytest.raises(WeightsError, match=r"classifier\.weight'\. All but the head"):
        from_torch("resnet18", wrapped, width=8)
    read = from_torch("resnet18", wrapped, width=8, num_classes=0)
    assert "head" not in read["params"]


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
    assert found.startswith(
        "The state dict does not fit resnet34. Unexpected: 'layer1."
    )
    assert "'layer1.0.conv1.weight' [64, 64, 1, 1] for [64, 64, 3, 3]" in found
    assert found.endswith("It fits resnet50.")
    found = message("tv_resnet18", "resnet34")
    assert found.startswith("The state dict does not fit resnet34. Missing: 'layer1.2.")
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
        r"Missing: 'layer1\.0\.bn2\.bias'\. Unexpected: 'extra'\. "
        r"Of another shape: 'bn1\.weight' \[9\] for \[8\]\.$"
    )
    with pytest.raises(WeightsError, match=message):
        from_torch("resnet18", state_dict, width=8, stage_sizes=(1,))


def test_a_message_counts_what_it_does_not_name(two_models):
    state_dict = state_dict_of("resnet18", width=8, stage_sizes=(1,))
    with pytest.raises(WeightsError, match=r"layer2\.0\.bn2\.bias' and 46 more\."):
        from_torch("resnet18", state_dict, width=8, stage_sizes=(1, 2, 2))


def test_fields_that_do_not_fit_are_told_from_the_model(two_models):
    state_dict = state_dict_of("resnet18")
    with pytest.raises(WeightsError, match="It fits resnet18 without those fields."):
        from_torch("resnet18", state_dict, shortcut="none")
    message = r"fc\.bias' \[1000\] for \[10\].*All but the head fits"
    with pytest.raises(WeightsError, match=message):
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
