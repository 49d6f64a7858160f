"""Pixels of every depth, colour space and layout become what plain arithmetic says, or one sentence says why not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from lehr.data.decode import UnreadableImage, as_pixels, decode, decode_image
from lehr.data.pixels import PixelFormat
from lehr.errors import LehrError

from .files import encoded, png, tiff, with_exif

WIDE = np.array([[0, 255, 256, 257], [4095, 32768, 65279, 65535]], np.uint16)
HIGH_BYTE = (WIDE >> 8).astype(np.uint8)
SMALL = np.array([[0, 1, 127, 128], [200, 253, 254, 255]], np.uint8)
SHARES = np.array([[0, 0.1, 0.25, 0.5], [0.75, 0.9, 0.999, 1]], np.float32)
RGB = np.random.default_rng(0).integers(0, 256, (2, 4, 3), np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (2, 4, 1), np.uint8)
GREY, COLOUR, CLEAR = PixelFormat(channels=1), PixelFormat(channels=3), PixelFormat(channels=4)


def grey(data: bytes, **wanted: Any) -> np.ndarray:
    """[height, width] of a file that has one channel of its own."""
    pixels = decode_image(data, PixelFormat(**wanted))
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 1
    return pixels[:, :, 0]


# ── depths ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        encoded(WIDE),
        encoded(WIDE, "TIFF"),
        tiff(WIDE),
        tiff(WIDE.astype(">u2")),
        tiff(65535 - WIDE, photometric=0),
        png(np.stack([WIDE, np.full_like(WIDE, 65535)], 2), 4),
        b"P5 4 2 65535\n" + WIDE.astype(">u2").tobytes(),
    ],
    ids=["PNG", "TIFF", "TIFF-little", "TIFF-big", "TIFF-white-is-zero", "PNG-alpha", "PGM"],
)
def test_16_bits_of_grey_keep_their_8_high_bits(data: bytes) -> None:
    np.testing.assert_array_equal(grey(data), HIGH_BYTE)


@pytest.mark.parametrize(
    "data",
    [png(np.stack([WIDE] * 3, 2), 2), tiff(np.stack([WIDE] * 3, 2), 2), tiff(np.stack([WIDE] * 3, 2).astype(">u2"), 2)],
    ids=["PNG", "TIFF-little", "TIFF-big"],
)
def test_16_bits_of_colour_are_those_of_grey(data: bytes) -> None:
    np.testing.assert_array_equal(decode_image(data), np.stack([HIGH_BYTE] * 3, 2))


def test_other_depths_have_the_whole_range_too() -> None:
    packed = np.array([0x00, 0x0F, 0xFF], np.uint8).tobytes()  # 12 bits: 0x000 and 0xFFF
    assert grey(tiff(np.zeros((1, 2), np.uint16), bits=12, raw=packed)).tolist() == [[0, 255]]
    assert grey(tiff(np.zeros((1, 2), np.uint8), bits=4, raw=b"\x0f")).tolist() == [[0, 255]]
    assert grey(encoded(Image.fromarray(SMALL > 127))).tolist() == ((SMALL > 127) * 255).tolist()
    assert grey(b"P5 2 1 4095\n" + struct.pack(">2H", 0, 4095)).tolist() == [[0, 255]]


@pytest.mark.parametrize("data", [tiff(SHARES), tiff(SHARES.astype(">f4")), encoded(SHARES, "TIFF")])
def test_floats_from_0_to_1_are_black_to_white(data: bytes) -> None:
    np.testing.assert_array_equal(grey(data), np.rint(SHARES * 255))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 90]], np.uint32), "32-bit whole numbers without a sign from 0 to 90"),
        (np.array([[-5, 70000]], np.int32), "32-bit whole numbers with a sign from -5 to 70000"),
        (np.array([[-1024, 3071]], np.int16), "16-bit whole numbers with a sign from -1024 to 3071"),
        (np.array([[-5, 5]], np.int8), "8-bit whole numbers with a sign from -5 to 5"),
        (np.array([[0, 1.5]], np.float32), "floats from 0 to 1.5"),
    ],
)
def test_values_without_black_and_white_are_refused_until_the_job_says_them(values: np.ndarray, words: str) -> None:
    low, high = values.min(), values.max()
    with pytest.raises(UnreadableImage, match=words) as caught:
        decode_image(tiff(values))
    assert f"type those two, such as data.pixel_range=[{low:.6g},{high:.6g}]" in str(caught.value)
    assert grey(tiff(values), range=(float(low), float(high))).tolist() == [[0, 255]]
    assert grey(tiff(values), range=(float(low), 2.0 * high - low)).tolist() == [[0, 128]]


def test_a_range_cuts_what_is_beyond_and_scales_every_depth() -> None:
    limits = (1000.0, 5095.0)
    scaled = np.rint(np.clip((WIDE.astype(float) - 1000) / 4095, 0, 1) * 255)
    np.testing.assert_array_equal(grey(encoded(WIDE), range=limits), scaled)
    small = np.rint(np.clip((SMALL.astype(float) - 100) / 100, 0, 1) * 255)
    np.testing.assert_array_equal(grey(encoded(SMALL), range=(100.0, 200.0)), small)
    colours = np.dstack([RGB, ALPHA])
    found = decode_image(encoded(colours), PixelFormat(channels=4, range=(100.0, 200.0)))
    np.testing.assert_array_equal(found[..., :3], np.rint(np.clip((RGB.astype(float) - 100) / 100, 0, 1) * 255))
    np.testing.assert_array_equal(found[..., 3:], ALPHA)
    with pytest.raises(UnreadableImage, match="its colours have 16 bits, of which 8 can be read"):
        decode_image(png(np.stack([WIDE] * 3, 2), 2), PixelFormat(range=limits))


def test_what_is_not_a_number_is_no_pixel() -> None:
    for limits in (None, (0.0, 1.0)):
        with pytest.raises(UnreadableImage, match=r"some of its values are not numbers \(NaN\)"):
            decode_image(tiff(np.array([[0, np.nan]], np.float32)), PixelFormat(range=limits))


def test_a_tiff_that_pillow_does_not_read_is_called_that() -> None:
    with pytest.raises(UnreadableImage, match="a TIFF of a kind that Pillow does not read"):
        decode_image(tiff(SHARES.astype(np.float64)))


# ── colours and transparency ────────────────────────────────────────────────────────────────────────────────────────


def luma(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601 as Pillow rounds it."""
    red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def test_one_three_and_four_channels_of_the_same_image() -> None:
    data = encoded(np.dstack([RGB, ALPHA]))
    np.testing.assert_array_equal(decode_image(data), RGB)  # transparency is left out
    np.testing.assert_array_equal(decode_image(data, CLEAR), np.dstack([RGB, ALPHA]))
    np.testing.assert_array_equal(decode_image(data, GREY)[..., 0], luma(RGB))
    opaque = decode_image(encoded(RGB), CLEAR)
    np.testing.assert_array_equal(opaque, np.dstack([RGB, np.full((2, 4), 255, np.uint8)]))
    np.testing.assert_array_equal(decode_image(encoded(SMALL), COLOUR), np.stack([SMALL] * 3, 2))


