"""Sets of images in one file that were made to fill the memory, or are damaged."""

import gzip
import re
import struct
import zipfile

import numpy as np
import pytest

from train.data import SourceError, open_source

IMAGES = np.zeros((8, 100, 100), np.uint8)
LABELS = np.arange(8) % 2


@pytest.fixture(autouse=True)
def low_limit(monkeypatch):
    monkeypatch.setattr("cnn_flax.weights.unpacking._BYTES", 10_000)
    monkeypatch.setattr("cnn_flax.weights.unpacking._allowed", 0)


def refused(spec, message):
    with pytest.raises(SourceError, match=message) as caught:
        open_source(spec)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600
    assert not re.search(r"read: ?\.?$", str(caught.value))


def write_idx(folder, sizes=IMAGES.shape, count=IMAGES.size):
    images = struct.pack(">HBB3I", 0, 8, 3, *sizes) + bytes(count)
    labels = struct.pack(">HBBI", 0, 8, 1, 8) + bytes(8)
    for name, data in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(data))
        (folder / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(data))
    return f"idx:{folder}"


def test_an_idx_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    spec = write_idx(tmp_path)
    refused(spec, "unpacks to 80,000 bytes, and at most .*--max-unpacked-bytes N allow")
    monkeypatch.setattr("cnn_flax.weights.unpacking._allowed", 80_000)
    assert len(open_source(spec)) == 8


def test_no_more_of_an_idx_file_is_unpacked_than_its_header_says(tmp_path):
    spec = write_idx(tmp_path, (8, 2, 2), 10**6)
    refused(spec, r"holds more than 32 values, but its header says \[8, 2, 2\]")


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x_train=IMAGES, y_train=LABELS)
    spec = f"npz:{tmp_path / 'x.npz'}"
    with monkeypatch.context() as patch:
        patch.setattr("cnn_flax.weights.unpacking._read", None)
        refused(
            spec, "unpacks to 80,128 bytes, and at most .*--max-unpacked-bytes N allow"
        )
    monkeypatch.setattr("cnn_flax.weights.unpacking._allowed", 80_128)
    assert len(open_source(spec)) > 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no array",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4',",
        b"\x93NUMPY\x01\x00\x09\x00((((((((\n",
        b"\x93NUMPY\x01\x00\x06\x00{1: 2}\n",
    ],
)
def test_a_member_that_is_no_array_is_named(tmp_path, data):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x_train.npy", data)
        archive.writestr("y_train.npy", data)
    refused(f"npz:{tmp_path / 'x.npz'}", "_train of .*x.npz cannot be read: .")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_compression_is_named(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        for name, array in (("x_train", IMAGES[:, :9, :9]), ("y_train", LABELS)):
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[60:70] = b"0123456789"
    (tmp_path / "x.npz").write_bytes(data)
    refused(f"npz:{tmp_path / 'x.npz'}", "cannot be read: .")
