"""From what image files and arrays hold to uint8 pixels: depths, colour spaces, transparency, layouts.

| values | black and white |
|---|---|
| 1 and 8 bits, `bool` | 0 and the largest |
| 9 to 16 bits without a sign | 0 and the largest of that depth; the 8 high bits are kept |
| floats that are all from 0 to 1 | 0 and 1 |
| with a sign, of 32 bits, other floats | none of their own: `data.pixel_range` says them, else they are refused |

Greyscale has one channel, all else three. Transparency is left out, unless four channels are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by number of channels
GREY = ("1", "L", "LA", "La", "I", "F")  # Pillow's modes without colour, besides those that start with I;16
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation in an image's EXIF: how it is turned upright."""
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
BITS, PHOTOMETRIC, SAMPLE_FORMAT, ORIENTATION = 258, 262, 339, 0x0112  # tags of TIFF, the last one of EXIF as well
_SIGNED, _FLOAT, _WHITE_IS_ZERO = 2, 3, 0  # values of these tags


class NoRange(ValueError):
    """Values without a black and a white of their own; says which, and what to set."""


@dataclass(frozen=True)
class PixelFormat:
    """What images are decoded to: uint8 [height, width, channels].

    Attributes:
        size: (height, width) that it has in the end; None keeps an image's own.
        channels: 1 (grey), 3 (red, green, blue) or 4 (with transparency); None: 1 for greyscale images, else 3.
        range: the values that become black and white; None: those of their type.
        resize: pixels of the shorter side, of which the middle is cut out to `size`; None: resized to `size` whatever
            its proportions.
        interpolation: how pixels are resized, one of `INTERPOLATIONS`.
        letterbox: keep the proportions: the whole image, as large as it fits into the upper left corner of `size`, and
            grey beside it.
        scaled: decode a JPEG file that is at least twice as large as what it becomes to a half, a quarter or an eighth
            of its sides, and resize that: faster, and not the same pixels (`data.decode`).
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    range: tuple[float, float] | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    letterbox: bool = False
    scaled: bool = False


BESIDE = 114
"""The grey beside an image in a letterbox, as YOLO tools have it."""
AS_STORED = PixelFormat()
"""The size and the channels that an image has."""


@dataclass(frozen=True)
class Stored:
    """How a file holds its values, as far as it can be seen before they are decoded.

    Attributes:
        grey: whether it has no colour.
        bits: per value.
        kind: `u` without a sign, `i` with one, `f` floating-point.
        white_is_zero: whether the largest value is black.
        transparent: whether it has transparency.
    """

    grey: bool
    bits: int = 8
    kind: str = "u"
    white_is_zero: bool = False
    transparent: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> Stored:
        """Of an image that Pillow has opened and not yet loaded."""
        mode, raw = image.mode, _raw_mode(image)
        grey = mode in GREY or mode.startswith("I;16") or raw.split(";")[0] == "LA"
        tags = getattr(image, "tag_v2", {})
        kind = {_SIGNED: "i", _FLOAT: "f"}.get(_first(tags.get(SAMPLE_FORMAT)) or 0, "u")
        if mode == "F":
            return cls(grey, 32, "f")
        if mode == "I" and not tags:
            return cls(grey, 16, "u") if image.format in ("PNG", "PPM") else cls(grey, 32, "i")
        if mode == "I" or mode.startswith("I;16"):
            return cls(grey, _first(tags.get(BITS)) or 16, kind, tags.get(PHOTOMETRIC) == _WHITE_IS_ZERO)
        if kind == "i":
            return cls(grey, 8, "i")
        bits = 16 if ";16" in raw or _maximum(image) > 255 else 8
        return cls(grey, bits, transparent="A" in mode.replace("LAB", "") or "transparency" in image.info)


def _raw_mode(image: Image.Image) -> str:
    """How Pillow names the layout of the values in the file; empty once it is loaded."""
    arguments = _tile_arguments(image)
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _maximum(image: Image.Image) -> int:
    """The largest value of a PPM file; 0 for all others."""
    arguments = _tile_arguments(image)
    is_one = image.format == "PPM" and isinstance(arguments, tuple) and len(arguments) == 2
    return int(arguments[1]) if is_one else 0


def _tile_arguments(image: Image.Image) -> Any:
    """What Pillow gives to its decoder, a text or a tuple that begins with one; nothing once the image is loaded."""
    tiles = getattr(image, "tile", None)
    return tiles[0][3] if tiles else ""


def _first(value: object) -> int | None:
    found = value[0] if isinstance(value, tuple) and value else value
    return found if isinstance(found, int) else None


def from_image(
    image: Image.Image,
    stored: Stored,
    wanted: PixelFormat,
    orientation: int = 1,
    whole: tuple[int, int] | None = None,
) -> np.ndarray:
    """uint8 [height, width, channels] of a loaded image, turned upright.

    Args:
        whole: (width, height) of the file, if the image was decoded smaller; not turned.

    Raises:
        NoRange: its values have no black and white of their own, and `wanted` has no range either.
        ValueError: its colours cannot be converted.
    """
    shallow = _eight_bit_image(image, stored, wanted.range)
    channels, smaller = wanted.channels or (1 if stored.grey else 3), None
    if whole is not None and whole != image.size:
        smaller = _Smaller.of(whole, image.size, orientation)
    if orientation in UPRIGHT:
        shallow = shallow.transpose(UPRIGHT[orientation])
    return _arrange(shallow, wanted, channels, smaller)


@dataclass(frozen=True)
class _Smaller:
    """Where an image that was decoded smaller has what the whole one shows, both turned upright.

    Sides are rounded up: of 375 pixels, a half has 188, and its last one is half empty.

    Attributes:
        whole: (width, height) of the whole image.
        box: left, top, right and bottom in the smaller one, in pixels.
    """

    whole: tuple[int, int]
    box: tuple[float, float, float, float]

    @classmethod
    def of(cls, whole: tuple[int, int], smaller: tuple[int, int], orientation: int) -> _Smaller:
        by = next(by for by in (2, 4, 8) if all(-(-w // by) == s for w, s in zip(whole, smaller, strict=True)))
        sides = whole if orientation < 5 else whole[::-1]
        has = smaller if orientation < 5 else smaller[::-1]
        shown = sides[0] / by, sides[1] / by
        left = has[0] - shown[0] if orientation in (2, 3, 6, 7) else 0.0
        top = has[1] - shown[1] if orientation in (3, 4, 7, 8) else 0.0
        return cls(sides, (left, top, left + shown[0], top + shown[1]))


def _eight_bit_image(image: Image.Image, stored: Stored, limits: tuple[float, float] | None) -> Image.Image:
    """The same image with 8 bits per value, in a mode that converts to every one of `MODES`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or stored.kind == "i":
        values = np.asarray(image)
        if stored.bits == 32 and stored.kind == "u":
            values = values.view(np.uint32)  # Pillow keeps 32 bits as if they had a sign
        if stored.kind == "i" and values.dtype == np.uint8:
            values = values.view(np.int8)
        grey = eight_bits(values, stored.bits, stored.kind, limits)
        return Image.fromarray(255 - grey if stored.white_is_zero else grey)
    if image.mode == "LAB":
        image = _from_lab(image)
    elif image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if limits is None:
        return image
    if stored.bits > 8:
        raise ValueError("its colours have 16 bits, of which 8 can be read; data.pixel_range is allowed for grey ones")
    transparent = "A" in image.mode or "transparency" in image.info
    image = image.convert("RGBA" if transparent else "L" if image.mode in GREY else "RGB")
    table = eight_bits(np.arange(256, dtype=np.uint8), 8, "u", limits).tolist()
    return image.point([*table * 3, *range(256)] if transparent else table * len(image.getbands()))


