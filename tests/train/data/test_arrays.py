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
        ({"a": LABELS}, "has the arrays 'a'; expected x_train and y_train"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"are float64 .* must be uint8"),
        ({"images": IMAGES, "labels": LABELS[:7]}, r"int64 \[7\]; .* integers \[20\]"),
        ({"images": IMAGES, "labels": LABELS - 1}, "label -1 at image 0"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": ["a", "b"]},
            "label 2 at image 2 .* 0 to 1",
        ),
        ({"images": IMAGES, "labels": LABELS.astype(object)}, "labels of .* be read"),
        (
            {"images": IMAGES, "labels": np.where(LABELS == 1, np.nan, LABELS)},
            r"labels is float64 \[20\]; .*save labels.astype\(int\)",
        ),
        ({"images": IMAGES, "labels": LABELS.astype(np.float32)}, "is float32 .20.;"),
        (
            {"images": IMAGES, "labels": LABELS > 0},
            r"labels is bool \[20\]; .* integers",
        ),
        (
            {"images": IMAGES, "labels": np.eye(4, dtype=int)[LABELS[:, 0]]},
            r"labels is int64 \[20, 4\] with one class .*save labels.argmax\(-1\)",
        ),
        (
            {"images": IMAGES, "labels": np.asarray("cat")},
            r"is <U3 \[\]; labels must be",
        ),
        (
            {"images": IMAGES[:4], "labels": np.asarray([0, 1, 2, 10**8])},
            "label 100000000 of 4 images would make 100,000,001 classes; number",
        ),
        (
            {
                "images": np.zeros((40, 1, 28, 28), np.uint8),
                "labels": np.arange(40) % 2,
            },
            r"\[40, 1, 28, 28\].*\[n, C, h, w\].*save images.transpose\(0, 2, 3, 1\)",
        ),
        (
            {"images": np.zeros((8, 3, 9, 7), np.uint8), "labels": np.arange(8) % 2},
            r"looks like \[n, C, h, w\]",
        ),
        (
            {"images": IMAGES[0, ..., 0], "labels": np.arange(4)},
            r"images are .*\[4, 4\]",
        ),
        ({"images": IMAGES[None], "labels": LABELS[:1]}, r"\[1, 20, 4, 4, 3\]"),
        ({"images": IMAGES - 1.5, "labels": LABELS}, r"float64 .* in \[0, 255\]"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "with at least one"),
    ],
)
def test_npz_arrays_that_do_not_match_are_refused(tmp_path, arrays, message):
    with pytest.raises(SourceError, match=message):
        open_source(save(tmp_path, **arrays))


@pytest.mark.parametrize("kind", [str, bytes])
def test_npz_labels_that_are_strings_become_class_names(tmp_path, kind):
    words = np.asarray(["cat", "cäfé", "ant", "$$"])[LABELS]
    words = words if kind is str else np.char.encode(words, "utf-8")
    arrays = {
        "x_train": IMAGES,
        "y_train": words,
        "x_test": IMAGES,
        "y_test": words[:, 0],
    }
    for split in ("train", "test"):
        source = open_source(save(tmp_path, **arrays), split)
        assert source.class_names == ("$$", "ant", "cat", "cäfé")
        np.testing.assert_array_equal(source.labels, np.tile([2, 3, 1, 0], 5))
    ordered = open_source(save(tmp_path, **arrays, class_names=words[:4, 0][::-1]))
    assert ordered.class_names == ("$$", "ant", "cäfé", "cat")
    np.testing.assert_array_equal(ordered.labels, np.tile([3, 2, 1, 0], 5))
    arrays["y_test"] = np.where(LABELS[:, 0] == 1, "emu", "cat")
    with pytest.raises(SourceError, match=r"label 'emu' is none of the 4 classes: '\$"):
        open_source(save(tmp_path, **arrays), "test")


def test_npz_labels_may_leave_out_classes_and_be_unsigned(tmp_path):
    labels = np.asarray([0, 255, 7, 999] * 5, np.uint16)
    source = open_source(save(tmp_path, x_train=IMAGES, y_train=labels))
    assert len(source.class_names) == 1000
    np.testing.assert_array_equal(np.unique(source.labels), [0, 7, 255, 999])


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
