"""The smallest form of each file that `python -m benchmarks fuzz` found faults with."""

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_flax.weights import CheckpointError, WeightsError, read_checkpoint
from cnn_flax.weights.identify import identify_weights
from cnn_flax.weights.preprocessing import ImageError, read_image
from cnn_flax.weights.runs import restore_item
from tests.faults.test_checkpoints import saved, shapes, state
from tests.faults.test_tampered_files import HEADER
from tests.support import torch_files
from tests.support.torch_files import NUMBERS
from train.config_file import config_from_json
from train.data import SourceError, open_source
from train.data.decode import DecodeError, decode_image, header_shape
from train.data.label_shards import LabelShard, read_label_shard, write_label_shard
from train.data.pseudo_label_file import read_pseudo_labels
from train.data.shard_readers import open_shard
from train.errors import UserError
from train.run.checkpoint import Checkpoints
from train.run.run_folder import check_same_flags

__all__ = ["saved", "state"]

CORPUS = Path(__file__).with_name("corpus")


def one_line(error):
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1200


def npy(header, version=1, length=None):
    text = header.encode() + b"\n"
    width = 2 if version == 1 else 4
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(width, "little") + text


HEADERS = {
    # NumPy divides by the size of the dtype, which ended the process.
    "no size": npy("{'descr': '<U0', 'fortran_order': False, 'shape': (-1,)}"),
    # NumPy makes room for 4 GB.
    "too long": npy("{'descr': '|u1', 'fortran_order': True}", 2, 2**32 - 1),
    # Python's parser says that the memory is full.
    "nested too deeply": npy("{'descr': " + "-" * 9000 + "1}"),
}


@pytest.mark.parametrize(("message", "data"), HEADERS.items(), ids=HEADERS)
def test_headers_of_arrays_are_refused_before_numpy_reads_them(tmp_path, message, data):
    if message == "no size":
        message = "no shape or dtype"
    header = {**HEADER, "unreadable": {}}
    (tmp_path / "labels.npy.json").write_text(json.dumps(header))
    (tmp_path / "labels.npy").write_bytes(data)
    with pytest.raises(UserError, match=f"labels.npy cannot be read: .*{message}"):
        read_pseudo_labels(tmp_path / "labels.npy")
    with zipfile.ZipFile(tmp_path / "weights", "w") as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(CheckpointError, match=f"weights cannot be read: .*{message}"):
        read_checkpoint(tmp_path / "weights")


def test_arrays_are_not_unpacked_by_methods_that_numpy_does_not_use(tmp_path):
    # The properties of an LZMA stream ask for up to 4 GB.
    with zipfile.ZipFile(tmp_path / "weights", "w", zipfile.ZIP_LZMA) as archive:
        with archive.open("a.npy", "w") as file:
            np.save(file, NUMBERS)
    with pytest.raises(CheckpointError, match="compressed by method 14 of zip; NumPy"):
        read_checkpoint(tmp_path / "weights")


def test_names_in_weights_do_not_break_messages(tmp_path):
    index = {"weight_map": {"a": "a\nb", "c": "c" * 200}}
    (tmp_path / "index").write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=r"2 are missing: 'a\\nb', 'c+'\.\.\."
    ) as caught:
        read_checkpoint(tmp_path / "index")
    one_line(caught)
    torch_files.write_zip(tmp_path / "zip", {"a": Raw("ctor\nch.a\nN\x85R")})
    with pytest.raises(CheckpointError, match="holds 'a', which") as caught:
        read_checkpoint(tmp_path / "zip")
    one_line(caught)


def Raw(code):
    return torch_files.Raw(code.encode("latin-1"))


IMAGES = np.zeros((4, 3, 3), np.uint8)
LABELS = np.array(["a", "b", "a", "b"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": IMAGES, "y_train": "no text"}, "y_train of .* is no Unicode"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "class_names": IMAGES},
            r"class_names is uint8 \[4, 3, 3\]; it must be strings \[K\]",
        ),
        ({"a\nb": IMAGES}, r"has the arrays 'a\\nb'; expected x_train"),
        (
            {
                "x_train": IMAGES,
                "y_train": LABELS,
                "class_names": np.array(["\n", "b"]),
            },
            r"the label 'a' is none of the 2 classes: '\\n', 'b'",
        ),
    ],
)
def test_arrays_of_text_are_checked(tmp_path, arrays, message):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, LABELS if isinstance(array, str) else array)
            data = stream.getvalue()
            if isinstance(array, str):  # A character beyond all of Unicode's.
                data = data[:-4] + b"\xff\xff\xff\xff"
            archive.writestr(f"{name}.npy", data)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(f"npz:{tmp_path / 'x.npz'}")
    one_line(caught)


def test_an_image_that_another_program_would_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)  # Pillow starts Ghostscript.
    path = tmp_path / "x.png"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    with pytest.raises(DecodeError, match="EPS, which is a program and not pixels"):
        decode_image(path.read_bytes(), "x.png")
    with pytest.raises(DecodeError, match="EPS, which is a program and not pixels"):
        header_shape(path)
    with pytest.raises(ImageError, match="EPS, which is a program and not pixels"):
        read_image(path)