def test_grey_with_transparency_is_grey() -> None:
    data = encoded(Image.fromarray(np.dstack([SMALL, ALPHA]), "LA"))
    np.testing.assert_array_equal(grey(data), SMALL)
    np.testing.assert_array_equal(decode_image(data, CLEAR), np.dstack([SMALL, SMALL, SMALL, ALPHA]))


def test_a_palette_is_looked_up_and_its_transparent_entry_counts() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]], np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(image)), colours)
    found = decode_image(encoded(image, transparency=1), CLEAR)
    np.testing.assert_array_equal(found[..., :3], colours)
    assert found[..., 3].tolist() == [[255, 0], [255, 0]]


@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_cmyk_is_ink_on_white(form: str) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 1] = 255  # magenta
    found = decode_image(encoded(Image.fromarray(inks, "CMYK"), form))
    assert np.abs(found.astype(int) - [255, 0, 255]).max() <= (2 if form == "JPEG" else 0)


def test_lab_and_luminance_with_chrominance_become_red_green_and_blue() -> None:
    white, black, red = (255, 0, 0), (0, 0, 0), (138, 81, 70)  # red of sRGB under D50: 54.3, 80.8, 69.9
    found = decode_image(tiff(np.array([[white, black, red]], np.uint8), photometric=8))
    assert np.abs(found.astype(int) - [[[255, 255, 255], [0, 0, 0], [255, 0, 0]]]).max() <= 5
    ycc = Image.fromarray(RGB).convert("YCbCr")
    for other in (decode_image(encoded(ycc, "TIFF")), as_pixels(ycc, COLOUR)):
        assert np.abs(other.astype(int) - RGB).max() <= 3


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WIDE_IMAGE = np.stack([WIDE] * 3, 2)