def _from_lab(image: Image.Image) -> Image.Image:
    """CIE L*a*b* as sRGB."""
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None, "a new image is returned unless inPlace is set"
    return converted


def _arrange(image: Image.Image, wanted: PixelFormat, channels: int, smaller: _Smaller | None = None) -> np.ndarray:
    """uint8 [height, width, channels], resized and cropped."""
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    if wanted.size is not None:
        height, width = wanted.size
        scaled = resized_size(smaller.whole if smaller else image.size, wanted)
        if smaller or image.size != scaled:
            image = image.resize(scaled, INTERPOLATIONS[wanted.interpolation], smaller.box if smaller else None)
        if wanted.letterbox:
            pasted = Image.new(image.mode, (width, height), (BESIDE,) * channels if channels > 1 else BESIDE)
            pasted.paste(image)
            image = pasted
        elif scaled != (width, height):
            left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
            image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, dtype=np.uint8).reshape(image.size[1], image.size[0], channels)


def resized_size(given: tuple[int, int], wanted: PixelFormat) -> tuple[int, int]:
    """(width, height) to which an image of this width and height is resized, before it is cropped or letterboxed."""
    assert wanted.size is not None, "of images that are resized"
    if wanted.letterbox:
        return letterboxed(given, wanted.size)
    return wanted.size[::-1] if wanted.resize is None else _scaled(given, wanted.size, wanted.resize)


