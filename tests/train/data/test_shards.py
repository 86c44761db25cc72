import hashlib
import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.support.shards import WRITERS, png, write_array_record, write_tar
from train.data import DecodeError, SourceError, open_source
from train.data.shard_readers import open_shard, shard_kind
from train.data.shards import image_keys, list_shards, shard_digest, source_of

IMAGES = [np.full((5, 4), 10 * i, np.uint8) for i in range(8)]
FILES = [png(image) for image in IMAGES]


@pytest.fixture(params=WRITERS)
def shard(request, tmp_path):
    return WRITERS[request.param](tmp_path / "shard", FILES)


def test_every_kind_of_shard_gives_the_same_files_in_any_order(shard):
    reader = open_shard(shard)
    assert len(reader.names) == len(set(reader.names)) == 8
    assert [reader.read(i) for i in (7, 0, 3, 4, 3)] == [
        FILES[i] for i in (7, 0, 3, 4, 3)
    ]
    source = source_of(shard)
    pixels = np.stack([source.read(i)[..., 0] for i in range(8)])
    np.testing.assert_array_equal(pixels, IMAGES)


# A list that is truncated is a shorter list.
@pytest.mark.parametrize(
    "shard", [kind for kind in WRITERS if kind != "list"], indirect=True
)
def test_a_truncated_shard_is_one_error(shard):
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 3])
    with pytest.raises(SourceError, match="cannot be read as a shard"):
        open_shard(shard)


def test_a_shard_that_does_not_exist_or_has_no_image_is_one_error(tmp_path):
    for suffix in ("tar", "array_record", "parquet", "txt"):
        with pytest.raises(SourceError, match="(?i)no such file"):
            open_shard(tmp_path / f"none.{suffix}")
    with pytest.raises(SourceError, match="there is no image in it"):
        open_shard(write_tar(tmp_path / "empty", []))


def test_names_are_those_of_the_members_the_lines_or_the_numbers(tmp_path):
    names = {
        kind: list(open_shard(write(tmp_path / "x", FILES[:2])).names)
        for kind, write in WRITERS.items()
    }
    assert names == {
        "tar": ["a/0000", "a/0001"],
        "array_record": ["0", "1"],
        "parquet": ["0", "1"],
        "list": ["x_files/0000.png", "x_files/0001.png"],
    }


def test_examples_of_tfds_are_read_for_their_image(tmp_path):
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(FILES[3])
    example.features.feature["label"].int64_list.value.append(1)
    other = tf_example_pb2.Example()
    other.features.feature["text"].bytes_list.value.append(b"none")
    records = [m.SerializeToString() for m in (example, other)]
    reader = open_shard(write_array_record(tmp_path / "x", records))
    assert reader.read(0) == FILES[3]
    with pytest.raises(DecodeError, match="without an image; it has: text"):
        reader.read(1)


def test_an_unreadable_image_is_named_by_shard_and_name(tmp_path):
    path = write_tar(tmp_path / "x", [FILES[0], b"none"])
    with pytest.raises(DecodeError, match=r"x\.tar\[a/0001\] cannot be read"):
        source_of(path).read(1)


