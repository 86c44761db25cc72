"""Files of weights that were made to hang the reader, or to fill the memory."""

import gzip
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from cnn_flax import load_pretrained
from cnn_flax.weights import CheckpointError, WeightsError, read_checkpoint, to_torch
from cnn_flax.weights.errors import reason_of
from cnn_flax.weights.native import from_native
from cnn_flax.weights.variables import variable_shapes
from tests.support import torch_files
from tests.support.torch_files import NUMBERS, Raw


def doubled(times):
    """Instructions that leave a tuple of 2 ** times numbers: (x, x) of the one before.

    Its `repr` and its hash would take as many steps.
    """
    return b"K\x01\x85" + b"q\x00h\x00\x86" * times


def long(bits):
    """The instruction that leaves a number of so many bits."""
    digits = b"\xff" * (bits // 8 - 1) + b"\x7f"
    return b"\x8b" + struct.pack("<I", len(digits)) + digits


def refused(path):
    """Reads a file, which must be refused in one short line; returns it."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value).removeprefix(str(path))
    assert message != str(caught.value)
    assert 10 < len(message) < 1000
    assert len(message.splitlines()) == 1
    return message


def stream(path, tree, keys):
    """Writes torch's older format from the instructions of two pickles."""
    torch_files.write_stream(path, {})
    head = path.read_bytes()[: -len(torch_files.pickled({}) + torch_files.pickled([]))]
    parts = [torch_files.pickled(Raw(code)) for code in (tree, keys)]
    path.write_bytes(b"".join([head, *parts, bytes(64)]))
    return path


WORD = b"X\x01\x00\x00\x00a"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"}" + WORD + doubled(60) + b"s", "holds 'a', which is of the type tuple"),
        (doubled(60) + b")R", "a tuple is called"),
        (doubled(60), "holds a tuple, no dict of tensors"),
        (b"}" + doubled(60) + b"K\x01s", "a key is of the type tuple"),
        (doubled(60) + b"Q", "a persistent id that is no storage"),
        (b"ctorch._utils\n_rebuild_parameter\n" + doubled(400) + b"R", "holds a tuple"),
        (b"]" + doubled(400) + b"b", "holds a list"),
        (b"(" + doubled(60) + b"h\x07", "has no 7"),
    ],
)
def test_what_a_pickle_built_is_never_printed(tmp_path, code, message):
    path = tmp_path / "x.pth"
    torch_files.write_zip(path, Raw(code))
    assert message in refused(path)


@pytest.mark.parametrize("keys", [doubled(400), b"](" + doubled(60) + b"e", b"K\x01"])
def test_storages_of_a_stream_are_words(tmp_path, keys):
    path = stream(tmp_path / "x.pth", b"}", keys)
    assert "has no list of its storages" in refused(path)


def test_long_names_are_cut_in_messages(tmp_path):
    path, name = tmp_path / "x.pth", "n" * 100_000
    torch_files.write_zip(path, {name: 1})
    assert f"holds '{'n' * 80}'..., which" in refused(path)
    torch_files.write_zip(path, {"a": torch_files.vector(name, NUMBERS)})
    assert "There is no item named 'archive/data/nnn" in refused(path)
    torch_files.write_zip(path, torch_files.Name(f"module.{name}"))
    assert "holds module.nnn" in refused(path)
    (tmp_path / "x.json").write_text(f'{{"weight_map": {{"a": "/{name}"}}}}')
    assert "names the shard '/nnn" in refused(tmp_path / "x.json")


def test_an_error_without_words_has_a_reason():
    assert reason_of(MemoryError()) == "it needs more memory than there is"
    assert reason_of(EOFError()) == "EOFError"
    assert reason_of(KeyError(("a",) * 9)) == "it has no a tuple"
    assert reason_of(ValueError((0,) * 10**6)) == "ValueError"


def view(shape, strides=b"(K\x01t", offset=b"K\x00"):
    """Instructions of a dict with a view of the storage of `NUMBERS`."""
    storage = torch_files._instructions(torch_files.storage("0", "float32", 12))
    call = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return Raw(
        b"}" + WORD + call + b"(" + storage + offset + shape + strides + b"\x89NtRs"
    )


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (view(b"(" + long(500_000) + b"t"), "no count"),
        (view(b"(K\x01t", b"(" + long(500_000) + b"t"), "no count"),
        (view(b"(K\x01t", offset=long(1_000_000)), "no count"),
        (view(b"(K\x0ct", b"(" + long(120) + b"t"), "reaches number"),
        (view(b"(" + b"K\x01" * 65 + b"t", b"(" + b"K\x01" * 65 + b"t"), "has 65 axes"),
        (view(b"(" + b"K\x00" * 200 + b"t"), "has 200 axes"),
        (Raw(b"}" + long(40_000) + b"K\x01s"), "a key is of the type an integer of 3"),
        (Raw(b"}" + WORD + long(40_000) + b"s"), "holds 'a', which holds an integer"),
    ],
)
def test_numbers_that_no_tensor_has_are_refused(tmp_path, tree, message):
    path = tmp_path / "x.pth"
    torch_files.write_zip(path, tree, {"0": NUMBERS})
    assert message in refused(path)


def test_the_view_of_these_tests_is_read(tmp_path):
    torch_files.write_zip(tmp_path / "x.pth", view(b"(K\x0ct"), {"0": NUMBERS})
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "x.pth")["a"], NUMBERS)


def test_a_flood_of_arguments_is_refused_at_once(tmp_path):
    path = tmp_path / "x.pth"
    many = b"(" + b"K\x01" * 1000 + b"tq\x000"
    torch_files.write_zip(path, Raw(many + b"ctorch\nSize\nh\x00R0" * 1000 + b"}"))
    assert "a call has more arguments than torch's" in refused(path)