@pytest.mark.parametrize(
    ("array", "pixels"),
    [
        (SMALL, SMALL[..., None]),
        (SMALL > 127, (SMALL > 127)[..., None] * 255),
        (WIDE, HIGH_BYTE[..., None]),
        (SHARES, np.rint(SHARES * 255)[..., None]),
        (SHARES.astype(np.float16), np.rint(SHARES.astype(np.float16) * 255)[..., None]),
        (np.tile(RGB, (4, 2, 1)), np.tile(RGB, (4, 2, 1))),
        (np.tile(RGB, (4, 2, 1)).transpose(2, 0, 1), np.tile(RGB, (4, 2, 1))),
        (np.tile(SMALL, (4, 2))[None], np.tile(SMALL, (4, 2))[..., None]),
        (torch.from_numpy(np.tile(RGB, (4, 2, 1))).permute(2, 0, 1), np.tile(RGB, (4, 2, 1))),
        (torch.from_numpy(np.tile(RGB, (4, 2, 1))).permute(2, 0, 1) / 255, np.tile(RGB, (4, 2, 1))),
    ],
    ids=["grey", "bool", "uint16", "float32", "float16", "last", "first", "one-first", "tensor", "float-tensor"],
)
def test_arrays_and_tensors_are_scaled_by_their_type_with_channels_first_or_last(
    array: Any, pixels: np.ndarray
) -> None:
    np.testing.assert_array_equal(as_pixels(array, PixelFormat()), pixels)


def test_an_array_of_either_layout_asks_for_an_image() -> None:
    array = np.zeros((3, 8, 3), np.uint8)
    with pytest.raises(LehrError, match=r"may have its channels first or last; give it as an image: PIL\.Image\.from"):
        as_pixels(array, COLOUR)
    assert as_pixels(Image.fromarray(array), COLOUR).shape == (3, 8, 3)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 6, 2)), "allowed: .height, width., or with 1, 3 or 4 channels"),
        (np.zeros((2, 3, 8, 8)), "shape .2, 3, 8, 8. is not an image"),
        (np.zeros((0, 8)), "is not an image"),
        (np.array([["a", "b"]]), "is not an image; allowed: numbers"),
        (np.full((8, 8), 255.0), "floats from 255 to 255"),
        (np.full((8, 8), 7), "64-bit whole numbers with a sign from 7 to 7.*pixel_range"),
        (torch.full((3, 8, 8), -1.0), "floats from -1 to -1"),
    ],
)
def test_an_array_that_is_no_image_gets_one_sentence(array: Any, words: str) -> None:
    with pytest.raises(LehrError, match=words):
        as_pixels(array, COLOUR)