def test_an_error_on_reading_is_an_image_that_cannot_be_read(tmp_path, monkeypatch):
    def stale(*arguments):
        raise OSError(116, "Stale file handle")

    reader = open_shard(write_tar(tmp_path / "x", FILES[:2]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", stale)
        with pytest.raises(
            DecodeError, match=r"x\.tar\[a/0001\] .*: Stale file handle"
        ):
            reader.read(1)
    assert reader.read(1) == FILES[1]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_shard_that_is_cut_while_it_is_open_has_images_that_cannot_be_read(
    tmp_path, kind
):
    data = [os.urandom(5000) for _ in range(9)]
    path = WRITERS[kind](tmp_path / "x", data)
    reader = open_shard(path)
    os.truncate(path, 4000)
    for index in (0, 8):
        with pytest.raises(
            DecodeError, match=rf"x\.{kind}\[.*{index}\] cannot be read"
        ):
            reader.read(index)


def test_hidden_members_of_a_tar_are_no_images(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("./._1.png", "./1.png", "a/._2.png", "a/2.png", ".3.png"):
            info = tarfile.TarInfo(name)
            info.size = len(FILES[0])
            tar.addfile(info, io.BytesIO(FILES[0]))
    assert list(open_shard(path).names) == ["./1", "a/2"]


def test_lists_of_shards_and_of_images_are_read_alike(tmp_path):
    names = ["a b", "\x0bc\x0c", "d\u2028e\x85", "f\x1cg\udcff"]
    path = tmp_path / "x.txt"
    text = "".join(f"  {name}.tar \r\n\n" for name in names)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    listed = list_shards(f"shards:@{path}")
    assert listed.names == tuple(f"{name}.tar" for name in names)
    assert list(open_shard(path).names) == list(listed.names)
    path.write_bytes(b"a\0b\n")
    with pytest.raises(DecodeError, match="null"):
        open_shard(path).read(0)


def test_the_column_of_a_parquet_must_be_clear(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"a": [b"1"], "b": [b"2"]}), path)
    with pytest.raises(SourceError, match="one column of image files.*are a, b"):
        open_shard(path)
    parquet.write_table(pyarrow.table({"a": FILES[:1], "b": [1]}), path)
    assert open_shard(path).read(0) == FILES[0]


def test_patterns_and_lists_name_shards_below_a_folder(tmp_path):
    for name in ("a/1.tar", "a/0.tar", "b/0.tar", "b/note.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    shards = list_shards(f"shards:{tmp_path}/*/*.tar")
    assert shards.names == ("a/0.tar", "a/1.tar", "b/0.tar")
    assert shards.path("b/0.tar") == tmp_path / "b" / "0.tar"
    parts = [shards.part(i, 2).names for i in range(2)]
    assert parts == [("a/0.tar", "b/0.tar"), ("a/1.tar",)]

    (tmp_path / "list").write_text("b/0.tar\na/1.tar\n\n")
    assert list_shards(f"shards:@{tmp_path}/list").names == ("b/0.tar", "a/1.tar")
    (tmp_path / "a" / "list").write_text(f"../b/0.tar\n{tmp_path}/a/1.tar\n")
    shards = list_shards(f"shards:@{tmp_path}/a/list")
    assert [shards.path(name) for name in shards.names] == [
        tmp_path / "b" / "0.tar",
        tmp_path / "a" / "1.tar",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shards:{}/*.parquet", "no shard matches"),
        ("shards:{}", r"is a folder: give a pattern, such as .*/\*\.tar"),
        ("shards:{}/*", "note.md is not a shard .*parquet"),
        ("shards:@{}/none", "No such file"),
        ("shards:@{}/twice", "has 0.tar twice"),
    ],
)
def test_a_wrong_list_of_shards_is_one_error(tmp_path, spec, message):
    for name in ("0.tar", "note.md"):
        (tmp_path / name).touch()
    (tmp_path / "twice").write_text("0.tar\n./0.tar\n")
    if spec.endswith("/*"):
        (tmp_path / "twice").unlink()
    with pytest.raises(SourceError, match=message):
        list_shards(spec.format(tmp_path))


def test_kinds_follow_from_names():
    assert shard_kind("x.array_record-00003-of-00010") == "array_record"
    with pytest.raises(SourceError, match="decompress it"):
        shard_kind("x.tar.gz")


def test_digests_tell_shards_apart_by_size_and_by_samples(tmp_path):
    path, digests = tmp_path / "x", set()
    for size in (0, 100, 5000, 300_000):
        path.write_bytes(os.urandom(size))
        digests.add(shard_digest(path))
        assert shard_digest(path) in digests
    data = bytearray(path.read_bytes())
    for place in (0, len(data) // 15, len(data) - 1):  # In samples.
        data[place] ^= 1
        path.write_bytes(data)
        digests.add(shard_digest(path))
    assert len(digests) == 4 + 3


def test_keys_are_eight_bytes_of_each_names_hash():
    digest = hashlib.blake2b(b"a/0001", digest_size=8).digest()
    keys = image_keys(["a/0000", "a/0001"])
    assert keys.dtype == np.uint64
    assert keys[1] == int.from_bytes(digest, "little")


def test_shards_as_data_of_a_run_say_what_they_are_for(tmp_path):
    with pytest.raises(SourceError, match="--unlabelled with --pseudo-labels DIR"):
        open_source(f"shards:{tmp_path}/*.tar")


def test_a_photograph_of_a_list_is_decoded_at_a_lower_size(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(stream, "jpeg")
    path = WRITERS["list"](tmp_path / "x", [stream.getvalue()])
    image, label = source_of(path).example(0, 8)
    assert (image.size, label) == ((32, 32), -1)
