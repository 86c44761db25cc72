import io

import numpy as np
import pytest
from PIL import Image

from train.data import DecodeError, read_image
from train.data.decode import (
    decode_image,
    fit,
    header_shape,
    to_array,
    to_channels,
)
from train.errors import UserError


def decode(data, name, target_side=0):
    return to_array(decode_image(data, name, target_side))


RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 17, 3), np.uint8)
GREY = RNG.integers(0, 256, (12, 17), np.uint8)


def encode(image: Image.Image, form: str = "png", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """An image like a photograph: its colours change slowly."""
    small = Image.fromarray(RNG.integers(0, 256, (4, 5, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("form", ["png", "bmp", "tiff", "ppm", "webp"])
def test_colour_is_unchanged(form):
    options = {"lossless": True} if form == "webp" else {}
    data = encode(Image.fromarray(RGB), form, **options)
    np.testing.assert_array_equal(decode(data, "x"), RGB)


def test_grey_has_one_channel():
    np.testing.assert_array_equal(
        decode(encode(Image.fromarray(GREY)), "x"), GREY[..., None]
    )
    black_and_white = Image.fromarray(GREY > 127)
    np.testing.assert_array_equal(
        decode(encode(black_and_white), "x")[..., 0], (GREY > 127) * np.uint8(255)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_according_to_exif(orientation, tmp_path):
    # What a camera stores so that rotating by the tag gives RGB: EXIF 2.32, table 6.
    stored = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(decode(data, "x"), RGB)
    (tmp_path / "x.png").write_bytes(data)
    assert header_shape(tmp_path / "x.png") == RGB.shape


def test_transparent_images_are_composited_over_white():
    alpha = np.zeros((12, 17), np.uint8)
    alpha[:, 5:] = 128
    alpha[:, 10:] = 255
    over_white = np.round(
        RGB * (alpha / 255)[..., None] + 255 * (1 - alpha / 255)[..., None]
    )
    image = Image.fromarray(np.dstack([RGB, alpha]))
    np.testing.assert_allclose(decode(encode(image), "x"), over_white, atol=1)
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    pixels = decode(encode(grey), "x")
    assert pixels.shape == (12, 17, 1)
    np.testing.assert_array_equal(pixels[:, :5], 255)
    np.testing.assert_array_equal(pixels[:, 10:, 0], GREY[:, 10:])


def test_palettes_become_colours_with_their_transparency():
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    pixels = decode(encode(image), "x")
    np.testing.assert_array_equal(pixels[0, :2], [[255, 0, 0], [0, 0, 255]])
    pixels = decode(encode(image, transparency=1), "x")
    np.testing.assert_array_equal(pixels[0, :2], [[255, 0, 0], [255, 255, 255]])


def test_cmyk_becomes_rgb():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0], ink[..., 3] = 255, 51
    data = encode(Image.fromarray(ink, "CMYK"), "jpeg", quality=100)
    # (1 - ink) * (1 - black): no red, 80 % of green and blue; JPEG rounds.
    expected = np.full((8, 8, 3), [0, 204, 204])
    np.testing.assert_allclose(decode(data, "x"), expected, atol=2)


def test_16_bit_grey_is_scaled_to_8_bits():
    values = np.asarray([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    for form in ("png", "tiff"):
        pixels = decode(encode(Image.fromarray(values), form), "x")
        np.testing.assert_array_equal(pixels[..., 0], [[0, 0, 1, 1, 128, 255]])


def test_an_animation_gives_its_first_frame():
    first, second = (Image.new("L", (5, 4), value) for value in (10, 200))
    data = encode(first, "gif", save_all=True, append_images=[second])
    assert (decode(data, "x") == 10).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "its format is not known"),
        (encode(Image.fromarray(RGB))[:-400], "truncated|broken"),
        (encode(Image.fromarray(smooth(50, 50)), "jpeg")[:-300], "truncated"),
        (encode(Image.fromarray(np.ones((2, 2), np.float32)), "tiff"), "mode F .32"),
        (encode(Image.fromarray(np.ones((2, 2), np.int32)), "tiff"), "mode I .32"),
    ],
)
def test_files_that_are_not_images_are_named_with_the_reason(data, reason, tmp_path):
    file = tmp_path / "holiday.jpg"
    file.write_bytes(data)
    with pytest.raises(DecodeError, match=reason) as caught:
        read_image(file)
    assert f"{file} cannot be read as an image: " in str(caught.value)
    assert caught.value.name == str(file)


def test_damaged_bytes_raise_only_decode_errors():
    good = [
        encode(Image.fromarray(smooth(40, 40)), "jpeg"),
        encode(Image.fromarray(RGB)),
        encode(Image.fromarray(RGB), "gif"),
        encode(Image.fromarray(RGB), "webp"),
        encode(Image.fromarray(RGB), "tiff", compression="tiff_lzw"),
    ]
    rng = np.random.default_rng(0)
    for data in good:
        for _ in range(30):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data), 4):
                damaged[position] = rng.integers(256)
            try:
                decode(bytes(damaged), "x")
            except DecodeError:
                pass


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        DecodeError, match=r"nothing\.png .*: No such file or directory"
    ):
        read_image(tmp_path / "nothing.png")