def test_raw_rows_of_any_type_are_images() -> None:
    table = pa.table(
        {
            "image": [WIDE.tobytes(), SHARES.tobytes(), SMALL.tobytes(), encoded(SMALL)],
            "label": [0, 1, 0, 1],
            "shape": pa.array([[2, 4, 1]] * 3 + [None], pa.list_(pa.int32())),
            "dtype": ["uint16", "float32", None, None],
        }
    )
    found = decode(table)
    assert not found.unreadable
    for row, expected in enumerate((HIGH_BYTE, np.rint(SHARES * 255), SMALL, SMALL)):
        np.testing.assert_array_equal(found.pixels[row, :, :, 0], expected)


# ── what decoders raise ─────────────────────────────────────────────────────────────────────────────────────────────


def exif(*entries: bytes) -> bytes:
    """A little-endian EXIF block of these entries of 12 bytes."""
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)


TURNED = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # orientation 6: to be turned by 90°
ODD = {
    "resolution-as-text": struct.pack("<HHI4s", 0x011A, 2, 4, b"abc\0"),
    "negative-count": struct.pack("<HHIi", 0x829A, 5, 0xFFFFFFFF, -1),
    "short-for-long": struct.pack("<HHII", 0x8769, 4, 1, 0xFFFFFF00),
    "signed-rational": struct.pack("<HHII", 0x9204, 10, 1, 3),
    "unknown-type": struct.pack("<HHII", 0x9C9B, 99, 7, 0),
    "float-in-a-long": struct.pack("<HHIf", 0x0100, 11, 1, 1e30),
    "text-in-a-short": struct.pack("<HHI4s", 0x0132, 3, 2, b"zz\xff\xff"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_exif_tag_costs_neither_the_image_nor_its_orientation(odd: bytes) -> None:
    jpeg = encoded(np.tile(RGB, (2, 2, 1)), "JPEG")  # 8 wide, 4 high
    assert decode_image(with_exif(jpeg, exif(TURNED, odd))).shape == (8, 4, 3)
    assert decode_image(with_exif(jpeg, exif(odd))).shape == (4, 8, 3)


@pytest.mark.parametrize("block", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"xx*\0" + bytes(8), exif(TURNED)[:12]])
def test_an_exif_block_that_is_none_leaves_the_image_as_it_lies(block: bytes) -> None:
    jpeg = encoded(np.tile(RGB, (2, 2, 1)), "JPEG")
    assert decode_image(with_exif(jpeg, block)).shape == (4, 8, 3)


def test_a_description_that_is_not_utf8_leaves_the_image_as_it_lies() -> None:
    jpeg = encoded(np.tile(RGB, (2, 2, 1)), "JPEG")
    block = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6">\xa8\xff</x>'
    described = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    assert decode_image(described).shape in ((4, 8, 3), (8, 4, 3))
    described = encoded(np.tile(RGB, (2, 2, 1)), "WEBP", xmp=b'tiff:Orientation="6" \xa8\xff', lossless=True)
    assert decode_image(described).shape in ((4, 8, 3), (8, 4, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_obeyed_at_every_depth(orientation: int) -> None:
    from PIL import ImageOps

    for values in (np.tile(RGB, (2, 2, 1)), np.arange(0, 65536, 2048, dtype=np.uint16).reshape(4, 8)):
        image = Image.fromarray(values)
        tags = image.getexif()
        tags[0x0112] = orientation
        found = decode_image(encoded(image, exif=tags))
        eight = Image.fromarray(values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8))
        eight.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(found.squeeze(), np.asarray(ImageOps.exif_transpose(eight)))


def test_a_damaged_avif_is_unreadable_and_named(tmp_path: Path) -> None:
    from lehr.data.decode import FORMATS

    if "AVIF" not in FORMATS:
        pytest.skip("this Pillow has no AVIF")
    whole = encoded(np.tile(RGB, (8, 8, 1)), "AVIF")
    table = pa.table({"image": [whole[:cut] for cut in (40, len(whole) // 2, len(whole) - 9)], "label": [0] * 3})
    assert [row for row, _ in decode(table, PixelFormat((8, 8))).unreadable] == [0, 1, 2]


def test_memory_that_is_short_is_no_damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        decode_image(b"x")