def test_the_name_of_an_image_may_have_a_line_break(tmp_path):
    with pytest.raises(DecodeError, match=r"a\\nb cannot be read") as caught:
        decode_image(b"", "a\nb")
    one_line(caught)
    assert caught.value.name == "a\nb"


def test_a_tar_of_impossible_sizes_is_refused(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    data = bytearray(stream.getvalue())
    data[124:136] = b"\x80\0\0\x7f" + bytes(8)  # A size in base 256.
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(SourceError, match="x.tar cannot be read as a shard") as caught:
        open_shard(tmp_path / "x.tar")
    one_line(caught)


def test_a_tar_makes_no_room_for_what_a_header_says(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("a.png")
        info.type, info.size = tarfile.XHDTYPE, 2**50
        tar.addfile(info)
    (tmp_path / "x.tar").write_bytes(stream.getvalue())
    with pytest.raises(
        SourceError, match="x.tar(: there is no| cannot be re)"
    ) as caught:
        open_shard(tmp_path / "x.tar")
    assert not isinstance(caught.value.__cause__, MemoryError)


def test_a_parquet_file_of_a_negative_number_of_rows_is_refused():
    with pytest.raises(SourceError, match=r"says that it has -\d+ rows"):
        open_shard(CORPUS / "negative_rows.parquet")


def test_a_column_shorter_than_a_parquet_file_says_is_damaged():
    shard = open_shard(CORPUS / "short_column.parquet")
    with pytest.raises(DecodeError, match=r"\[2\] .*damaged record: index out of bou"):
        shard.read(2)


def test_more_classes_than_their_numbers_can_count_are_refused(tmp_path):
    header = {"digest": "d", "teacher": "t", "images": 1, "top": 1, "unreadable": {}}
    zeros = np.zeros((1, 1))
    shard = LabelShard(np.zeros(1), zeros, zeros, {**header, "classes": 2**31})
    write_label_shard(tmp_path / "x.npz", shard)
    with pytest.raises(UserError, match="2,147,483,648 classes are too many"):
        read_label_shard(tmp_path / "x.npz")


RECORD = {
    "format": 1,
    "model": {"name": "resnet18", "fields": {}},
    "input": {"image_size": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
}


@pytest.mark.parametrize("share", [0, 1e-300, -1, 2])
def test_a_crop_that_is_no_share_is_not_divided_by(tmp_path, share):
    record = {**RECORD, "config": {"input": {"crop_pct": share}}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(WeightsError, match="crop_pct is no share of an image's side"):
        identify_weights(None, tmp_path)
    assert published(tmp_path, {"crop_pct": share}, {}).certain is False


@pytest.mark.parametrize("own", [None, [], 3, "fields"])
def test_our_part_of_a_published_config_may_be_anything(tmp_path, own):
    assert published(tmp_path, {}, {"cnn_flax": own}).certain is False


def published(folder, images, top):
    """What is said of a file next to a published `config.json`."""
    images = {**{"input_size": [3, 8, 8], "mean": [0.5], "std": [0.5]}, **images}
    config = {"architecture": "resnet18", "pretrained_cfg": images, **top}
    (folder / "config.json").write_text(json.dumps(config))
    torch_files.write_zip(
        folder / "weights", {"a": torch_files.vector("0", NUMBERS)}, {"0": NUMBERS}
    )
    return identify_weights("resnet18", folder / "weights")


def test_what_a_record_holds_does_not_break_messages(tmp_path):
    with pytest.raises(UserError, match="the run's field 'a+'\\.\\.\\.") as caught:
        config_from_json({"a" * 5000: 1})
    one_line(caught)
    with pytest.raises(UserError, match=r"--epochs is a b+ \.\.\. there") as caught:
        check_same_flags(tmp_path, {"epochs": "a\n" + "b" * 999}, {"epochs": 1})
    one_line(caught)


@pytest.mark.parametrize("text", ["3", '"text"', "[" * 100_000])
def test_metadata_of_orbax_that_is_no_object_leaves_the_one_before(
    saved, tmp_path, text
):
    run = shutil.copytree(saved, tmp_path / "run")
    metadata = "_CHECKPOINT_METADATA"
    (run / "checkpoints" / "9" / metadata).write_text(text)
    found = restore_item(run, "model", state(1.0).variables)
    assert found.step == 4 and found.damaged == {9: f"its {metadata} is damaged"}
    assert (run / "checkpoints" / "9").exists()  # Reading changes nothing.
    with Checkpoints(run) as checkpoints:
        assert checkpoints.restore(shapes())[1] == {"step": 4}
        assert checkpoints.damaged == found.damaged
        place = checkpoints.set_aside()
        assert (place / "9" / metadata).read_text() == text
    # Without another one, it stays where it is.
    (run / "checkpoints" / "4" / metadata).write_text(text)
    with pytest.raises(WeightsError, match="checkpoints/4 cannot be read, as its") as e:
        Checkpoints(run)
    one_line(e)
    assert (run / "checkpoints" / "4").exists()


def test_a_meta_of_a_checkpoint_may_be_nested_without_end(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "run")
    (run / "checkpoints" / "9" / "meta" / "metadata").write_text("[" * 100_000)
    with Checkpoints(run) as checkpoints:
        assert checkpoints.restore(shapes())[1] == {"step": 4}