def test_a_large_jpeg_is_decoded_at_reduced_size_and_looks_the_same():
    data = encode(Image.fromarray(smooth(1504, 2104)), "jpeg", quality=95)
    whole, small = decode(data, "x"), decode(data, "x", target_side=60)
    assert whole.shape == (1504, 2104, 3)
    assert small.shape == (188, 263, 3)  # An eighth, still three times 60.
    difference = fit(whole, 60).astype(int) - fit(small, 60)
    assert np.abs(difference).max() <= 2
    assert decode(data, "x", target_side=63).shape == (376, 526, 3)
    np.testing.assert_array_equal(decode(data, "x", target_side=251), whole)
    # The target side may depend on the size.
    sizes = []
    by_size = decode(data, "x", target_side=lambda *size: sizes.append(size) or 60)
    np.testing.assert_array_equal(by_size, small)
    assert sizes == [whole.shape[:2]]


def test_a_jpeg_whose_aspect_ratio_would_change_is_decoded_at_full_size():
    data = encode(Image.fromarray(smooth(601, 800)), "jpeg")
    assert decode(data, "x", target_side=20).shape == (601, 800, 3)


def test_fit_resizes_the_short_side_and_crops_the_centre():
    image = smooth(50, 75)
    expected = Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(fit(image, 20), np.asarray(expected)[:, 5:25])
    expected = Image.fromarray(image).resize((36, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        fit(image, 20, crop_pct=0.83, method="bicubic"),
        np.asarray(expected)[2:22, 8:28],
    )


def test_fit_does_not_resize_an_image_of_that_size():
    np.testing.assert_array_equal(fit(RGB[:, :12], 12), RGB[:, :12])
    np.testing.assert_array_equal(fit(RGB, 12), RGB[:, 2:14])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_fit_accepts_any_number_of_channels(channels):
    image = RNG.integers(0, 256, (9, 14, channels), np.uint8)
    planes = [fit(image[..., c : c + 1], 6) for c in range(channels)]
    np.testing.assert_array_equal(fit(image, 6), np.concatenate(planes, axis=-1))


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 200), (640, 17)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_fit_returns_the_size_for_any_shape(size, crop_pct):
    image = np.zeros((*size, 3), np.uint8)
    assert fit(image, 8, crop_pct=crop_pct).shape == (8, 8, 3)


def test_grey_is_repeated_and_colour_becomes_luma():
    np.testing.assert_array_equal(
        to_channels(GREY[..., None], 3), np.dstack([GREY] * 3)
    )
    luma = np.asarray(Image.fromarray(RGB).convert("L"))
    np.testing.assert_array_equal(to_channels(RGB, 1)[..., 0], luma)
    np.testing.assert_array_equal(to_channels(RGB, 3), RGB)


def test_channels_that_cannot_be_converted_are_refused():
    with pytest.raises(
        UserError, match="images have 4 channels, but the model takes 3"
    ):
        to_channels(np.zeros((2, 2, 4), np.uint8), 3)
