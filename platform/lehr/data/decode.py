"""From encoded image files to arrays, once, on CPUs. Pixels are uint8; `lehr.data.pixels` says how they become that."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from lehr.data import jpeg
from lehr.data.labels import Labels, from_column
from lehr.data.pixels import (
    AS_STORED,
    ORIENTATION,
    UPRIGHT,
    PixelFormat,
    Stored,
    channels_last,
    from_array,
    from_image,
    resized_size,
)
from lehr.data.sources.base import number_from_environment
from lehr.data.sources.listing import INSTALL
from lehr.errors import LehrError

Image.preinit()
for _plugin in ("AvifImagePlugin", "TiffImagePlugin", "WebPImagePlugin"):  # those that preinit() leaves out
    with contextlib.suppress(ImportError):
        import_module(f"PIL.{_plugin}")
with contextlib.suppress(ImportError):  # what reads HEIC, if the user has installed it
    import_module("pillow_heif").register_heif_opener()
_READ = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
FORMATS = tuple(each for each in _READ if each in Image.OPEN)
"""Pillow's names of the formats that are read. Pillow knows forty more, some of which start other programs."""
_PNG, _PNG_BEGINS = ("PNG",), b"\x89PNG\r\n\x1a\n"
_PLAIN_PNG = (b"\x08\0", b"\x08\2")  # 8 bits, grey or in colour
_SAYS_MORE = ("transparency", "exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # of how a PNG is turned
_OF_JPEG = ("JPEG", "MPO")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MOST_PIXELS = "LEHR_MOST_PIXELS"
"""Environment variable: the most pixels of an image that is decoded; by default `DEFAULT_MOST_PIXELS`."""
DEFAULT_MOST_PIXELS = 120_000_000
"""A photograph of 100 megapixels is read. Each pixel takes up to 4 bytes while its image is decoded."""


class UnreadableImage(ValueError):
    """Bytes that are no image of a format that is read, or an image that is damaged or too large; says why."""


def most_pixels() -> int:
    """The most pixels of an image that is decoded. Raises LehrError for a LEHR_MOST_PIXELS that is not a number."""
    return number_from_environment(MOST_PIXELS, DEFAULT_MOST_PIXELS)


def decode_image(encoded: bytes, wanted: PixelFormat = AS_STORED, out: np.ndarray | None = None) -> np.ndarray:
    """One image file as uint8 [height, width, channels], rotated upright by its EXIF tag.

    Of several frames it is the first.

    Args:
        out: contiguous, of the shape that is wanted: where the pixels may be written; they are what is returned.

    Raises:
        UnreadableImage: it is no image file, it is damaged or cut off, it has more pixels than are read, or values
            without a black and a white.
    """
    plain = jpeg.header(encoded)
    if plain is not None and plain.width * plain.height <= most_pixels():
        found = _decoded_jpeg(encoded, plain, wanted, out)
        if found is not None:
            return found
    with opened_image(encoded) as image:
        if encoded[24:26] in _PLAIN_PNG and image.format == "PNG":
            image.load()  # what it says may stand behind the pixels
            if image.info.keys().isdisjoint(_SAYS_MORE):
                return from_image(image, Stored(image.mode == "L"), wanted)
        stored, orientation = Stored.of(image), _orientation(image)
        if image.format in _OF_JPEG and image.mode in ("L", "RGB"):
            return _turned_jpeg(encoded, image, stored, wanted, orientation)
        image.load()
        return from_image(image, stored, wanted, orientation)


def _turned_jpeg(
    encoded: bytes, image: Image.Image, stored: Stored, wanted: PixelFormat, orientation: int
) -> np.ndarray:
    """A JPEG file that Pillow has opened, because of what it says besides its pixels."""
    plain = jpeg.Header(*image.size, stored.grey)
    found = _decoded_jpeg(encoded, plain, wanted, None, orientation)
    if found is not None:
        return found
    by, whole = _reduction(image.size, wanted, orientation), image.size
    if by > 1:
        image.draft(None, (whole[0] // by, whole[1] // by))
    image.load()
    return from_image(image, stored, wanted, orientation, whole)


def _decoded_jpeg(
    encoded: bytes, plain: jpeg.Header, wanted: PixelFormat, out: np.ndarray | None, orientation: int = 1
) -> np.ndarray | None:
    """A plain JPEG file as `decode_image` has it; None if Pillow must read it."""
    by = _reduction((plain.width, plain.height), wanted, orientation)
    shape = (plain.height, plain.width, 1 if plain.grey else 3)
    fits = out is not None and out.shape == shape and by == 1 and orientation == 1
    pixels = jpeg.pixels(encoded, plain, by, out if fits else None)
    if pixels is None:
        return None
    if by == 1 and orientation not in UPRIGHT:
        return from_array(pixels, wanted)
    image = Image.fromarray(pixels[..., 0] if plain.grey else pixels)
    return from_image(image, Stored(plain.grey), wanted, orientation, (plain.width, plain.height))


def _reduction(given: tuple[int, int], wanted: PixelFormat, orientation: int) -> int:
    """By how much smaller a JPEG file of this width and height is decoded: 1, unless that is wanted and it is so much
    larger than needed."""
    if not wanted.scaled or wanted.size is None:
        return 1
    upright = given if orientation < 5 else given[::-1]
    return jpeg.reduction(upright, resized_size(upright, wanted))


def stored_as(encoded: bytes) -> Stored:
    """How an image file holds its values, without decoding them. Raises UnreadableImage."""
    with opened_image(encoded) as image:
        return Stored.of(image)


def size_of(encoded: bytes) -> tuple[int, int]:
    """(width, height) of an image file as it is shown, without decoding it. Raises UnreadableImage."""
    with opened_image(encoded) as image:
        turned = _orientation(image) >= 5
        return (image.height, image.width) if turned else (image.width, image.height)


def is_decoded_smaller(encoded: bytes, wanted: PixelFormat) -> bool:
    """Whether an image file is decoded to fewer pixels than it has, without decoding it. Raises UnreadableImage."""
    with opened_image(encoded) as image:
        return image.format in _OF_JPEG and _reduction(image.size, wanted, _orientation(image)) > 1


def format_of(encoded: bytes) -> str:
    """The format and the size of an image file, as `JPEG, 640 × 480`. Raises UnreadableImage."""
    with opened_image(encoded) as image:
        name = image.format or "image"
    return "{}, {} × {}".format(name, *size_of(encoded))


@contextlib.contextmanager
def opened_image(encoded: bytes) -> Iterator[Image.Image]:
    """The image file, opened. Whatever Pillow raises in the block becomes an UnreadableImage."""
    limit = most_pixels()
    Image.MAX_IMAGE_PIXELS = limit  # beyond it Pillow warns, beyond twice as much it refuses; see below
    try:
        with Image.open(io.BytesIO(encoded), formats=_PNG if encoded[:8] == _PNG_BEGINS else FORMATS) as image:
            if image.width * image.height > limit:
                raise UnreadableImage(_too_large(image.width, image.height, limit))
            yield image
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(_unidentified(encoded)) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(f"it has more than {2 * limit:,} pixels, a decompression bomb; {_allow(limit)}") from None
    except Exception as error:  # decoders raise all sorts of errors for bytes that are no image
        raise UnreadableImage(str(error).split(" <_io")[0].strip() or type(error).__name__) from error


def _orientation(image: Image.Image) -> int:
    """The orientation that the image's EXIF names; 1, upright, where it names none or cannot be read."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # other tags are damaged; the pixels may still be whole
        return 1
    return found if isinstance(found, int) else 1


def _unidentified(encoded: bytes) -> str:
    if encoded[:4] in (b"II*\0", b"MM\0*"):
        return "a TIFF of a kind that Pillow does not read, such as floats in colour or of 64 bits"
    if encoded[4:8] == b"ftyp" and encoded[8:12] in HEIF_BRANDS:  # whatever its name says: phones rename them
        return f"a HEIC image; what reads it: {INSTALL['.heic']}"
    return f"no image of a known format: {', '.join(FORMATS)}"


def _too_large(width: int, height: int, limit: int) -> str:
    return f"it has {width:,} × {height:,} pixels, a decompression bomb or a very large image; {_allow(limit)}"


def _allow(limit: int) -> str:
    return f"allowed: {limit:,}, or what {MOST_PIXELS} is set to"


@dataclass(frozen=True)
class Decoded:
    """Some rows of a source, decoded.

    Attributes:
        pixels: uint8 [rows, height, width, channels]; zero if the image could not be read.
        labels: int64 [rows], or of another form, see `lehr.data.labels`.
        unreadable: (row, reason) of each image that could not be read.
        sizes: int64 [rows, 2], height and width of the images before they were letterboxed; None where they were not.
    """

    pixels: np.ndarray
    labels: Labels
    unreadable: tuple[tuple[int, str], ...] = ()
    sizes: np.ndarray | None = None


LARGEST_SIDE, STEP = 224, 32
"""Of the sizes to resize to that are proposed: the largest, and what they are multiples of."""


def decode(table: pa.Table, wanted: PixelFormat = AS_STORED) -> Decoded:
    """The images and labels of a part's table (`Part.read`). Images that cannot be read are listed, not raised.

    Args:
        table: columns `image` (binary), `label` (integers, or lists, see `lehr.data.labels`) and, for raw pixels,
            `shape` and `dtype`.
        wanted: what to decode to. Without a size, all images must have the same; without channels, there are 3 unless
            all images are greyscale.

    Raises:
        LehrError: the images differ in size and `wanted` has no size.
    """
    unreadable: list[tuple[int, str]] = []
    sizes = np.ones((len(table), 2), np.int64) if wanted.letterbox else None
    if wanted.size is None or wanted.channels is None:
        images: list[np.ndarray | None] = [None] * len(table)
        for row, image in _images(table, wanted, unreadable, sizes, None):
            images[row] = image
        pixels = _stacked(images, wanted)
    else:
        pixels = np.zeros((len(table), *wanted.size, wanted.channels), np.uint8)
        for row, image in _images(table, wanted, unreadable, sizes, pixels):
            if image.base is not pixels:
                pixels[row] = image
        for row, _ in unreadable:
            pixels[row] = 0  # a file may have been written there until it was found to be damaged
    return Decoded(pixels, from_column(table["label"]), tuple(unreadable), sizes)


def _images(
    table: pa.Table,
    wanted: PixelFormat,
    unreadable: list[tuple[int, str]],
    sizes: np.ndarray | None,
    out: np.ndarray | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Each row of a part's table that can be read, decoded, in place where that can be; the others are listed."""
    for row, (encoded, shape, dtype) in enumerate(raw_rows(table)):
        try:
            yield row, decoded_row(encoded, shape, dtype, wanted, None if out is None else out[row])
            if sizes is not None:
                sizes[row] = shape[:2] if shape is not None else size_of(encoded or b"")[::-1]
        except UnreadableImage as error:
            unreadable.append((row, str(error)))


def _stacked(images: list[np.ndarray | None], wanted: PixelFormat) -> np.ndarray:
    """Images as one array, zero for those that could not be read. Raises DifferentSizes."""
    known = {image.shape[:2] for image in images if image is not None}
    if len(known) > 1:
        raise different_sizes(known)
    height, width = known.pop() if known else wanted.size or (0, 0)
    channels = wanted.channels or max((image.shape[2] for image in images if image is not None), default=1)
    pixels = np.zeros((len(images), height, width, channels), np.uint8)
    for row, image in enumerate(images):
        if image is not None:
            pixels[row] = image  # a greyscale image among colour images fills all channels
    return pixels


class DifferentSizes(LehrError):
    """Images of different sizes, which the job does not resize.

    Attributes:
        side: what to resize them to, in pixels: about the smaller side of the image in the middle.
    """

    def __init__(self, what: str, side: int) -> None:
        super().__init__(what)
        self.side = side


def different_sizes(sizes: Iterable[tuple[int, int]]) -> DifferentSizes:
    """The error for images of different sizes (height, width) that the job does not resize."""
    known = sorted(sizes)
    some = ", ".join(f"{width} × {height}" for height, width in known[:3]) + (", …" if len(known) > 3 else "")
    smaller = sorted(map(min, known))[len(known) // 2]
    side = min(LARGEST_SIDE, max(STEP, STEP * round(smaller / STEP)))
    what = f"data: the images differ in size ({some}); to resize them, type: data.image_size={side}"
    return DifferentSizes(what, side)


def raw_rows(table: pa.Table) -> Iterator[tuple[bytes | None, list[int] | None, str | None]]:
    """Of each row of a part's table: its image, the shape if that is raw pixels, and their type if it is not uint8."""
    nothing = [None] * len(table)
    columns = (table[name].to_pylist() if name in table.schema.names else nothing for name in ("shape", "dtype"))
    return zip(table["image"].to_pylist(), *columns, strict=True)


def decoded_row(
    image: bytes | None,
    shape: list[int] | None,
    dtype: str | None,
    wanted: PixelFormat,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """One row of `raw_rows` as uint8 [height, width, channels], in `out` as `decode_image` has it. Raises
    UnreadableImage."""
    if image is None:
        raise UnreadableImage("the row has no image")
    if shape is None:
        return decode_image(image, wanted, out)
    try:
        return from_array(raw_array(image, shape, dtype), wanted)
    except (TypeError, ValueError) as error:
        raise UnreadableImage(str(error)) from error


def raw_array(pixels: bytes, shape: list[int], dtype: str | None) -> np.ndarray:
    """Raw pixels as an array [height, width, channels]. Raises ValueError."""
    height, width, depth = shape
    if depth not in (1, 3, 4) or min(height, width) < 1:
        raise ValueError(f"the shape {height} × {width} × {depth} is not an image with 1, 3 or 4 channels")
    return np.frombuffer(pixels, dtype or np.uint8).reshape(height, width, depth)


def as_pixels(image: object, wanted: PixelFormat) -> np.ndarray:
    """One image as uint8 [height, width, channels] with values from 0 to 255.

    Args:
        image: a path, the bytes of an image file, a PIL image, or an array or tensor [height, width],
            [height, width, channels] or [channels, height, width]: of whole numbers without a sign, whose type says
            what is white, of floats from 0 to 1, or of others if `wanted` has a range.
        wanted: what it becomes.

    Raises:
        LehrError: `image` is none of these, or cannot be read as an image.
    """
    try:
        if isinstance(image, (str, Path)):
            return decode_image(Path(image).read_bytes(), wanted)
        if isinstance(image, bytes):
            return decode_image(image, wanted)
        if isinstance(image, Image.Image):
            stored, orientation = Stored.of(image), _orientation(image)
            image.load()
            return from_image(image, stored, wanted, orientation)
        if hasattr(image, "__array__"):
            return from_array(channels_last(np.asarray(image)), wanted)
    except (LehrError, MemoryError):
        raise
    except Exception as error:  # a PIL image may be decoded only now
        raise LehrError(f"cannot be read as an image: {error}") from error
    what = f"a {type(image).__name__} is not an image"
    raise LehrError(f"{what}; allowed: a path, the bytes of an image file, a PIL image, an array or a tensor")
