"""What counts as an image, and what is said of anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lehr.data.decode import as_pixels, decode
from lehr.data.pixels import PixelFormat
from lehr.errors import LehrError

from .conftest import image_of, png


def test_bytes_arrays_and_pil_images_give_the_same_pixels() -> None:
    for image in (png(3), image_of(3), Image.fromarray(image_of(3))):
        assert np.array_equal(as_pixels(image, PixelFormat((8, 8), 3)), image_of(3))
    assert as_pixels(image_of(3), PixelFormat((4, 6), 1)).shape == (4, 6, 1)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (
            1.0,
            "a float is not an image; allowed: a path, the bytes of an image file, a PIL image, an array or a tensor",
        ),
        (
            np.zeros((8, 8, 2)),
            r"float64 and shape \[8, 8, 2\] is not an image; allowed: \[height, width\], or with 1, 3 or",
        ),
        (np.zeros((8, 8, 5), np.uint8), "cannot be read as an image: "),
        (b"text", "cannot be read as an image: "),
        ("nowhere.png", "cannot be read as an image: .*No such file"),
    ],
)
def test_what_is_not_an_image_is_refused_with_one_sentence(image: Any, sentence: str) -> None:
    with pytest.raises(LehrError, match=sentence):
        as_pixels(image, PixelFormat((8, 8), 3))


def test_a_row_without_an_image_is_unreadable() -> None:
    table = pa.table({"image": pa.array([png(0), None], pa.binary()), "label": [0, 1]})
    decoded = decode(table)
    assert decoded.unreadable == ((1, "the row has no image"),)
    assert np.array_equal(decoded.pixels[0], image_of(0))
    assert not decoded.pixels[1].any()
