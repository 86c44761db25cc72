import json
import pathlib
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from cnn_flax.weights import CheckpointError, read_checkpoint
from tests.support import torch_files
from tests.support.torch_files import NUMBERS, Built, Call, Name

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


def test_a_prefix_of_some_names_stays(tmp_path):
    assert names_of(tmp_path, "module.a", "b") == ["module.a", "b"]


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