def test_calls_that_are_never_made_have_any_number_of_arguments(tmp_path):
    path = tmp_path / "x.pth"
    record = torch_files.Call("a.NamedTuple", tuple(range(20)))
    weights = {"a": torch_files.vector("0", NUMBERS)}
    tree = {"state_dict": weights, "args": record}
    torch_files.write_zip(path, tree, {"0": NUMBERS})
    np.testing.assert_array_equal(read_checkpoint(path)["a"], NUMBERS)


# Bombs.


@pytest.mark.parametrize("compressed", ["data.pkl", "data/0"])
def test_compressed_entries_of_torchs_archives_are_refused(tmp_path, compressed):
    path = tmp_path / "x.pth"
    tree = torch_files.pickled({"a": torch_files.vector("0", NUMBERS)})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("data.pkl", tree), ("data/0", bytes(48))):
            kind = zipfile.ZIP_DEFLATED if name == compressed else zipfile.ZIP_STORED
            archive.writestr(f"archive/{name}", data, kind)
    assert f"has the compressed entry 'archive/{compressed}'" in refused(path)


def test_code_next_to_the_tensors_may_be_compressed(tmp_path):
    path = tmp_path / "x.pth"
    torch_files.write_zip(path, {"a": torch_files.vector("0", NUMBERS)}, {"0": NUMBERS})
    with zipfile.ZipFile(path, "a") as archive:  # As torch.jit.save does.
        archive.writestr("archive/code/x.py", "#" * 500, zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_checkpoint(path)["a"], NUMBERS)


def test_entries_larger_than_their_file_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    tree = {"a": torch_files.vector("0", NUMBERS)}
    torch_files.write_zip(path, tree, {"0": NUMBERS})
    data = bytearray(path.read_bytes())
    place = data.index(b"archive/data/0", data.index(b"PK\x01\x02"))
    data[place - 26 : place - 18] = struct.pack("<2I", 2**31, 2**31)
    path.write_bytes(data)
    assert "larger than the file" in refused(path)


def write_npz(path, shape, size, level=9):
    """A `.npz` of zeros that is much smaller than its array."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as z:
        with z.open("a.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(size))


def test_an_npz_that_unpacks_to_more_than_its_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cnn_flax.weights.unpacking._BYTES", 1000)
    path = tmp_path / "x.npz"
    write_npz(path, (20_000,), 80_000)
    assert "unpacks to 80,128 bytes, and at most" in refused(path)
    assert "max_bytes=N" in refused(path)
    assert read_checkpoint(path, max_bytes=80_128)["a"].size == 20_000
    with pytest.raises(CheckpointError, match="at most 80,127"):
        read_checkpoint(path, max_bytes=80_127)


def test_the_limit_grows_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("cnn_flax.weights.unpacking._BYTES", 0)
    np.savez(tmp_path / "x.npz", a=NUMBERS)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "x.npz")["a"], NUMBERS)


@pytest.mark.parametrize(
    "shape", [(2**40, 2**20), (2**62, 0, 5), (-3,), (2,), (4,), (1,) * 65, (10**30,)]
)
def test_a_header_that_lies_about_its_array_is_refused(tmp_path, shape):
    write_npz(tmp_path / "x.npz", shape, 12)
    assert "header" in refused(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4',",
        b"\x93NUMPY\x01\x00\x09\x00((((((((\n",
        b"\x93NUMPY\x01\x00\x0b\x00{'a': 'b'}\n" + bytes(9),
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x07\x00\x00\x00",
    ],
)
def test_a_member_that_is_no_array_is_refused(tmp_path, data):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", data)
    assert "cannot be read" in refused(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_compression_is_refused(tmp_path, method):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        with archive.open("a.npy", "w") as file:
            np.save(file, np.arange(1000))
    data = bytearray(path.read_bytes())
    data[60:70] = b"0123456789"
    path.write_bytes(data)
    assert "cannot be read" in refused(path)


def test_gzip_is_no_checkpoint(tmp_path):
    (tmp_path / "x").write_bytes(gzip.compress(zlib.compress(bytes(99))))
    assert "neither safetensors" in refused(tmp_path / "x")


LONG = "n" * 10**6
KERNEL = np.zeros((1, 1, 1, 1), np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"conv1.weight": KERNEL, LONG: KERNEL},
        {
            f"{i}{LONG}.{name}": KERNEL
            for i in range(9)
            for name in ("conv1.weight", "layer1.0.conv1.weight")
        },
    ],
    ids=["a name", "many nets"],
)
def test_a_message_limits_the_names_that_a_file_gives(tmp_path, monkeypatch, arrays):
    # Without a search for the model that such a file fits, which takes seconds.
    monkeypatch.setattr("cnn_flax.weights.convert.list_models", lambda: ["resnet18"])
    save_file(arrays, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="nnn") as caught:
        load_pretrained("resnet18", tmp_path / "x.safetensors")
    assert len(str(caught.value)) < 1000


def test_variables_with_a_long_name_are_refused_in_a_short_message():
    shapes = variable_shapes("alexnet", {"num_classes": 2})
    arrays = {
        path: np.broadcast_to(np.float32(0), x.shape) for path, x in shapes.items()
    }
    with pytest.raises(WeightsError, match="nnn") as caught:
        from_native("alexnet", {**arrays, f"params/{LONG}": KERNEL})
    assert len(str(caught.value)) < 300
    for variables in ({LONG: {}}, {"params": {LONG: {"kernel": KERNEL}}}):
        with pytest.raises(WeightsError, match="nnn") as caught:
            to_torch("resnet18", variables)
        assert len(str(caught.value)) < 300


def test_the_name_of_a_shard_may_be_long(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": LONG}}))
    assert "1 are missing: 'nnn" in refused(index)