def letterboxed(given: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that an image of this width and height gets in a letterbox of this height and width."""
    ratio = min(size[1] / given[0], size[0] / given[1])
    return min(size[1], max(1, round(given[0] * ratio))), min(size[0], max(1, round(given[1] * ratio)))


def _scaled(given: tuple[int, int], size: tuple[int, int], resize: int) -> tuple[int, int]:
    """(width, height) of an image whose shorter side is resized; rounded as torchvision and timm do.

    Where `size` is no square, the image is made to cover it with the same margin.
    """
    width, height = given
    if size[0] == size[1]:
        return (resize, int(resize * height / width)) if width <= height else (int(resize * width / height), resize)
    wide, tall = (int(resize * side / min(size)) for side in (size[1], size[0]))
    ratio = min(width / wide, height / tall)
    return max(wide, round(width / ratio)), max(tall, round(height / ratio))


def eight_bits(values: np.ndarray, bits: int, kind: str, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Values of any type as uint8 of the same shape.

    Args:
        bits: how many the largest value has; 8 to 16 for those that have a range.
        kind: as `Stored` has it.
        limits: the values that become 0 and 255; those beyond are cut.

    Raises:
        NoRange: they are no numbers, or have no black and white of their own and no limits are given.
    """
    if kind == "f" and np.isnan(values).any():
        raise NoRange("some of its values are not numbers (NaN)")
    if limits is not None:
        low, high = limits
        share = (values.astype(np.float64) - low) / (high - low)
        return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    if kind == "u" and bits <= 16:
        return (values >> (bits - 8)).astype(np.uint8) if bits > 8 else values.astype(np.uint8)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if kind == "f" and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    name = "floats" if kind == "f" else f"{bits}-bit whole numbers {'with' if kind == 'i' else 'without'} a sign"
    raise NoRange(
        f"its values are {name} from {low:.6g} to {high:.6g}, which have no black and white of their own; type "
        f"those two, such as data.pixel_range=[{low:.6g},{high if high > low else low + 1:.6g}]"
    )


def from_array(array: np.ndarray, wanted: PixelFormat) -> np.ndarray:
    """uint8 [height, width, channels] of an array [height, width, 1, 3 or 4 channels] of any numbers.

    Raises:
        NoRange: as `from_image`.
        ValueError: its type or shape is not that of an image.
    """
    if array.ndim != 3 or array.shape[2] not in MODES or not array.size:
        raise ValueError(_not_an_image(array))
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype.kind not in "uif":
        raise ValueError(f"an array of {array.dtype} is not an image; allowed: numbers, such as uint8")
    if array.dtype != np.uint8 or wanted.range is not None:
        bits, kind = 8 * array.dtype.itemsize, array.dtype.kind
        colours, alpha = eight_bits(array[..., :3], bits, kind, wanted.range), array[..., 3:]
        array = np.concatenate([colours, eight_bits(alpha, bits, kind)], axis=2) if alpha.size else colours
    channels = wanted.channels or min(3, array.shape[2])
    as_it_is = wanted.size is None or (wanted.size == array.shape[:2] and (wanted.resize is None or wanted.letterbox))
    if as_it_is and channels == array.shape[2]:
        return array
    image = Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))
    return _arrange(image, wanted, channels)


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same image as [height, width, channels], from [height, width] or with its channels first or last.

    Raises:
        ValueError: it has the shape of no image, or its channels may be either; says what to give instead.
    """
    if array.ndim == 2 and array.size:
        return array[:, :, None]
    if array.ndim != 3 or not array.size or not (array.shape[0] in MODES or array.shape[2] in MODES):
        raise ValueError(_not_an_image(array))
    if array.shape[0] in MODES and array.shape[2] in MODES:
        raise ValueError(
            f"an array of shape {list(array.shape)} may have its channels first or last; give it as an image: "
            "PIL.Image.fromarray(array) if they are last, PIL.Image.fromarray(array.transpose(1, 2, 0)) if first"
        )
    return array if array.shape[2] in MODES else array.transpose(1, 2, 0)


def _not_an_image(array: np.ndarray) -> str:
    return (
        f"an array of {array.dtype} and shape {list(array.shape)} is not an image; allowed: [height, width], or with "
        "1, 3 or 4 channels [height, width, channels] or [channels, height, width]"
    )
