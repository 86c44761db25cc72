import io
import struct
import sys
import types
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageFile

from cnn_flax.weights.preprocessing import allow_pixels, to_8_bits
from train.data import DecodeError, read_image
from train.data.decode import (
    decode_image,
    fit,
    header_shape,
    to_array,
    to_channels,
)
from train.data.random_windows import RandomWindows
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


def as_stored(shown: np.ndarray, orientation: int, form: str, **options) -> bytes:
    """What a camera stores so that the tag turns it as shown: EXIF 2.32, table 6."""
    stored = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.swapaxes(0, 1),
        6: np.rot90(shown, 1),
        7: shown[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(shown, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    return encode(image, form, exif=exif, **options)


@pytest.mark.parametrize("form", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_according_to_exif(orientation, form, tmp_path):
    options = {"lossless": True} if form == "webp" else {}
    data = as_stored(RGB, orientation, form, **options)
    np.testing.assert_array_equal(decode(data, "x"), RGB)
    (tmp_path / "x").write_bytes(data)
    assert header_shape(tmp_path / "x") == RGB.shape
    sizes = []
    decode(data, "x", target_side=lambda *size: sizes.append(size) or 5)
    assert sizes == [RGB.shape[:2]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows_are_cut_from_the_image_as_it_is_shown(orientation):
    photo = smooth(1600, 1200)
    windows = RandomWindows(0, (0.08, 1.0))

    def cut(data, position):
        target_side = partial(windows.target_side, position, 24)
        image = decode_image(data, "x", target_side)
        return image.size, windows.crop(image, position, 24, "bilinear").astype(int)

    options = {"quality": 95, "subsampling": 0}
    turned = as_stored(photo, orientation, "jpeg", **options)
    upright = encode(Image.fromarray(photo), "jpeg", **options)
    for position in range(6):
        (size, pixels), (expected_size, expected) = (
            cut(data, position) for data in (turned, upright)
        )
        assert size == expected_size
        # A JPEG's blocks are rounded after they are turned.
        np.testing.assert_allclose(pixels, expected, atol=2)


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


def png(depth: int, colour: int, row: bytes, width: int, transparent: bytes) -> bytes:
    """A PNG of one row, of any depth, and the chunk tRNS; PNG specification, 11."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", header),
            chunk(b"tRNS", transparent),
            chunk(b"IDAT", zlib.compress(b"\0" + row)),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "shown"),
    [
        (1, b"\xa0", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x0f\x37", 3, [0, 255, 255, 119]),
        (8, bytes([0, 3, 15, 255]), 3, [0, 255, 15, 255]),
        (16, struct.pack(">4H", 0, 300, 301, 65535), 300, [0, 255, 1, 255]),
        (16, struct.pack(">4H", 0, 300, 301, 65535), 0, [255, 1, 1, 255]),
    ],
)
def test_the_transparent_grey_of_a_png_of_any_depth_is_white(
    depth, row, transparent, shown
):
    data = png(depth, 0, row, 4, struct.pack(">H", transparent))
    np.testing.assert_array_equal(decode(data, "x")[0, :, 0], shown)


@pytest.mark.parametrize(("code", "depth"), [("B", 8), ("H", 16)])
def test_the_transparent_colour_of_a_png_of_any_depth_is_white(code, depth):
    scale = 1 if depth == 8 else 257
    colours = [value * scale for value in (10, 20, 30, 40, 50, 60)]
    row = struct.pack(f">6{code}", *colours)
    data = png(depth, 2, row, 2, struct.pack(">3H", *colours[:3]))
    np.testing.assert_array_equal(decode(data, "x")[0], [[255] * 3, [40, 50, 60]])


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_what_any_mode_has_transparent_is_white(mode):
    assert (to_array(to_8_bits(Image.new(mode, (3, 2)))) == 255).all()


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


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_names_the_package_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(HEIC)
    for read in (read_image, header_shape):
        with pytest.raises(DecodeError, match="it is HEIC.*pip install pillow-heif"):
            read(tmp_path / "a.heic")


def test_heic_is_read_where_that_package_is_installed(monkeypatch):
    class Heic(ImageFile.ImageFile):
        format = "HEIC"

        def _open(self):
            self._mode, self._size = "L", (5, 4)
            self.im = Image.new("L", self._size, 7).im

    def register():
        Image.register_open("HEIC", Heic, lambda head: head[4:12] == b"ftypheic")

    module = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    for name in ("ID", "OPEN"):
        monkeypatch.setattr(Image, name, getattr(Image, name).copy())
    pixels = decode(HEIC, "a.heic")
    assert pixels.shape == (4, 5, 1) and (pixels == 7).all()


def test_an_image_past_the_limit_names_the_flag_that_raises_it(monkeypatch):
    data = encode(Image.fromarray(RGB))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DecodeError, match="more than 100 pixels; .*--max-pixels"):
        decode(data, "x")
    allow_pixels(0)
    with pytest.raises(DecodeError):
        decode(data, "x")
    allow_pixels(RGB.shape[0] * RGB.shape[1])
    np.testing.assert_array_equal(decode(data, "x"), RGB)


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


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    "shape", [(1, 300), (300, 1), (2, 301), (401, 3), (5, 999), (30, 45)]
)
def test_fit_of_a_long_image_is_the_centre_of_the_whole_one(shape, method):
    filter_ = Image.Resampling[method.upper()]
    for channels in (1, 3):
        image = RNG.integers(0, 256, (*shape, channels), np.uint8)
        pillow = Image.fromarray(image if channels == 3 else image[..., 0])
        for size, crop_pct in ((8, 1.0), (21, 0.875)):
            short, shortest = int(size / crop_pct), min(shape)
            height, width = (side * short // shortest for side in shape)
            whole = to_array(pillow.resize((width, height), filter_))
            top, left = round((height - size) / 2), round((width - size) / 2)
            expected = whole[top : top + size, left : left + size]
            for form in (image, pillow):
                found = fit(form, size, crop_pct=crop_pct, method=method)
                np.testing.assert_array_equal(found, expected)


def test_fit_enlarges_no_more_than_it_keeps(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the whole image was enlarged")

    monkeypatch.setattr("train.data.decode.resize", refuse)
    for shape in ((1, 3000, 3), (3000, 1, 3)):
        image = np.broadcast_to(np.uint8(9), shape)
        np.testing.assert_array_equal(fit(image, 224, crop_pct=0.875), 9)


@pytest.mark.parametrize("shape", [(50, 75), (75, 50), (20, 60)])
def test_squash_resizes_both_sides(shape):
    image = smooth(*shape)
    expected = Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC)
    found = fit(image, 20, crop_pct=0.83, method="bicubic", mode="squash")
    np.testing.assert_array_equal(found, np.asarray(expected)[2:22, 2:22])


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


def test_a_name_that_breaks_lines_makes_one_line():
    name = "".join(map(chr, (0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x85, 0x2028, 0x2029)))
    message = str(DecodeError(f"ä{name}.png", "it is empty"))
    assert message.splitlines() == [message] and message.startswith("ä\\n\\x0b")
