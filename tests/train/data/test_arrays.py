import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from train.data import SourceError, open_source


def test_digits_are_scikit_learns_scaled_to_8_bits():
    from sklearn.datasets import load_digits

    source = open_source("digits")
    i = int(source.name(5).removeprefix("digits/"))
    pixels, labels = load_digits(return_X_y=True)
    expected = pixels[i].reshape(8, 8) * 255 / 16
    np.testing.assert_allclose(source.read(5)[..., 0], expected, atol=0.5)
    assert source.labels[5] == labels[i]


def test_digits_take_no_path():
    with pytest.raises(SourceError, match="digits takes no path, but '/tmp' was given"):
        open_source("digits:/tmp")


def test_idx_labels_out_of_range_are_named(write):
    spec = write("idx")
    file = Path(spec.removeprefix("idx:")) / "train-labels-idx1-ubyte.gz"
    data = bytearray(gzip.decompress(file.read_bytes()))
    data[8 + 3] = 11
    file.write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(
        SourceError,
        match=r"label 11 at image 3 \(train/3\) is out of range: .* are 0 to 2",
    ):
        open_source(spec)


def test_idx_classes_are_digits_or_fashion_by_the_path(write, tmp_path):
    folder = Path(write("idx").removeprefix("idx:"))
    (folder / "classes.txt").unlink()
    assert open_source(f"idx:{folder}").class_names == tuple("0123456789")
    fashion = folder.rename(tmp_path / "Fashion-MNIST")
    assert open_source(f"idx:{fashion}").class_names[9] == "Ankle boot"


def test_missing_idx_files_are_named(write, tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        open_source(f"idx:{tmp_path / 'nowhere'}")
    spec = write("idx")
    (Path(spec.removeprefix("idx:")) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(SourceError, match="no file t10k-labels-idx1-ubyte or t10k"):
        open_source(spec, "test")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\3\4 and so on", "is not an idx file of .* rank 3: .* with 50 4b 03 04"),
        (
            struct.pack(">HBB3I", 0, 8, 3, 2, 6, 6),
            r"0 values, but its header says \[2, 6, 6\]",
        ),
        (struct.pack(">HBB", 0, 8, 3), "it begins with 00 00 08 03$"),
    ],
)
def test_broken_idx_files_are_named(write, data, message):
    spec = write("idx, not gzipped")
    file = Path(spec.removeprefix("idx:")) / "train-images-idx3-ubyte"
    file.write_bytes(data)
    with pytest.raises(SourceError, match=f"train-images-idx3-ubyte.*{message}"):
        open_source(spec)


def test_damaged_idx_gzip_files_are_named(write):
    spec = write("idx")
    file = Path(spec.removeprefix("idx:")) / "train-images-idx3-ubyte.gz"
    data = bytearray(file.read_bytes())
    data[20:30] = b"0123456789"
    for damaged in (data, data[:100]):
        file.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"train-images-idx3-ubyte\.gz cannot be"):
            open_source(spec)


def save(tmp_path: Path, **arrays) -> str:
    np.savez(tmp_path / "set.npz", **arrays)
    return f"npz:{tmp_path / 'set.npz'}"


IMAGES = np.arange(20 * 4 * 4 * 3, dtype=np.uint8).reshape(20, 4, 4, 3)
LABELS = np.arange(20)[:, None] % 4


def test_npz_accepts_the_usual_names(tmp_path):
    spec = save(
        tmp_path,
        train_images=IMAGES,
        train_labels=LABELS,
        val_images=IMAGES[:5],
        val_labels=LABELS[:5],
    )
    source = open_source(spec)
    np.testing.assert_array_equal(source.images, IMAGES)
    np.testing.assert_array_equal(source.labels, LABELS[:, 0])
    assert source.class_names == ("0", "1", "2", "3")
    assert len(open_source(spec, "val")) == 5


def test_npz_without_splits_is_split(tmp_path):
    spec = save(tmp_path, images=IMAGES, labels=LABELS)
    assert len(open_source(spec, "train")) == 16
    np.testing.assert_array_equal(np.sort(open_source(spec, "test").labels), range(4))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": LABELS}, "has the arrays a; expected x_train and y_train"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"are float64 .* must be uint8"),
        ({"images": IMAGES, "labels": LABELS[:7]}, r"int64 \[7\]; .* integers \[20\]"),
        ({"images": IMAGES, "labels": LABELS - 1}, "label -1 at image 0"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": ["a", "b"]},
            "label 2 at image 2 .* 0 to 1",
        ),
        ({"images": IMAGES, "labels": LABELS.astype(object)}, "labels of .* be read"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "with at least one"),
    ],
)
def test_npz_arrays_that_do_not_match_are_refused(tmp_path, arrays, message):
    with pytest.raises(SourceError, match=message):
        open_source(save(tmp_path, **arrays))


def test_missing_and_invalid_npz_files_are_named(tmp_path):
    with pytest.raises(SourceError, match="nothing.npz: no such file"):
        open_source(f"npz:{tmp_path / 'nothing.npz'}")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(SourceError, match=r"text\.npz cannot be read"):
        open_source(f"npz:{tmp_path / 'text.npz'}")


FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's package")
def test_fashion_mnist_as_debian_has_it():
    train, test = (open_source(f"idx:{FASHION}", split) for split in ("train", "test"))
    np.testing.assert_array_equal(np.bincount(train.labels), [6000] * 10)
    np.testing.assert_array_equal(np.bincount(test.labels), [1000] * 10)
    assert train.native_size == (28, 28)
    assert train.class_names[train.labels[0]] == "Ankle boot"
