"""From encoded image files to arrays, once, on CPUs. Pixels stay uint8."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from lehr.errors import LehrError

MODES = {1: "L", 3: "RGB"}


def decode_image(encoded: bytes, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """One image file as uint8 [height, width, channels], turned upright as its EXIF tag says.

    Args:
        size: (height, width) to resize to; None keeps the image's own.
        channels: 1 or 3; None gives 1 for greyscale files and 3 for all others.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        upright = ImageOps.exif_transpose(image)
    if channels is None:
        channels = 1 if upright.mode in ("1", "L", "I", "I;16", "LA") else 3
    return _fit(upright, size, channels)


def _fit(image: Image.Image, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    converted = image.convert(MODES[channels])
    if size is not None and converted.size != (size[1], size[0]):
        converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(converted, dtype=np.uint8).reshape(converted.size[1], converted.size[0], channels)


def decode(table: pa.Table, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 [rows, height, width, channels], labels int64 [rows]) of a source's table.

    Raises:
        LehrError: the images differ in size and none to resize to was given.
    """
    images = [decode_image(encoded, size, None) for encoded in table["image"].to_pylist()]
    labels = table["label"].to_numpy().astype(np.int64)
    if not images:
        return np.empty((0, *(size or (0, 0)), 3), np.uint8), labels
    channels = max(image.shape[2] for image in images)
    images = [np.broadcast_to(image, (*image.shape[:2], channels)) for image in images]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        few = ", ".join(f"{width} × {height}" for height, width, _ in sorted(shapes)[:3])
        raise LehrError(f"data: the images differ in size ({few}, …); give data.image_size to resize them to")
    return np.stack(images), labels


def as_pixels(image: object, size: tuple[int, int], channels: int) -> np.ndarray:
    """A path, a PIL image or a uint8 array as uint8 [height, width, channels] of the given size.

    Raises:
        LehrError: it is none of these, or cannot be read as an image.
    """
    try:
        if isinstance(image, (str, Path)):
            return decode_image(Path(image).read_bytes(), size, channels)
        if isinstance(image, bytes):
            return decode_image(image, size, channels)
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise LehrError(
                    f"an array of {image.dtype} and shape {image.shape} is not an image; "
                    "allowed: uint8 [height, width] or [height, width, channels]"
                )
            image = Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[2] == 1 else image)
        if isinstance(image, Image.Image):
            return _fit(ImageOps.exif_transpose(image), size, channels)
    except (OSError, ValueError) as error:
        raise LehrError(f"cannot be read as an image: {error}") from error
    raise LehrError(f"a {type(image).__name__} is not an image; allowed: a path, a PIL image or a uint8 array")
