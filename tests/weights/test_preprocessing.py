import dataclasses
import re
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

import cnn_flax
from cnn_flax.installing import install_command
from cnn_flax.weights import ImageError, preprocess, published_weights

ENTRY = dataclasses.replace(
    published_weights("resnet18")[0],
    image_size=4,
    resize=6,
    interpolation="bilinear",
    mean=(0.5, 0.25, 0.125),
    std=(0.5, 0.25, 0.125),
)


def photo(height=30, width=20, channels=3):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def flat(value, size=(9, 9), channels=3):
    return np.full((*size, channels), value, np.uint8)


def by_hand(pixels, entry, size):
    resample = Image.Resampling[entry.interpolation.upper()]
    resized = np.asarray(Image.fromarray(pixels).resize(size, resample))
    top = round((resized.shape[0] - entry.image_size) / 2)
    left = round((resized.shape[1] - entry.image_size) / 2)
    stop = entry.image_size
    cut = resized[top : top + stop, left : left + stop].astype(np.float32)
    return (cut / 255 - np.float32(entry.mean)) / np.float32(entry.std)


# The arithmetic.


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(30, 20, (6, 9)), (20, 33, (9, 6)), (5, 5, (6, 6)), (6, 7, (7, 6))],
)
def test_the_short_side_is_resized_and_the_centre_kept(
    interpolation, height, width, size
):
    entry = dataclasses.replace(ENTRY, interpolation=interpolation)
    pixels = photo(height, width)
    prepared = preprocess(entry)(pixels)
    np.testing.assert_array_equal(prepared, by_hand(pixels, entry, size))
    assert prepared.dtype == np.float32
    assert prepared.shape == (4, 4, 3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(1, 300), (301, 2)])
def test_a_long_image_is_enlarged_in_its_centre_only(
    interpolation, height, width, monkeypatch
):
    entry = dataclasses.replace(ENTRY, interpolation=interpolation)
    pixels = photo(height, width)
    size = width * 6 // min(height, width), height * 6 // min(height, width)
    expected = by_hand(pixels, entry, size)
    monkeypatch.delattr(Image.Image, "resize")
    np.testing.assert_array_equal(preprocess(entry)(pixels), expected)


def test_squash_resizes_both_sides():
    entry = dataclasses.replace(ENTRY, crop_mode="squash", resize=5)
    pixels = photo()
    np.testing.assert_array_equal(
        preprocess(entry)(pixels), by_hand(pixels, entry, (5, 5))
    )


def test_each_channel_has_its_mean_and_deviation():
    prepared = preprocess(ENTRY)(flat(255))
    np.testing.assert_array_equal(prepared[0, 0], [1.0, 3.0, 7.0])


def test_the_published_numbers_are_what_the_net_was_trained_with():
    # (image - 127) / 128, as by the lite nets' authors.
    entry = published_weights("tf_efficientnet_lite0")[1]
    prepared = preprocess(entry)(flat(200))
    np.testing.assert_allclose(prepared, (200 - 127) / 128, rtol=1e-6)


def test_a_models_info_stands_for_its_first_weights():
    info = cnn_flax.model_info("googlenet")
    pixels = photo(300, 320)
    prepared = cnn_flax.preprocess(info)(pixels)
    np.testing.assert_array_equal(prepared, preprocess(info.weights[0])(pixels))
    assert prepared.shape == (224, 224, 3)


def test_a_model_without_weights_has_imagenets_figures():
    info = cnn_flax.model_info("alexnet_lrn")
    assert not info.weights
    pixels, alike = photo(300, 320), published_weights("resnet18")[0]
    alike = dataclasses.replace(
        alike, image_size=info.image_size, resize=int(info.image_size / 0.875)
    )
    prepared = preprocess(info)(pixels)
    np.testing.assert_array_equal(prepared, preprocess(alike)(pixels))


# Accepted images.


def test_a_path_an_image_and_an_array_are_one(tmp_path):
    pixels = photo()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    prepare = preprocess(ENTRY)
    expected = prepare(pixels)
    for image in (
        *(tmp_path / "photo.png", str(tmp_path / "photo.png")),
        Image.fromarray(pixels),
    ):
        np.testing.assert_array_equal(prepare(image), expected)


@pytest.mark.parametrize("channels", [0, 1])
def test_grey_is_repeated(channels):
    grey = photo(channels=channels)
    rgb = np.repeat(grey.reshape(30, 20, 1), 3, axis=2)
    prepare = preprocess(ENTRY)
    np.testing.assert_array_equal(prepare(grey), prepare(rgb))


def test_16_bit_grey_is_scaled():
    deep = Image.fromarray(np.full((9, 9), 128 * 257, np.uint16))
    prepare = preprocess(ENTRY)
    np.testing.assert_array_equal(prepare(deep), prepare(flat(128)))


def test_what_is_transparent_is_white():
    clear = flat(7, channels=4)
    clear[..., 3] = 0
    prepare = preprocess(ENTRY)
    np.testing.assert_array_equal(prepare(clear), prepare(flat(255)))


def test_a_palette_becomes_rgb():
    pixels = flat(90)
    prepare = preprocess(ENTRY)
    palette = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(prepare(palette), prepare(pixels))


def test_an_image_is_turned_as_its_orientation_says(tmp_path):
    pixels = photo()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # To be turned right by 90 degrees.
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    prepare = preprocess(ENTRY)
    np.testing.assert_array_equal(prepare(path), prepare(np.rot90(pixels, -1)))


# Rejected images.


def test_a_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    prepare = preprocess(ENTRY)
    with pytest.raises(ImageError, match=r"notes\.jpg cannot be read.*not known"):
        prepare(path)
    with pytest.raises(ImageError, match=r"There is no image .*absent\.png"):
        prepare(tmp_path / "absent.png")


def test_an_image_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "short.png"
    Image.fromarray(photo()).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"short\.png cannot be read"):
        preprocess(ENTRY)(path)


@pytest.mark.parametrize(
    "pixels",
    [photo().astype(np.float32), photo(channels=2), photo()[None], photo()[:0]],
)
def test_arrays_of_other_kinds_are_refused(pixels):
    with pytest.raises(ImageError, match="uint8 array"):
        preprocess(ENTRY)(pixels)


def test_pixels_without_a_range_are_refused(tmp_path):
    path = tmp_path / "float.tiff"
    Image.fromarray(np.ones((9, 9), np.float32)).save(path)
    with pytest.raises(ImageError, match=r"float\.tiff: .*no fixed range"):
        preprocess(ENTRY)(path)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="path, a Pillow image or a uint8 array"):
        preprocess(ENTRY)([[1, 2], [3, 4]])


def test_without_pillow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=re.escape(install_command("cli"))):
        preprocess(ENTRY)
