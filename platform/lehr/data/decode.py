"""From encoded image files to arrays, once, on CPUs. Pixels stay uint8."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from lehr.data.sources.base import number_from_environment
from lehr.errors import LehrError

MODES = {1: "L", 3: "RGB"}  # Pillow's, by number of channels
ORIENTATION = 0x0112  # the EXIF tag
Image.preinit()
for _plugin in ("AvifImagePlugin", "TiffImagePlugin", "WebPImagePlugin"):  # those that preinit() leaves out
    with contextlib.suppress(ImportError):
        import_module(f"PIL.{_plugin}")
FORMATS = tuple(each for each in ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP") if each in Image.OPEN)
"""Pillow's names of the formats that are read. Pillow knows forty more, some of which start other programs."""
MOST_PIXELS = "LEHR_MOST_PIXELS"
"""Environment variable: the most pixels of an image that is decoded; by default `DEFAULT_MOST_PIXELS`."""
DEFAULT_MOST_PIXELS = 120_000_000
"""A photograph of 100 megapixels is read. Each pixel takes up to 4 bytes while its image is decoded."""


class UnreadableImage(ValueError):
    """Bytes that are no image of a format that is read, or an image that is damaged or too large; says why."""


def most_pixels() -> int:
    """The most pixels of an image that is decoded. Raises LehrError for a LEHR_MOST_PIXELS that is not a number."""
    return number_from_environment(MOST_PIXELS, DEFAULT_MOST_PIXELS)


def decode_image(encoded: bytes, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """One image file as uint8 [height, width, channels], rotated upright by its EXIF tag.

    Args:
        size: (height, width) to resize to, bilinear; None keeps the image's own.
        channels: 1 or 3; None gives 1 for greyscale files and 3 for all others.

    Of several frames it is the first.

    Raises:
        UnreadableImage: it is no image file, it is damaged or cut off, or it has more pixels than are read.
    """
    limit = most_pixels()
    Image.MAX_IMAGE_PIXELS = limit  # beyond it Pillow warns, beyond twice as much it refuses; see below
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > limit:
                raise UnreadableImage(_too_large(image.width, image.height, limit))
            # Without the tag the image is upright already; the copy saved is a third of the time for a small image.
            upright = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
            upright.load()
        if channels is None:
            channels = 1 if upright.mode in ("1", "L", "I", "I;16", "LA") else 3
        return _to_array(upright, size, channels)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"no image of a known format: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(f"it has more than {2 * limit:,} pixels, a decompression bomb; {_allow(limit)}") from None
    except Exception as error:  # decoders raise all sorts of errors for bytes that are no image
        raise UnreadableImage(str(error).split(" <_io")[0].strip() or type(error).__name__) from error


def _too_large(width: int, height: int, limit: int) -> str:
    return f"it has {width:,} × {height:,} pixels, a decompression bomb or a very large image; {_allow(limit)}"


def _allow(limit: int) -> str:
    return f"allowed: {limit:,}, or what {MOST_PIXELS} is set to"


def _to_array(image: Image.Image, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    converted = image if image.mode == MODES[channels] else image.convert(MODES[channels])
    if size is not None and converted.size != (size[1], size[0]):
        converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(converted, dtype=np.uint8).reshape(converted.size[1], converted.size[0], channels)


@dataclass(frozen=True)
class Decoded:
    """Some rows of a source, decoded.

    Attributes:
        pixels: uint8 [rows, height, width, channels]; zero if the image could not be read.
        labels: int64 [rows].
        unreadable: (row, reason) of each image that could not be read.
    """

    pixels: np.ndarray
    labels: np.ndarray
    unreadable: tuple[tuple[int, str], ...] = ()


def decode(table: pa.Table, size: tuple[int, int] | None, channels: int | None = None) -> Decoded:
    """The images and labels of a part's table (`Part.read`). Images that cannot be read are listed, not raised.

    Args:
        table: columns `image` (binary), `label` (integers) and, for raw pixels, `shape`.
        size: (height, width) to resize to; None keeps the images' own, which must then all be the same.
        channels: 1 or 3; None gives 3 unless all images are greyscale.

    Raises:
        LehrError: the images differ in size and `size` is None.
    """
    shapes = table["shape"].to_pylist() if "shape" in table.schema.names else [None] * len(table)
    images: list[np.ndarray | None] = []
    unreadable = []
    for row, (encoded, shape) in enumerate(zip(table["image"].to_pylist(), shapes, strict=True)):
        try:
            images.append(_decode_one(encoded, shape, size, channels))
        except UnreadableImage as error:
            images.append(None)
            unreadable.append((row, str(error)))
    labels = table["label"].to_numpy().astype(np.int64)
    known = {image.shape[:2] for image in images if image is not None}
    if len(known) > 1:
        raise different_sizes(known)
    height, width = known.pop() if known else size or (0, 0)
    channels = channels or max((image.shape[2] for image in images if image is not None), default=1)
    pixels = np.zeros((len(images), height, width, channels), np.uint8)
    for row, image in enumerate(images):
        if image is not None:
            pixels[row] = image  # a greyscale image among colour images fills all channels
    return Decoded(pixels, labels, tuple(unreadable))


def different_sizes(sizes: Iterable[tuple[int, int]]) -> LehrError:
    """The error for images of different sizes (height, width) that the job does not resize."""
    some = ", ".join(f"{width} × {height}" for height, width in sorted(sizes)[:3])
    return LehrError(f"data: the images differ in size ({some}, …); set data.image_size to resize them")


def _decode_one(
    image: bytes | None, shape: list[int] | None, size: tuple[int, int] | None, channels: int | None
) -> np.ndarray:
    """One image of a part's table; raw pixels if it has a shape. Raises UnreadableImage."""
    if image is None:
        raise UnreadableImage("the row has no image")
    if shape is None:
        return decode_image(image, size, channels)
    try:
        return _from_raw(image, shape, size, channels)
    except (TypeError, ValueError) as error:
        raise UnreadableImage(str(error)) from error


def _from_raw(pixels: bytes, shape: list[int], size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    height, width, depth = shape
    if depth not in MODES or min(height, width) < 1:
        raise ValueError(f"the shape {height} × {width} × {depth} is not an image with 1 or 3 channels")
    array = np.frombuffer(pixels, np.uint8).reshape(height, width, depth)
    if (size is None or size == (height, width)) and (channels is None or channels == depth):
        return array
    return _to_array(Image.fromarray(array[:, :, 0] if depth == 1 else array), size, channels or depth)


def as_pixels(image: object, size: tuple[int, int], channels: int) -> np.ndarray:
    """One image as uint8 [height, width, channels] with values from 0 to 255.

    Args:
        image: a path, the bytes of an image file, a PIL image, or a uint8 array [height, width] or
            [height, width, channels] with values from 0 to 255.
        size: (height, width) to resize to, bilinear.
        channels: 1 or 3.

    Raises:
        LehrError: `image` is none of these, or cannot be read as an image.
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
            return _to_array(ImageOps.exif_transpose(image), size, channels)
    except LehrError:
        raise
    except Exception as error:  # a PIL image may be decoded only now
        raise LehrError(f"cannot be read as an image: {error}") from error
    what = f"a {type(image).__name__} is not an image"
    raise LehrError(f"{what}; allowed: a path, the bytes of an image file, a PIL image or a uint8 array")
