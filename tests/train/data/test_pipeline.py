import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.data import (
    BadImages,
    BadImagesError,
    SourceError,
    eval_batches,
    open_source,
    steps_per_epoch,
    train_batches,
)
from train.data.decode import fit
from train.data.random_windows import RandomWindows
from train.errors import UserError

SHAPE: dict[str, Any] = {"image_size": 8, "channels": 3}


def train(source, steps, **options):
    stream = train_batches(source, **{"batch_size": 10, "seed": 0, **SHAPE, **options})
    try:
        return list(itertools.islice(stream, steps))
    finally:
        stream.close()


def evaluate(source, **options):
    return list(eval_batches(source, **{"batch_size": 10, **SHAPE, **options}))


def assert_equal(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def joined(batches, key):
    return np.concatenate([batch[key] for batch in batches])


@pytest.fixture(params=["memory", "memory, resized", "files"])
def source(request, photo_folder):
    """A hundred images; image i of the files has the value i."""
    if request.param == "files":
        return open_source(f"folder:{photo_folder}").take(np.arange(80))
    return open_source("digits", count=80)


@pytest.fixture
def shape(request, source):
    """Sizes that need no resize of the set in memory, and sizes that do."""
    resized = "resized" in request.node.callspec.params["source"]
    return {"image_size": 12 if resized else 8, "channels": source.channels}


def test_batches_have_the_promised_shapes(source, shape):
    size, channels = shape["image_size"], shape["channels"]
    (batch,) = train(source, 1, **shape)
    assert {key: (rows.shape, rows.dtype) for key, rows in batch.items()} == {
        "image": ((10, size, size, channels), np.uint8),
        "label": ((10,), np.int32),
        "index": ((10,), np.int32),
    }
    batch = evaluate(source, **shape)[0]
    assert {key: (rows.shape, rows.dtype) for key, rows in batch.items()} == {
        "image": ((10, size, size, channels), np.uint8),
        "label": ((10,), np.int32),
        "index": ((10,), np.int32),
        "mask": ((10,), np.float32),
    }


def test_an_epoch_gives_every_image_once_and_the_next_another_order(source, shape):
    batches = train(source, 16, **shape)
    epochs = [joined(batches[:8], "image"), joined(batches[8:], "image")]
    labels = [joined(batches[:8], "label"), joined(batches[8:], "label")]
    pictures = [sorted(image.tobytes() for image in epoch) for epoch in epochs]
    assert pictures[0] == pictures[1]
    assert pictures[0] == sorted(
        image.tobytes() for image in joined(evaluate(source, **shape), "image")
    )
    np.testing.assert_array_equal(np.sort(labels[0]), np.sort(source.labels))
    assert not np.array_equal(epochs[0], epochs[1])


def test_an_epoch_leaves_out_what_does_not_fill_a_batch(source, shape):
    assert steps_per_epoch(source, 33) == 2
    batches = train(source, 40, batch_size=33, **shape)
    for epoch in range(20):
        images = joined(batches[2 * epoch : 2 * epoch + 2], "image")
        assert len(images) == 66
    # Different images each time, so that every image is trained on.
    assert len({image.tobytes() for image in joined(batches, "image")}) == len(
        {image.tobytes() for image in joined(evaluate(source, **shape), "image")}
    )


def test_images_keep_their_labels(photo_folder):
    source = open_source(f"folder:{photo_folder}")
    for batch in train(source, 8) + evaluate(source):
        valid = batch.get("mask", np.ones(10)) == 1
        values = batch["image"][valid, 0, 0, 0]
        np.testing.assert_array_equal(values % 4, batch["label"][valid])


@pytest.mark.parametrize("step", [1, 7, 8, 19])
def test_a_stream_started_at_a_step_is_the_rest_of_the_whole(source, shape, step):
    whole = train(source, 24, **shape)
    assert_equal(train(source, 24 - step, start_step=step, **shape), whole[step:])


def test_the_index_is_the_position_in_the_stream(source, shape):
    np.testing.assert_array_equal(
        joined(train(source, 17, **shape), "index"), range(170)
    )
    (late,) = train(source, 1, start_step=2**31 // 10, **shape)
    np.testing.assert_array_equal(late["index"], [*range(2**31 - 8, 2**31), 0, 1])


def test_the_seed_alone_decides_the_order(source, shape):
    first = train(source, 9, **shape)
    assert_equal(train(source, 9, threads=7, **shape), first)
    other = train(source, 9, seed=1, **shape)
    assert not np.array_equal(joined(other, "image"), joined(first, "image"))


@pytest.mark.parametrize("stream", [lambda s, **k: train(s, 12, **k), evaluate])
def test_processes_share_the_rows_of_each_batch(source, shape, stream):
    shape = shape | {"batch_size": 12}
    parts = [
        stream(source, **shape, process_index=i, process_count=3) for i in range(3)
    ]
    together = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(together, stream(source, **shape))


@pytest.mark.parametrize("batch_size", [1, 7, 10, 80, 200])
def test_evaluation_gives_every_image_once_in_order(source, shape, batch_size):
    batches = evaluate(source, batch_size=batch_size, **shape)
    assert len(batches) == -(-80 // batch_size)
    assert all(len(batch["label"]) == batch_size for batch in batches)
    mask = joined(batches, "mask")
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < 80)
    np.testing.assert_array_equal(joined(batches, "index"), np.arange(len(mask)))
    np.testing.assert_array_equal(joined(batches, "label")[:80], source.labels)
    assert not joined(batches, "image")[80:].any()
    assert not joined(batches, "label")[80:].any()


@pytest.mark.parametrize("start", [0, 20, 33, 80])
def test_evaluation_from_an_image_on_is_the_rest_of_the_whole(source, shape, start):
    batches = evaluate(source, start=start, **shape)
    assert len(batches) == -(-(80 - start) // 10)
    whole = evaluate(source, **shape)
    for name in batches[0] if batches else ():
        rows = joined(batches, name)[: 80 - start]
        np.testing.assert_array_equal(rows, joined(whole, name)[start:])


def test_the_same_images_give_the_same_batches_in_every_form(
    any_spec, arrays, tmp_path
):
    options = {"batch_size": 4, "image_size": 6, "channels": 1}
    images, labels = arrays("train")
    np.savez(tmp_path / "same.npz", x_train=images, y_train=labels, x_test=1, y_test=1)
    same = open_source(f"npz:{tmp_path / 'same.npz'}")
    assert_equal(train(open_source(any_spec), 9, **options), train(same, 9, **options))


def test_grey_and_colour_are_converted_to_the_models_channels(photo_folder):
    digits = open_source("digits", count=20)
    (batch,) = evaluate(digits, batch_size=20)
    grey = np.stack([digits.read(i) for i in range(20)])
    np.testing.assert_array_equal(batch["image"], np.repeat(grey, 3, axis=-1))
    photos = open_source(f"folder:{photo_folder}")
    assert train(photos, 1, channels=1)[0]["image"].shape == (10, 8, 8, 1)
    with pytest.raises(
        UserError, match="images have 3 channels, but the model takes 4"
    ):
        train_batches(photos, batch_size=10, image_size=8, channels=4, seed=0)


def test_crop_pct_applies_to_images_that_have_the_size_already():
    digits = open_source("digits", count=20)
    (batch,) = evaluate(digits, batch_size=20, channels=1, crop_pct=0.5)
    expected = [fit(digits.read(i), 8, crop_pct=0.5) for i in range(20)]
    np.testing.assert_array_equal(batch["image"], expected)


def test_a_set_smaller_than_a_batch_is_refused(source, shape):
    with pytest.raises(SourceError, match="batch size 81 must be 1 to 80, the number"):
        train(source, 1, batch_size=81, **shape)
    with pytest.raises(SourceError, match="batch size 0 must be at least 1"):
        evaluate(source, batch_size=0, **shape)
    with pytest.raises(SourceError, match="batch size 10 is not a multiple of 3"):
        train(source, 1, process_count=3, **shape)


def test_closing_a_stream_ends_its_threads(photo_folder):
    before = set(threading.enumerate())
    source = open_source(f"folder:{photo_folder}")
    stream = train_batches(source, batch_size=10, seed=0, threads=3, **SHAPE)
    next(stream)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    stream.close()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture
def damaged(photo_folder, break_file):
    """The training images, two successive ones of them broken."""
    source = open_source(f"folder:{photo_folder}")
    for i in (10, 11):
        break_file(source.name(i))
    return source


def test_an_unreadable_image_is_replaced_by_the_next_in_training(damaged):
    said = []
    bad = BadImages(len(damaged), max_share=0.05, say=said.append)
    batches = train(damaged, 16, bad_images=bad)
    assert sorted(bad.found) == sorted(damaged.name(i) for i in (10, 11))
    assert len(said) == 2
    # The epoch is complete, and the next image appears three times.
    values = joined(batches[:8], "image")[:, 0, 0, 0]
    labels = joined(batches[:8], "label")
    expected = [int(Path(damaged.name(i)).stem) for i in range(80) if i not in (10, 11)]
    twelfth = int(Path(damaged.name(12)).stem)
    assert sorted(values) == sorted([*expected, twelfth, twelfth])
    np.testing.assert_array_equal(values % 4, labels)


def test_replacement_does_not_depend_on_start_or_threads(damaged):
    def bad():
        return BadImages(len(damaged), max_share=0.05, say=lambda message: None)

    whole = train(damaged, 16, bad_images=bad())
    assert_equal(train(damaged, 16, bad_images=bad(), threads=5), whole)
    assert_equal(train(damaged, 5, bad_images=bad(), start_step=11), whole[11:])


def test_the_last_image_is_replaced_by_the_first(photo_folder, break_file):
    source = open_source(f"folder:{photo_folder}")
    break_file(source.name(79))
    bad = BadImages(80, max_share=0.05, say=lambda message: None)
    values = joined(train(source, 8, bad_images=bad), "image")[:, 0, 0, 0]
    assert list(values).count(int(Path(source.name(0)).stem)) == 2


def test_an_unreadable_image_does_not_count_in_evaluation(damaged):
    bad = BadImages(len(damaged), max_share=0.05, say=lambda message: None)
    batches = evaluate(damaged, bad_images=bad)
    mask = joined(batches, "mask")
    np.testing.assert_array_equal(np.flatnonzero(mask == 0), [10, 11])
    assert not joined(batches, "image")[10:12].any()
    assert len(bad) == 2


@pytest.mark.parametrize("stream", [lambda s, **k: train(s, 8, **k), evaluate])
def test_too_many_unreadable_images_stop_the_stream_with_their_names(damaged, stream):
    with pytest.raises(BadImagesError) as caught:
        stream(damaged, bad_images=BadImages(80, max_share=0.02))
    assert str(caught.value).startswith("2 of 80 images cannot be read, more than the ")
    assert damaged.name(10) in str(caught.value)
    assert damaged.name(11) in str(caught.value)
    # One is more than 1 % of 80 images, the default; another thread may find a second.
    with pytest.raises(BadImagesError, match=r"[12] of 80 .* allowed share of 0\.01"):
        stream(damaged)


def test_a_set_without_any_readable_image_is_refused(damaged, break_file):
    for i in range(80):
        if i not in (10, 11):
            break_file(damaged.name(i))
    bad = BadImages(80, max_share=1, say=lambda message: None)
    with pytest.raises(SourceError, match="none of the 80 images can be read"):
        train(damaged, 1, bad_images=bad)


def test_windows_are_a_function_of_the_position_in_the_stream():
    digits = open_source("digits", count=20)
    options = {"window_scale": (0.3, 1.0), "seed": 3, "channels": 1}
    whole = train(digits, 5, **options)
    assert_equal(train(digits, 3, start_step=2, threads=1, **options), whole[2:])
    windows, order = RandomWindows(3, (0.3, 1.0)), np.random.default_rng([3, 0])
    for row, index in enumerate(order.permutation(20)[:10]):
        expected = windows.crop(digits.read(index), row, 8, "bilinear")
        np.testing.assert_array_equal(whole[0]["image"][row], expected)
    # The next epoch has different windows of the same images.
    assert len(np.unique(joined(whole[:4], "image"), axis=0)) > 30
