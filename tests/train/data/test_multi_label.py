import numpy as np
import pytest
from PIL import Image

from train.data import SourceError, eval_batches, open_source

FORMS = {
    "columns": "image,cat,dog,split\na.png,1,0,train\nb.png,1,1,train\n"
    "c.png,0,0,test\n",
    "names": "image,labels,split\na.png,cat,train\nb.png,dog;cat,train\nc.png,,test\n",
    "words": "file,tags,split\na.png,cat,train\nb.png,dog cat,training\nc.png,,Test\n",
    "excel": "\ufeffimage,cat,dog,split\r\na.png,1,0,train\r\nb.png,1,1,train\r\n"
    "\r\nc.png,0,0,test\r\n",
}


@pytest.fixture
def write_csv(tmp_path):
    for value, name in enumerate("abc"):
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(
            tmp_path / f"{name}.png"
        )

    def write(text):
        (tmp_path / "labels.csv").write_text(text, "utf-8", newline="")
        return f"csv:{tmp_path / 'labels.csv'}"

    return write


@pytest.mark.parametrize("form", FORMS)
def test_a_csv_file_has_any_number_of_classes_per_image(write_csv, form):
    spec = write_csv(FORMS[form])
    train, test = open_source(spec), open_source(spec, "test")
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.name(1).endswith("b.png") and test.read(0)[0, 0, 0] == 2
    (batch,) = eval_batches(train, batch_size=3, image_size=4, channels=3)
    np.testing.assert_array_equal(batch["label"][:2], [[1, 0], [1, 1]])
    assert batch["label"].dtype == np.float32
    np.testing.assert_array_equal(batch["mask"], [1, 1, 0])


def test_a_csv_file_may_have_one_class_per_image(write_csv):
    text = "image,label,split\na.png, big cat,train\nb.png,dog,train\nc.png,dog,val\n"
    train, val = (open_source(write_csv(text), split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("big cat", "dog")
    assert train.labels.tolist() == [0, 1] and val.labels.tolist() == [1]
    (batch,) = eval_batches(val, batch_size=1, image_size=4, channels=3)
    assert batch["label"].tolist() == [1] and not val.multi_label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,cat\n", "no images or no classes; expected a header"),
        ("image\na.png\n", "no images or no classes"),
        ("image,cat,dog\na.png,1\n", "row 2 has 2 values, and the header 3"),
        ("image,cat,cat\na.png,1,0\n", "the header has 'cat' twice"),
        ("image,cat\na.png,2\n", "'cat' of 'a.png' is '2'; it must be 0 or 1"),
        ("image,cat,split\na.png,1,x\n", "the split of 'a.png' is 'x'; it must be one"),
        ("image,cat\na\0.png,1\n", "the file in row 2 has a zero byte"),
        ("image,labels\na.png,\n", "no image has a class"),
        ("image,cat,dog\na.png,1,0\nb.png,0,1\n", "one class: .* column 'label'"),
        ("image,tags\na.png,cat\nb.png,dog\n", "one class: .* column 'label'"),
        ("image,label\na.png,cat\nb.png,\n", "'b.png' has no label"),
        ('image,cat\n"a.png,1\n', "cannot be read: unexpected end of data"),
        ("image,cat\nz.png,1\n", "none of 1 files tried is an image"),
    ],
)
def test_a_csv_file_of_another_form_is_refused(write_csv, text, message):
    with pytest.raises(SourceError, match=message):
        open_source(write_csv(text))


def test_names_that_are_no_classes_are_refused_before_they_fill_the_memory(write_csv):
    rows = "".join(f"{i}.png,caption {i}|x\n" for i in range(2**15))
    with pytest.raises(SourceError, match="32,768 images have 32,769 classes.*'x'"):
        open_source(write_csv("image,labels\n" + rows))


def test_a_csv_file_must_be_there_and_text(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        open_source(f"csv:{tmp_path}")
    (tmp_path / "x.csv").write_bytes(b"image,cat\n\xff\xfe,1\n")
    with pytest.raises(SourceError, match="is no text in UTF-8"):
        open_source(f"csv:{tmp_path / 'x.csv'}")


def npz(tmp_path, labels):
    path = tmp_path / "set.npz"
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None]
    images = np.broadcast_to(images, (len(labels), 2, 2))
    np.savez(path, images=images, labels=labels, class_names=["cat", "dog"])
    return f"npz:{path}"


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_arrays_have_any_number_of_classes_per_image(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 2, (10, 2))
    spec = npz(tmp_path, labels.astype(dtype))
    train, test = open_source(spec), open_source(spec, "test")
    assert (len(train), len(test)) == (8, 2)  # Without classes, split at random.
    for source in (train, test, open_source(spec, count=3)):
        assert source.multi_label
        for batch in eval_batches(source, batch_size=4, image_size=2, channels=1):
            rows = batch["mask"] > 0
            of_image = batch["image"][rows, 0, 0, 0]
            np.testing.assert_array_equal(batch["label"][rows], labels[of_image])


def test_arrays_of_other_labels_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"are \[5, 3\]; .* must be \[5, 2\]"):
        open_source(npz(tmp_path, np.zeros((5, 3), int)))
    with pytest.raises(SourceError, match=r"train/2 for 'cat' is 7; .* must be 0 or 1"):
        open_source(npz(tmp_path, np.eye(5, 2, -2, dtype=int) * 7))
    one_class = np.eye(2, dtype=int)[[0, 1, 1, 0, 1]]
    with pytest.raises(SourceError, match=r"one class per image; save labels.argmax"):
        open_source(npz(tmp_path, one_class))


def test_what_needs_one_class_per_image_says_so(tmp_path):
    spec = npz(tmp_path, np.ones((10, 2), int))
    for options in ({"labels_per_class": 1}, {"imbalance": 10}):
        with pytest.raises(
            SourceError, match="several classes per image, and .*--count"
        ):
            open_source(spec, **options)
