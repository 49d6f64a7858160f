"""JPEG files by `simplejpeg`, several times as fast as by Pillow, and with the same pixels to the last bit.

Both hold libjpeg-turbo, and what a file becomes must not depend on whether simplejpeg is installed. So it decodes only
where it agrees with this machine's Pillow on small pictures, and only what is plain: 8 bits, grey or in colour, without
a single complaint of the library. Everything else is None here, and Pillow's to read or to refuse.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow reads it all
    simplejpeg = None

_START = b"\xff\xd8\xff"
_TABLES = frozenset((0xC4, 0xDB, 0xDD, 0xFE))  # of Huffman codes and of quantisation, intervals of restart, a comment
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended, progressive: all of Huffman codes
_SCAN = 0xDA
_KNOWN = {0xE0: (b"JFIF\0", 14), 0xE2: (b"ICC_PROFILE\0", 14), 0xEE: (b"Adobe", 12)}
"""By marker: how an application's segment begins that says nothing of how an image is turned, and its least length."""


@dataclass(frozen=True)
class Header:
    """What a JPEG file says of itself before its pixels: its size, and whether it has no colour."""

    width: int
    height: int
    grey: bool


_newest: tuple[bytes, Header | None] = (b"", None)
"""How the newest plain file begins, up to its pixels: files that one program saved at one size all begin like that."""


def header(encoded: bytes) -> Header | None:
    """Of a plain file that says nothing of how it is turned; None of every other."""
    global _newest
    begins, known = _newest
    if begins and encoded.startswith(begins):
        return known
    if encoded[:3] != _START:
        return None
    at, found, end = 2, None, len(encoded) - 12
    while at < end and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], (encoded[at + 2] << 8) + encoded[at + 3]
        if marker == _SCAN:
            _newest = (encoded[: at + 2], found) if found is not None else _newest
            return found
        if marker in _FRAMES and found is None:
            height, width = (encoded[at + 5] << 8) + encoded[at + 6], (encoded[at + 7] << 8) + encoded[at + 8]
            channels = encoded[at + 9]
            if encoded[at + 4] != 8 or not (width and height) or channels not in (1, 3):
                return None
            found = Header(width, height, channels == 1)
        elif marker in _KNOWN:
            begins, least = _KNOWN[marker]
            if length < least + 2 or not encoded.startswith(begins, at + 4):
                return None
        elif marker not in _TABLES:
            return None
        at += 2 + length
    return None


def pixels(encoded: bytes, known: Header, by: int = 1, out: np.ndarray | None = None) -> np.ndarray | None:
    """uint8 [height, width, 1 or 3] as the file has them, not turned; None for what Pillow is to read.

    Args:
        known: the file's size and channels.
        by: 1, 2, 4 or 8: each side becomes that much smaller, rounded up.
        out: contiguous, of this shape: where they are written.
    """
    if not agrees():
        return None
    height, width = -(-known.height // by), -(-known.width // by)
    asked: dict[str, Any] = {} if by == 1 else {"min_height": height, "min_width": width}
    try:
        found = simplejpeg.decode_jpeg(encoded, "GRAY" if known.grey else "RGB", buffer=out, **asked)
    except (ValueError, RuntimeError):  # whatever it complains of, Pillow has the last word
        return None
    if found.shape[:2] != (height, width):
        return None
    return found if out is None else out


def reduction(given: tuple[int, int], wanted: tuple[int, int]) -> int:
    """By how much a file can be decoded smaller and stay at least as large as wanted, both (width, height)."""
    return next((by for by in (8, 4, 2) if all(g // by >= w for g, w in zip(given, wanted, strict=True))), 1)


@functools.cache
def agrees() -> bool:
    """Whether simplejpeg is installed and decodes as this Pillow does, whole and smaller."""
    if simplejpeg is None:
        return False
    random = np.random.default_rng(0)
    for colour in ((), (3,)):
        picture = Image.fromarray(random.integers(0, 256, (37, 51, *colour), np.uint8)).resize((83, 61))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)  # its colours at half the size
        for by in (1, 2):
            with JpegImageFile(io.BytesIO(file.getvalue())) as image:  # whatever size `Image.open` may refuse
                image.draft(None, (83 // by, 61 // by))
                theirs = np.asarray(image)
            size = {"min_height": theirs.shape[0], "min_width": theirs.shape[1]} if by > 1 else {}
            ours = simplejpeg.decode_jpeg(file.getvalue(), "RGB" if colour else "GRAY", **size)
            if not np.array_equal(ours.squeeze(), theirs):
                return False
    return True
