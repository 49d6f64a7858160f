"""Masks as arrays and as pictures, without torch: nearest pixels, and the colours of classes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
BORDER: Colour = (224, 224, 192)
"""The colour that Pascal VOC gives to what is not counted."""


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same mask in another height and width, by nearest pixels: the one in which the middle of a pixel lies."""
    if mask.shape[:2] == size:
        return mask
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for new, old in zip(size, mask.shape[:2], strict=True)
    )
    return mask[rows[:, None], columns]


def colours(classes: int) -> list[Colour]:
    """The colours that Pascal VOC gives to its classes, the first one black: the bits of a number, dealt to the high
    bits of red, green and blue in turn (VOClabelcolormap of its development kit)."""
    found = []
    for number in range(classes):
        colour, left = [0, 0, 0], number
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (left >> channel & 1) << (7 - bit)
            left >>= 3
        found.append((colour[0], colour[1], colour[2]))
    return found


def as_palette_png(mask: np.ndarray) -> bytes:
    """A PNG of classes uint8 [height, width], with the colours of Pascal VOC; its values are the classes."""
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8), "L")
    image.putpalette([side for colour in [*colours(255), BORDER] for side in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def overlay(picture: Image.Image, mask: np.ndarray, share: float = 0.55) -> Image.Image:
    """A picture with the colour of its class over each pixel; class 0, which is mostly the background, and what does
    not count stay as they are.

    Args:
        mask: uint8 [height, width], of any size. share: of the colour in each pixel.
    """
    table = np.array([*colours(255), BORDER], np.float32)
    drawn = np.asarray(picture.convert("RGB"), np.float32)
    fitted = resized(mask, drawn.shape[:2])
    painted = (1 - share) * drawn + share * table[fitted]
    seen = ((fitted > 0) & (fitted < 254))[..., None]
    return Image.fromarray(np.where(seen, painted, drawn).round().astype(np.uint8))
