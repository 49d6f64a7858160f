"""Image files of every kind, written byte by byte or by Pillow, for the tests of this folder."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """An image as Pillow writes it."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits, from uint16 [height, width, samples] and its colour type: 2 RGB, 4 grey and alpha."""
    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)), (b"IDAT", zlib.compress(lines))]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*parts, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(values: np.ndarray, photometric: int = 1, bits: int | None = None, raw: bytes | None = None) -> bytes:
    """An uncompressed TIFF of [height, width] or [height, width, samples], of any type and in its byte order.

    Args:
        photometric: 0: white is zero, 1: black is zero, 2: RGB, 8: CIE L*a*b*.
        bits: per value, if not those of the type; `raw` then holds the packed values.
    """
    order = ">" if values.dtype.byteorder == ">" else "<"
    (height, width), samples = values.shape[:2], values.shape[2] if values.ndim == 3 else 1
    data = values.tobytes() if raw is None else raw
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    depth = bits or 8 * values.dtype.itemsize
    after = 8 + 2 + 12 * 10 + 4
    per_sample = struct.pack(f"{order}{2 * samples}H", *[depth] * samples, *[kind] * samples)
    depths, kinds = (depth, kind) if samples == 1 else (after, after + 2 * samples)
    entries = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, samples, depths), (259, 3, 1, 1)),
        *((262, 3, 1, photometric), (273, 4, 1, after + len(per_sample)), (277, 3, 1, samples)),
        *((278, 3, 1, height), (279, 4, 1, len(data)), (339, 3, samples, kinds)),
    ]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, form, count, value in entries:
        short = form == 3 and count == 1
        directory += struct.pack(f"{order}HHI", tag, form, count)
        directory += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    return head + directory + bytes(4) + per_sample + data


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """A JPEG file with these bytes as its EXIF block."""
    block = b"Exif\0\0" + exif
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def write(folder: Path, **files: bytes) -> None:
    """Files in a new folder, by their name without its ending `.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)


def tree(root: Path, *names: str) -> Path:
    """A folder with a small image at each of these names; each image is another one."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(np.full((4, 4, 3), number, np.uint8)))
    return root
