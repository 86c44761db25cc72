import json
import pathlib
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from cnn_flax.weights import CheckpointError, read_checkpoint
from tests.support import torch_files
from tests.support.torch_files import NUMBERS, Built, Call, Name, Raw

WRITTEN_BY_TORCH = pathlib.Path(__file__).parents[1] / "reference" / "checkpoints"
WRITERS = [torch_files.write_zip, torch_files.write_stream]
both_containers = pytest.mark.parametrize("write", WRITERS)


def write_safetensors(path, tensors):
    """Written by the format's description, from (dtype, shape, bytes) by name."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        span = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": span}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)


# Accepted files.


@pytest.mark.parametrize("name", ["zip.pth", "stream.pth"])
def test_a_file_that_torch_wrote_is_read_bit_by_bit(name):
    expected = {
        "weight": np.array([[1.5, -2.0, 0.25], [3.0, 4.0, -5.0]], np.float32),
        "bfloat16": np.array([1.0, -2.5, 3.140625], ml_dtypes.bfloat16),
        "view": np.array([[1, 5, 9], [2, 6, 10]], np.float32),
        "shared": np.array([2, 3, 4], np.float32),
        "parameter": np.array([7, 8], np.float32),
        "count": np.array(7),
        "float8": np.array([0.5, -448.0], ml_dtypes.float8_e4m3fn),
    }
    arrays = read_checkpoint(WRITTEN_BY_TORCH / name)
    assert list(arrays) == list(expected)
    for key, x in expected.items():
        assert arrays[key].dtype == x.dtype
        np.testing.assert_array_equal(arrays[key], x)


def test_safetensors_are_read_with_their_dtypes(tmp_path):
    values = {
        "BF16": np.array([[1.0, -2.5]], ml_dtypes.bfloat16),
        "F8_E4M3": np.array([0.5, -448.0], ml_dtypes.float8_e4m3fn),
        "F8_E5M2": np.array([0.5], ml_dtypes.float8_e5m2),
        "F64": np.array([1 / 3]),
        "I64": np.array(-3),
        "BOOL": np.array([True, False]),
    }
    path = tmp_path / "weights"
    entries = {k: (k, list(x.shape), x.tobytes()) for k, x in values.items()}
    write_safetensors(path, entries)
    arrays = read_checkpoint(path)
    for key, x in values.items():
        assert arrays[key].dtype == x.dtype
        np.testing.assert_array_equal(arrays[key], x)


@pytest.mark.parametrize("length", [0x80, 0x4B50])
def test_safetensors_whose_length_looks_like_another_format_are_read(tmp_path, length):
    entry = {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]}
    text = json.dumps({"a": entry}).encode().ljust(length)
    path = tmp_path / "weights"
    path.write_bytes(struct.pack("<Q", length) + text + NUMBERS.tobytes())
    assert path.read_bytes()[:2] in (b"\x80\0", b"PK")
    np.testing.assert_array_equal(read_checkpoint(path)["a"], NUMBERS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_read(tmp_path, save):
    path = tmp_path / "weights.npz"
    save(path, a=np.arange(3), b=np.array([[0.5]], np.float16))
    arrays = read_checkpoint(path)
    np.testing.assert_array_equal(arrays["a"], np.arange(3))
    np.testing.assert_array_equal(arrays["b"], np.array([[0.5]], np.float16))


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "weights"])
def test_the_format_is_found_by_the_content(tmp_path, name):
    path = tmp_path / name
    torch_files.write_zip(path, {"a": torch_files.vector("0", NUMBERS)}, {"0": NUMBERS})
    np.testing.assert_array_equal(read_checkpoint(path)["a"], NUMBERS)


@pytest.mark.parametrize("root", ["archive", "my model", "a/b"])
def test_the_archive_may_have_any_root(tmp_path, root):
    path, tree = tmp_path / "x.pth", {"a": torch_files.vector("0", NUMBERS)}
    torch_files.write_zip(path, tree, {"0": NUMBERS}, root=root)
    np.testing.assert_array_equal(read_checkpoint(path)["a"], NUMBERS)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int64])
def test_big_endian_numbers_are_turned(tmp_path, dtype):
    x = np.arange(5).astype(dtype) * (1 + 2j if dtype == np.complex64 else 3)
    swapped = {"0": x.astype(x.dtype.newbyteorder(">"))}
    path, tree = tmp_path / "x.pth", {"a": torch_files.vector("0", x)}
    torch_files.write_zip(path, tree, swapped, byteorder="big")
    np.testing.assert_array_equal(read_checkpoint(path)["a"], x)


@both_containers
def test_offset_and_strides_of_a_view_count(tmp_path, write):
    path = tmp_path / "x.pth"
    view = torch_files.tensor("0", "float32", 12, (3, 2), (1, 4), offset=2)
    write(path, {"view": view}, {"0": NUMBERS})
    expected = [[2, 6], [3, 7], [4, 8]]
    np.testing.assert_array_equal(
        read_checkpoint(path)["view"], np.array(expected, np.float32)
    )


@both_containers
def test_scalars_and_empty_tensors_are_read(tmp_path, write):
    tree = {
        "scalar": torch_files.tensor("0", "float32", 12, (), (), offset=5),
        "empty": torch_files.tensor("0", "float32", 12, (0, 3), (3, 1), offset=12),
    }
    write(tmp_path / "x.pth", tree, {"0": NUMBERS})
    arrays = read_checkpoint(tmp_path / "x.pth")
    assert arrays["scalar"].shape == () and arrays["scalar"] == 5
    assert arrays["empty"].shape == (0, 3)


def test_tensors_of_one_storage_share_it(tmp_path):
    tree = {k: torch_files.vector("0", NUMBERS) for k in "ab"}
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    arrays = read_checkpoint(tmp_path / "x.pth")
    arrays["a"][0] = 100
    assert arrays["b"][0] == 100


def test_an_expanded_tensor_takes_no_memory(tmp_path):
    tree = {"a": torch_files.tensor("0", "float32", 1, (10**6, 10**6), (0, 0))}
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS[:1]})
    a = read_checkpoint(tmp_path / "x.pth")["a"]
    assert a.shape == (10**6, 10**6) and a[-1, -1] == 0


def test_parameters_of_the_first_versions_are_read(tmp_path):
    data = torch_files.vector("0", NUMBERS)
    old = Built(Call("torch.nn.parameter.Parameter", (data,)), (True, False, None))
    torch_files.write_stream(tmp_path / "x.pth", {"a": old}, {"0": NUMBERS})
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "x.pth")["a"], NUMBERS)


def test_storages_that_are_parts_of_others_are_read(tmp_path):
    storage = Name("torch.FloatStorage")
    part = torch_files.Stored(("storage", storage, "0", "cpu", 12, ("1", 4, 3)))
    tree = {"a": Call("torch._utils._rebuild_tensor", (part, 1, (2,), (1,)))}
    torch_files.write_stream(tmp_path / "x.pth", tree, {"0": NUMBERS})
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "x.pth")["a"], [5, 6])


# Wrappers around a state dict.


def test_the_metadata_of_a_state_dict_is_left_out(tmp_path):
    state_dict = {"a": torch_files.vector("0", NUMBERS)}
    tree = Built(state_dict, {"_metadata": {"": {"version": 1}}})
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    assert list(read_checkpoint(tmp_path / "x.pth")) == ["a"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: {"state_dict": x, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda x: {"model": x},
        lambda x: {"model_state_dict": x},
        lambda x: {"model": {"state_dict": x}, "args": None},
        lambda x: {"state_dict": {}, "state_dict_ema": x},
        lambda x: {"state_dict": x, "state_dict_ema": None},
        lambda x: {"state_dict": x, "state_dict_ema": {}},
        lambda x: {"model": x, "ema": {"decay": 0.9, "updates": 3}},
        lambda x: {"ema": {"decay": 0.9, "module": x}},
        lambda x: {"state_dict": {"net": x}, "loss": 0.5},
        lambda x: {"my_classifier": x, "epoch": 3, "optimizer": {"state": {}}},
        *[
            lambda x, key=key: {"epoch": 3, key: x, "optimizer": {"lr": 0.1}}
            for key in (
                *("net", "module", "params", "params_ema", "ema"),
                *("ema_state_dict", "model_ema", "state_dict_ema"),
            )
        ],
    ],
)
def test_a_wrapped_state_dict_is_found(tmp_path, wrap):
    tree = wrap({"a": torch_files.vector("0", NUMBERS)})
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    assert list(read_checkpoint(tmp_path / "x.pth")) == ["a"]


def names_of(tmp_path, *names):
    path, leaf = tmp_path / "x.pth", torch_files.vector("0", NUMBERS)
    torch_files.write_zip(path, dict.fromkeys(names, leaf), {"0": NUMBERS})
    return list(read_checkpoint(path))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_prefix_of_all_names_is_taken_off(tmp_path, prefix):
    names = names_of(tmp_path, f"{prefix}a", f"{prefix}b.module.")
    assert names == ["a", "b.module."]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("state_dict_ema", "model_ema"),
        ("model_ema", "state_dict"),
        ("ema_state_dict", "model"),
        ("params_ema", "params"),
        ("ema", "net"),
        ("state_dict", "model"),
        ("model_state_dict", "model"),
        ("model", "module"),
        ("net", "another"),
    ],
)
def test_of_several_state_dicts_the_averaged_one_counts_then_timms_order(
    tmp_path, first, second
):
    leaf = torch_files.vector("0", NUMBERS)
    tree = {second: {"b": leaf}, first: {"a": leaf}}
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    assert list(read_checkpoint(tmp_path / "x.pth")) == ["a"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # torch.optim.swa_utils.AveragedModel.
        (["n_averaged", "module.a", "module.b"], ["n_averaged", "a", "b"]),
        (["n_averaged", "module.module.a"], ["n_averaged", "a"]),
        (["n_averaged", "module._orig_mod.a"], ["n_averaged", "a"]),
        (["module.a", "b"], ["a", "b"]),
        # A part of a net in DataParallel or `torch.compile`.
        (["features.module.0.weight", "fc.weight"], ["features.0.weight", "fc.weight"]),
        (["layer1._orig_mod.0.weight", "a"], ["layer1.0.weight", "a"]),
        (["_fsdp_wrapped_module.a._checkpoint_wrapped_module.b"], ["a.b"]),
        # Lightning's modules.
        (["model.a", "model.b"], ["a", "b"]),
        (["net.a", "net.b.net.c"], ["a", "b.net.c"]),
        (["backbone.a"], ["a"]),
        (["encoder.a"], ["a"]),
        (["model.module.a", "model.module.b"], ["a", "b"]),
        (["module.model.backbone.a", "n_averaged"], ["a", "n_averaged"]),
        # What is no wrapper, or would not be unique.
        (["module.a", "a"], ["module.a", "a"]),
        (["model.a", "loss.b"], ["model.a", "loss.b"]),
        (["modules.a", "se_module.b", "submodule.c"],) * 2,
        (["net", "net."],) * 2,
    ],
)
def test_the_names_are_those_of_the_net_inside(tmp_path, names, expected):
    assert names_of(tmp_path, *names) == expected


# What training programs save next to the weights.


@pytest.mark.parametrize("name", ["zip", "protocol_4", "stream"])
def test_a_training_programs_file_gives_its_averaged_weights(name):
    arrays = read_checkpoint(WRITTEN_BY_TORCH / f"training_{name}.pth")
    expected = {
        "n_averaged": 0,
        "0.weight": [[1, 1]],
        "0.bias": [2],
        "1.weight": [1],
        "1.bias": [0],
        "1.running_mean": [0],
        "1.running_var": [1],
        "1.num_batches_tracked": 0,
    }
    assert list(arrays) == list(expected)
    for key, x in expected.items():
        np.testing.assert_array_equal(arrays[key], x)


def evidence_of(path):
    """Instructions that leave the evidence if they are run, each for one object."""
    command = f"touch {path}"
    word = b"X" + struct.pack("<I", len(command)) + command.encode()
    exploit = Call("os.system", (command,))
    return {
        "os.system": exploit,
        "builtins.exec": Call("builtins.exec", (f"open({str(path)!r}, 'w')",)),
        "functools.partial": Call("functools.partial", (Name("os.system"), command)),
        "BUILD": Built(Call("a.B"), {"__setstate__": exploit, "x": exploit}),
        "NEWOBJ": Raw(b"cos\nsystem\n" + word + b"\x85\x81"),
        "NEWOBJ_EX": Raw(b"cos\nsystem\n" + word + b"\x85}\x92"),
        "INST": Raw(b"(" + word + b"ios\nsystem\n"),
        "OBJ": Raw(b"(cos\nsystem\n" + word + b"o"),
        "EXT1": Raw(b"\x82\x01"),
        "EXT4": Raw(b"\x84\x01\x00\x00\x00"),
        "PERSID": Raw(b"Pos.system\n"),
        "BINPERSID": torch_files.Stored(("module", Name("os.system"), "a", command)),
        "STACK_GLOBAL": Raw(b"\x8c\x02os\x8c\x06system\x93" + word + b"\x85R"),
        "FROZENSET": Raw(b"(" + word + b"\x91"),
        "ADDITEMS": Raw(b"\x8f(" + word + b"\x90"),
        "DUP and POP": Raw(word + b"20"),
        "POP_MARK": Raw(word + b"(K\x011"),
        "set items": Raw(b"ca\nB\n)R(" + word + word + b"u" + word + word + b"s"),
        "append items": Raw(b"ca\nB\n)R(" + word + b"e" + word + b"a"),
        "keys": {(1, (2, ())): 3, 1.5: 4, None: 5, Call("a.B"): 6, True: 7},
        "torch's function": Call("torch._utils._rebuild_parameter", (exploit, True, 1)),
        "a tensor's storage": Call(
            "torch._utils._rebuild_tensor_v2", (exploit, 0, (1,), (1,), False, None)
        ),
    }


@both_containers
@pytest.mark.parametrize("kind", evidence_of(""))
def test_what_is_next_to_the_state_dict_is_passed_over_and_not_run(
    tmp_path, write, kind
):
    evidence = tmp_path / "evidence"
    for tree in ({}, {"rest": [{}]}):
        tree |= {"args": evidence_of(evidence)[kind]}
        tree |= {"model": {"a": torch_files.vector("0", NUMBERS)}, "epoch": 3}
        write(tmp_path / "x.pth", tree, {"0": NUMBERS})
        np.testing.assert_array_equal(read_checkpoint(tmp_path / "x.pth")["a"], NUMBERS)
    assert not evidence.exists()


@both_containers
@pytest.mark.parametrize("kind", evidence_of(""))
def test_inside_the_state_dict_it_is_refused_and_not_run(tmp_path, write, kind):
    evidence = tmp_path / "evidence"
    leaf = torch_files.vector("0", NUMBERS)
    tree = {"model": {"a": leaf, "bad": evidence_of(evidence)[kind]}}
    write(tmp_path / "x.pth", tree, {"0": NUMBERS})
    refused(tmp_path / "x.pth", "holds 'bad', which")
    assert not evidence.exists()


@pytest.mark.parametrize(
    "tree",
    [
        Call("torchvision.models.resnet.ResNet"),
        {"model": Call("torchvision.models.resnet.ResNet"), "epoch": 3},
        {
            "model": Call("torchvision.models.resnet.ResNet"),
            "rng": {"cpu": torch_files.vector("0", NUMBERS)},
        },
    ],
)
def test_a_whole_module_is_told_from_its_state_dict(tmp_path, tree):
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    message = r"holds torchvision.models.resnet.ResNet; only tensors .*state_dict\(\)"
    refused(tmp_path / "x.pth", message)


@pytest.mark.parametrize("kind", ["a name", "a protocol", "an ordered dict"])
def test_a_small_file_cannot_fill_the_memory(tmp_path, kind):
    # Each list holds the one before it ten times: 10^30 items, if any were visited.
    step = b"](" + b"h\x00" * 10 + b"eq\x00"
    bomb = b"]q\x00" + b"0".join([step] * 30)
    if kind == "a name":
        code = b"X\x01\x00\x00\x00a" + bomb + b"\x93"
        torch_files.write_zip(tmp_path / "x.pth", {"args": Raw(code)})
        refused(tmp_path / "x.pth", "cannot be read")
    elif kind == "a protocol":
        magic = torch_files.pickled(0x1950A86A20F9469CFC6C)
        (tmp_path / "x.pth").write_bytes(magic + torch_files.pickled(Raw(bomb)))
        refused(tmp_path / "x.pth", "is of another protocol")
    else:
        # A list of items that many ordered dicts are made of; 10 GB in all.
        items = (
            b"]("
            + b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(10**4))
            + b"eq\x00"
        )
        dicts = b"0](" + b"ccollections\nOrderedDict\nh\x00\x85R" * 10**4 + b"e"
        tree = {
            "args": Raw(items + dicts),
            "model": {"a": torch_files.vector("0", NUMBERS)},
        }
        torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
        assert list(read_checkpoint(tmp_path / "x.pth")) == ["a"]


def test_an_ordered_dict_of_python_2_is_read(tmp_path):
    leaf = torch_files.vector("0", NUMBERS)
    tree = Call("collections.OrderedDict", ([["a", leaf], ["b", leaf]],))
    torch_files.write_stream(tmp_path / "x.pth", tree, {"0": NUMBERS})
    assert list(read_checkpoint(tmp_path / "x.pth")) == ["a", "b"]


def test_tensors_with_attributes_are_read(tmp_path):
    leaf = torch_files.vector("0", NUMBERS)
    state = {"no_weight_decay": Call("a.B")}
    rebuild = Name("torch._utils._rebuild_tensor_v2")
    hooks = Call("collections.OrderedDict")
    arguments = (torch_files.storage("0", "float32", 12), 0, (12,), (1,), False, hooks)
    tree = {
        "a": Call("torch._utils._rebuild_parameter_with_state", (leaf, True, 0, state)),
        "b": Call(
            "torch._tensor._rebuild_from_type_v2",
            (rebuild, Name("torch.Tensor"), arguments, state),
        ),
    }
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    arrays = read_checkpoint(tmp_path / "x.pth")
    np.testing.assert_array_equal(arrays["a"], NUMBERS)
    np.testing.assert_array_equal(arrays["b"], NUMBERS)


# Weights in several files.


def write_shards(folder, changes=(), metadata=None):
    entry = {"a": ("F32", [12], NUMBERS.tobytes())}
    other = {"b": ("F32", [3, 4], NUMBERS.tobytes())}
    write_safetensors(folder / "model-00001-of-00002.safetensors", entry)
    write_safetensors(folder / "model-00002-of-00002.safetensors", other)
    weight_map = {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
    }
    weight_map |= dict(changes)
    metadata = {"total_size": 96} if metadata is None else metadata
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    return path


@pytest.mark.parametrize("metadata", [None, {}, {"total_size": 96.0}])
def test_shards_are_read_by_their_index(tmp_path, metadata):
    arrays = read_checkpoint(write_shards(tmp_path, metadata=metadata))
    assert list(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["b"], NUMBERS.reshape(3, 4))


def test_shards_may_be_torchs(tmp_path):
    index = {"weight_map": {"module.a": "1.bin", "module.b": "2.bin"}}
    for name, file in index["weight_map"].items():
        tree = {name: torch_files.vector("0", NUMBERS)}
        torch_files.write_zip(tmp_path / file, tree, {"0": NUMBERS})
    path = tmp_path / "pytorch_model.bin.index.json"
    path.write_text(json.dumps(index))
    assert list(read_checkpoint(path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "metadata", "message"),
    [
        ({"c": "model-3.safetensors"}, None, "needs 3 .* 1 are missing: 'model-3.safe"),
        ({"c": "model-00001-of-00002.safetensors"}, None, "only the index has 'c'"),
        ({"a": "model-00002-of-00002.safetensors"}, None, "only the index has 'a'"),
        ({"a": "../x.safetensors"}, None, "names the shard '../x.safetensors'; shards"),
        ({"a": "/etc/passwd"}, None, "names the shard '/etc/passwd'"),
        ({"a": "..\\x"}, None, "names the shard"),
        ({"a": "C:x"}, None, "names the shard 'C:x'"),
        ({"a": "sub/x.safetensors"}, None, "names the shard 'sub/x.safetensors'"),
        ({"a": ".."}, None, "names the shard '..'"),
        ({"a": "."}, None, "names the shard '.'"),
        ({"a": ""}, None, "names the shard ''"),
        ({"a": 3}, None, "names the shard 3"),
        ({"a": "model.safetensors.index.json"}, None, "which is an index too"),
        ({}, {"total_size": 95}, "states 95 bytes of tensors; its shards hold 96"),
        ({}, {"total_size": "96"}, "states '96' bytes"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(
    tmp_path, changes, metadata, message
):
    refused(write_shards(tmp_path, changes, metadata), message)


def test_a_tensor_that_the_index_lacks_is_refused(tmp_path):
    index = write_shards(tmp_path)
    entries = {k: ("F32", [12], NUMBERS.tobytes()) for k in "ac"}
    write_safetensors(tmp_path / "model-00001-of-00002.safetensors", entries)
    refused(index, "shard model-00001-of-00002.safetensors: the shard has 'c'")


def test_a_damaged_shard_is_named(tmp_path):
    index = write_shards(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"PK")
    refused(index, "cannot be read: model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map']
)
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path / "config.json", "no index of shards|cannot be read")


def test_a_dict_that_holds_itself_ends(tmp_path):
    # {"model": itself}: an empty dict, stored as 0, its key, then 0 again.
    program = b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", program)
    refused(tmp_path / "x.pth", "holds 'model', which is of the type dict")


# Rejected files.


@both_containers
@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.hub.load",
        "torch.nn.modules.conv.Conv2d",
        "__torch__.Net",
    ],
)
def test_any_other_name_is_refused_by_it(tmp_path, write, name):
    evidence = tmp_path / "evidence"
    tree = {"a": Call(name, (f"touch {evidence}",))}
    write(tmp_path / "x.pth", tree)
    refused(tmp_path / "x.pth", f"holds {name}; only tensors are read")
    assert not evidence.exists()


def test_instructions_that_torch_does_not_write_are_refused(tmp_path):
    program = b"\x80\x02}(X\x01\x00\x00\x00a(X\x02\x00\x00\x00lsios\nsystem\nu."
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", program)
    refused(tmp_path / "x.pth", r"INST \(os system\); only tensors are read")


def test_a_pickle_of_another_program_is_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(torch_files.pickled({"a": 1}))
    refused(tmp_path / "x.pth", "is a pickle, but not one that torch wrote")


@both_containers
@pytest.mark.parametrize(
    ("leaf", "kind"), [(3, "int"), ("x", "str"), ([], "list"), ({"c": 1}, "dict")]
)
def test_a_leaf_that_is_no_tensor_is_refused_by_its_entry(tmp_path, write, leaf, kind):
    tree = {"a": torch_files.vector("0", NUMBERS), "fc.b": leaf}
    write(tmp_path / "x.pth", tree, {"0": NUMBERS})
    refused(tmp_path / "x.pth", f"holds 'fc.b', which is of the type {kind}, no tensor")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "holds a list, no dict of tensors"),
        (torch_files.vector("0", NUMBERS), "holds a Tensor, no dict of tensors"),
        ({}, "holds no tensors"),
    ],
)
def test_what_is_no_dict_of_tensors_is_refused(tmp_path, tree, message):
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    refused(tmp_path / "x.pth", message)


@both_containers
@pytest.mark.parametrize(
    ("shape", "strides", "offset", "message"),
    [
        ((13,), (1,), 0, "holds 'a', which reaches number 12 of a storage that has 12"),
        ((2,), (1,), 11, "reaches number 12 of a storage"),
        ((2, 2), (12, 1), 0, "reaches number 13 of a storage"),
        ((1,), (1,), 10**30, "reaches number 10+ of a storage"),
        ((2**40, 2**40), (2**40, 1), 0, "reaches number"),
        ((2,), (-1,), 1, "no count"),
        ((-2,), (1,), 0, "no count"),
        ((1,), (1,), -1, "no count"),
        ((1.5,), (1,), 0, "no count"),
        ((2, 2), (1,), 0, "cannot be read"),
        (3, 1, 0, "cannot be read"),
        ((0, 10**30), (1, 1), 0, "cannot be read"),
    ],
)
def test_a_view_stays_within_its_storage(
    tmp_path, write, shape, strides, offset, message
):
    tree = {"a": torch_files.tensor("0", "float32", 12, shape, strides, offset)}
    write(tmp_path / "x.pth", tree, {"0": NUMBERS})
    refused(tmp_path / "x.pth", message)


def test_a_storage_that_is_shorter_than_it_says_is_refused(tmp_path):
    tree = {"a": torch_files.vector("0", NUMBERS)}
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS[:5]})
    refused(tmp_path / "x.pth", "reaches number 11 of a storage that has 5")


@pytest.mark.parametrize("key", ["1", "../data.pkl"])
def test_a_storage_that_is_not_there_is_refused(tmp_path, key):
    tree = {"a": torch_files.vector(key, NUMBERS)}
    torch_files.write_zip(tmp_path / "x.pth", tree, {"0": NUMBERS})
    refused(tmp_path / "x.pth", "cannot be read")


def test_keys_that_are_not_words_are_refused(tmp_path):
    torch_files.write_zip(tmp_path / "x.pth", {((),): 1})
    refused(tmp_path / "x.pth", "a key is of the type tuple")


def test_objects_and_words_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    refused(tmp_path / "a.npz", "allow_pickle=False")
    np.savez(tmp_path / "b.npz", words=np.array(["x"]))
    refused(tmp_path / "b.npz", "holds 'words', which is of the dtype <U1")


def test_a_dtype_that_numpy_lacks_is_refused(tmp_path):
    write_safetensors(tmp_path / "x", {"a": ("F4", [2], b"\0")})
    refused(tmp_path / "x", "holds 'a' in the dtype F4")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    refused(tmp_path / "missing.pth", "There is no file")
    refused(tmp_path, "is a folder; cnn_flax.load_pretrained takes one")
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", "is empty")
    (tmp_path / "text").write_text("version https://git-lfs.github.com/spec/v1")
    refused(tmp_path / "text", "it begins with b'version https://'")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "zip", "is a zip archive, but neither .npz nor torch's")


def all_formats(folder):
    np.savez_compressed(folder / "x.npz", a=NUMBERS)
    write_safetensors(folder / "x", {"a": ("F32", [12], NUMBERS.tobytes())})
    paths = [folder / "x.npz", folder / "x"]
    return paths + [WRITTEN_BY_TORCH / name for name in ("zip.pth", "stream.pth")]


@pytest.mark.parametrize("index", range(4))
def test_a_file_that_was_cut_short_is_refused(tmp_path, index):
    data = all_formats(tmp_path)[index].read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(1, 20), *range(20, len(data), 37), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(cut)


# pickletools warns of a backslash in a name.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("index", range(4))
def test_a_file_with_wrong_bytes_is_read_or_refused(tmp_path, index):
    data = all_formats(tmp_path)[index].read_bytes()
    rng = np.random.default_rng(index)
    wrong = tmp_path / "wrong"
    for _ in range(150):
        changed = bytearray(data)
        changed[rng.integers(len(data))] = rng.integers(256)
        wrong.write_bytes(changed)
        try:
            read_checkpoint(wrong)
        except CheckpointError:
            pass
