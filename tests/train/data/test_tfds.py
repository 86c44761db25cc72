import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from train.data import DecodeError, SourceError, open_source
from train.data.tfrecord import TFRecords


def version_folder(spec: str) -> Path:
    return Path(spec.partition("@")[2]) / "toy" / "1.0.0"


def change_json(file: Path, change) -> None:
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def test_for_a_set_that_is_not_prepared_the_error_gives_the_command(tmp_path):
    command = f"tfds build mnist --file_format=array_record --data_dir={tmp_path} "
    with pytest.raises(SourceError, match=command):
        open_source(f"tfds:mnist@{tmp_path}")
    with pytest.raises(SourceError, match="tfds: names no set"):
        open_source("tfds:")


def test_the_folder_of_tensorflow_datasets_is_the_default(write, monkeypatch):
    from tensorflow_datasets.core import constants

    folder = write("tfds array_record").partition("@")[2]
    monkeypatch.setattr(constants, "DATA_DIR", folder)
    assert len(open_source("tfds:toy")) == 15


def test_a_version_can_be_chosen(write):
    spec = write("tfds array_record")
    assert len(open_source(spec.replace("toy", "toy:1.0.0"))) == 15
    with pytest.raises(SourceError, match="toy:2.0.0.* not prepared"):
        open_source(spec.replace("toy", "toy:2.0.0"))


def test_a_set_with_only_training_images_is_split(write):
    spec = write("tfds tfrecord")
    info = version_folder(spec) / "dataset_info.json"
    change_json(info, lambda fields: fields["splits"].pop(1))
    assert len(open_source(spec, "train")) == 12
    np.testing.assert_array_equal(open_source(spec, "test").labels, [0, 1, 2])


def test_a_test_split_without_labels_is_replaced_by_the_validation_split(write, frame):
    from tensorflow_datasets.proto import tf_example_pb2

    spec = write("tfds tfrecord")
    folder = version_folder(spec)
    for file in folder.glob("toy-test.tfrecord-*"):
        shutil.copy(file, folder / file.name.replace("test", "validation"))
        count = 4 if file.name.endswith("0") else 2
        records = TFRecords([str(file)], [count])
        unlabelled = []
        for i in range(count):
            parse = tf_example_pb2.Example.FromString  # pyright: ignore
            example = parse(records[i])
            example.features.feature["label"].int64_list.value[0] = -1
            unlabelled.append(example.SerializeToString())
        frame(file, unlabelled)

    def add(fields):
        fields["splits"].append(fields["splits"][1] | {"name": "validation"})

    change_json(folder / "dataset_info.json", add)
    assert open_source(spec, "test").name(0) == f"{spec} validation[0]"


def test_of_two_labels_the_supervised_key_is_used(write):
    spec = write("tfds array_record")

    def add(fields):
        features = fields["featuresDict"]["features"]
        features["coarse"] = features["label"]

    change_json(version_folder(spec) / "features.json", add)
    assert open_source(spec).labels[14] == 2


def test_a_set_without_a_label_is_refused(write):
    spec = write("tfds array_record")
    features = version_folder(spec) / "features.json"
    change_json(features, lambda f: f["featuresDict"]["features"].pop("label"))
    info = version_folder(spec) / "dataset_info.json"
    change_json(info, lambda fields: fields.pop("supervisedKeys"))
    with pytest.raises(
        SourceError, match="one feature of type ClassLabel, but has 0; .* image"
    ):
        open_source(spec)


def test_a_label_out_of_range_is_named(write):
    spec = write("tfds array_record")
    features = version_folder(spec) / "features.json"
    (version_folder(spec) / "label.labels.txt").write_text("ant\nbee\n")

    def fewer(fields):
        fields["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "2"

    change_json(features, fewer)
    source = open_source(spec)
    source.read(9)
    with pytest.raises(SourceError, match=r"label 2 at .* train\[10\] .* 0 to 1"):
        source.read(10)


@pytest.mark.parametrize("form", ["tfrecord", "array_record"])
def test_a_truncated_file_loses_only_its_last_images(write, form):
    source = open_source(spec := write(f"tfds {form}"))
    file = sorted(version_folder(spec).glob("toy-train.*"))[1]
    data = file.read_bytes()
    file.write_bytes(data[: len(data.rstrip(b"\0")) // 2])
    source.read(3)
    source.read(8)
    with pytest.raises(DecodeError, match=r"tfds:toy@.* train\[7\] cannot be read"):
        source.read(7)


def test_tfrecords_are_read_by_index(tmp_path, frame):
    records = [bytes([k]) * k for k in range(7)]
    for name, part in (("a", records[:3]), ("b", []), ("c", records[3:])):
        frame(tmp_path / name, part)
    found = TFRecords([str(tmp_path / name) for name in "abc"], [3, 0, 4])
    assert len(found) == 7
    order = (6, 0, 3, 1, 2, 4, 5)
    assert [found[i] for i in order] == [records[i] for i in order]
