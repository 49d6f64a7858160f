"""A JPEG file has the same pixels, or is refused in the same words, whichever library decodes it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lehr.data import jpeg
from lehr.data.decode import UnreadableImage, decode, decode_image, is_decoded_smaller
from lehr.data.pixels import PixelFormat

from .files import encoded

FORMS = (
    PixelFormat(),
    PixelFormat((20, 24), 3),
    PixelFormat((32, 32), 4),
    PixelFormat((20, 24), 3, scaled=True),
    PixelFormat((16, 16), 1, resize=20, scaled=True),
    PixelFormat((16, 24), letterbox=True, scaled=True),
    PixelFormat((12, 12), 3, range=(10.0, 200.0), scaled=True),
)
needs_simplejpeg = pytest.mark.skipif(jpeg.simplejpeg is None, reason="simplejpeg is not installed")


def picture(seed: int, size: tuple[int, int] = (48, 60), channels: int = 3) -> Image.Image:
    """A picture of (width, height) with smooth and rough places."""
    of = np.random.default_rng(seed)
    shape = (max(2, size[1] // 6), max(2, size[0] // 6), *((3,) if channels == 3 else ()))
    return Image.fromarray(of.integers(0, 256, shape, np.uint8)).resize(size, Image.Resampling.BICUBIC)


def turned(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


WHOLE: dict[str, bytes] = {
    "plain": encoded(picture(0), "JPEG"),
    "32 × 32": encoded(picture(1, (32, 32)), "JPEG", quality=95),
    "colours whole": encoded(picture(2), "JPEG", subsampling=0),
    "colours half as wide": encoded(picture(3, (61, 47)), "JPEG", subsampling=1),
    "grey": encoded(picture(4, channels=1), "JPEG"),
    "progressive": encoded(picture(5), "JPEG", progressive=True),
    "restarts": encoded(picture(6), "JPEG", restart_marker_blocks=2, optimize=True),
    "a comment and a profile": encoded(picture(7), "JPEG", comment=b"hello", icc_profile=b"profile" * 40),
    "a pixel": encoded(picture(8, (1, 1)), "JPEG"),
    "RGB": encoded(picture(9), "JPEG", keep_rgb=True, subsampling=0),
    "CMYK": encoded(picture(10).convert("CMYK"), "JPEG"),
    **{f"turned {each}": encoded(picture(each, (70, 90)), "JPEG", exif=turned(each)) for each in range(1, 9)},
}


def _adobe(file: bytes, transform: int) -> bytes:
    """With Adobe's segment, which says how colours were transformed."""
    return file[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + file[2:]


WHOLE |= {f"Adobe {transform}": _adobe(WHOLE["plain"], transform) for transform in range(3)}
PLAIN = ("plain", "32 × 32", "colours whole", "colours half as wide", "grey", "progressive", "restarts", "a pixel")


def damaged(file: bytes, seed: int) -> Iterator[bytes]:
    """The file cut off, longer than it is, with other bytes, a byte less, and with a marker where none should be."""
    of = random.Random(seed)
    yield from (file[: of.randint(1, len(file))], file[:-2], file[:-1], file + b"after the end")
    for _ in range(3):
        spoilt = bytearray(file)
        for _ in range(of.randint(1, 3)):
            spoilt[of.randrange(2, len(file))] = of.randrange(256)
        yield bytes(spoilt)
    at = file.find(b"\xff\xda") + 12
    yield file[:at] + file[at + 1 :]
    yield file[:at] + b"\xff\x00\xff\xd9" + file[at:]
    yield file[:2] + b"\xff\x00" + file[2:]


def answer(file: bytes, wanted: PixelFormat) -> np.ndarray | str:
    try:
        return decode_image(file, wanted)
    except UnreadableImage as error:
        return str(error)


@needs_simplejpeg
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged tags
@pytest.mark.parametrize("name", WHOLE)
def test_both_decoders_give_the_same_pixels_or_the_same_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [WHOLE[name], *damaged(WHOLE[name], sum(name.encode()))]
    with_both = [answer(file, wanted) for file in files for wanted in FORMS]
    monkeypatch.setattr(jpeg, "pixels", lambda *arguments: None)
    for ours, theirs in zip(with_both, (answer(file, wanted) for file in files for wanted in FORMS), strict=True):
        assert type(ours) is type(theirs)
        np.testing.assert_array_equal(ours, theirs)


@needs_simplejpeg
def test_plain_files_are_decoded_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jpeg.agrees()
    monkeypatch.setattr(Image, "open", None)
    for name in PLAIN:
        assert decode_image(WHOLE[name]).any()


@needs_simplejpeg
def test_a_limit_of_pixels_that_the_comparison_exceeds_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    jpeg.agrees.cache_clear()
    assert jpeg.agrees()


@needs_simplejpeg
def test_a_decoder_that_disagrees_with_pillow_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = jpeg.simplejpeg.decode_jpeg

    def other(*arguments: Any, **options: Any) -> Any:
        found = decoded(*arguments, **options)
        found[0, 0] ^= 1
        return found

    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", other)
    jpeg.agrees.cache_clear()
    try:
        assert not jpeg.agrees()
        np.testing.assert_array_equal(decode_image(WHOLE["plain"]), np.asarray(Image.open(_file("plain"))))
    finally:
        jpeg.agrees.cache_clear()


def _file(name: str) -> Any:
    import io

    return io.BytesIO(WHOLE[name])


def test_without_simplejpeg_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [decode_image(file) for file in WHOLE.values()]
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    jpeg.agrees.cache_clear()
    try:
        for ours, file in zip(before, WHOLE.values(), strict=True):
            np.testing.assert_array_equal(ours, decode_image(file))
    finally:
        jpeg.agrees.cache_clear()


def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEHR_MOST_PIXELS", "2000")
    monkeypatch.setattr(jpeg, "pixels", None)
    with pytest.raises(UnreadableImage, match=r"48 × 60 pixels.*allowed: 2,000"):
        decode_image(WHOLE["plain"])


def test_a_part_is_zero_where_a_file_is_damaged() -> None:
    cut = WHOLE["32 × 32"][:-200]
    table = pa.table({"image": [WHOLE["32 × 32"], cut, WHOLE["32 × 32"]], "label": [0, 1, 2]})
    found = decode(table, PixelFormat((32, 32), 3))
    assert [row for row, _ in found.unreadable] == [1]
    assert not found.pixels[1].any()
    for row in (0, 2):
        np.testing.assert_array_equal(found.pixels[row], decode_image(WHOLE["32 × 32"]))


# ── decoded smaller ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "wanted", "by"),
    [
        ((500, 500), (224, 224), 2),
        ((500, 375), (224, 224), 1),
        ((4000, 3000), (224, 224), 8),
        ((447, 900), (224, 224), 1),
        ((448, 448), (224, 224), 2),
        ((31, 31), (4, 4), 4),
        ((100, 100), (200, 200), 1),
    ],
)
def test_a_file_stays_at_least_as_large_as_it_is_needed(
    given: tuple[int, int], wanted: tuple[int, int], by: int
) -> None:
    assert jpeg.reduction(given, wanted) == by


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [257, 255])
def test_a_smaller_one_shows_what_the_whole_one_shows(orientation: int, side: int) -> None:
    """Sides that a half does not divide: a line at the border is neither stretched nor left out, wherever it lies."""
    pixels = np.full((side, side - 2, 3), 255, np.uint8)
    pixels[0], pixels[:, 0], pixels[side // 3] = 0, 0, (200, 30, 30)
    file = encoded(Image.fromarray(pixels), "JPEG", quality=95, exif=turned(orientation))
    whole, smaller = (decode_image(file, PixelFormat((30, 30), 3, scaled=scaled)) for scaled in (False, True))
    assert np.abs(whole.astype(int) - smaller).max() <= 24
    assert np.abs(whole.astype(int) - smaller).mean() <= 2


def test_smaller_ones_are_cropped_and_letterboxed_like_whole_ones() -> None:
    smooth = picture(0).resize((401, 303), Image.Resampling.BICUBIC)
    file = encoded(smooth, "JPEG", quality=95)
    for options in ({"resize": 40}, {"letterbox": True}):
        whole, smaller = (
            decode_image(file, PixelFormat((32, 32), 3, scaled=scaled, **options)) for scaled in (False, True)
        )
        assert (whole != smaller).any()
        assert np.abs(whole.astype(int) - smaller).mean() <= 2


def test_only_jpeg_files_twice_as_large_as_needed_are_decoded_smaller() -> None:
    wanted = PixelFormat((24, 24), 3, scaled=True)
    assert is_decoded_smaller(encoded(picture(0, (48, 60)), "JPEG"), wanted)
    assert not is_decoded_smaller(encoded(picture(0, (47, 60)), "JPEG"), wanted)
    assert not is_decoded_smaller(encoded(picture(0, (480, 600))), wanted)
    assert not is_decoded_smaller(encoded(picture(0, (480, 600)), "JPEG"), PixelFormat((24, 24), 3))


def test_a_png_that_says_only_behind_its_pixels_how_it_is_turned_is_turned() -> None:
    file = encoded(picture(0, (9, 7)), exif=turned(6))
    at = file.index(b"eXIf") - 4
    chunk = file[at : at + 12 + int.from_bytes(file[at : at + 4], "big")]
    last = file.replace(chunk, b"")[:-12] + chunk + file[-12:]
    assert last != file
    np.testing.assert_array_equal(decode_image(last), decode_image(file))
    assert decode_image(last).shape == (9, 7, 3)
