"""Images from a column of a table: which column it is, and its values as a part's table has them.

| column | as other programs write it |
|---|---|
| binary | encoded files, or raw pixels with a `shape` |
| struct of `bytes` and `path` | `datasets.Image` of Hugging Face |
| lists of lists of numbers, tensors of a fixed shape | pixels: polars, `datasets.Array2D`, Ray Data |
| lists of as many numbers as a square has | pixels of a grey image, flattened |
| columns `pixel0`, `pixel1`, … | the same, a column each: MNIST as Kaggle has it |

Pure functions of columns; only where a struct has a path and no bytes, that file is read.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lehr.data.pixels import channels_last
from lehr.data.sources.base import file_system, join_path
from lehr.data.sources.listing import shown

USUAL_IMAGES = ("image", "img", "images", "photo", "picture", "pixels", "image_bytes", "jpg", "png", "x")
PIXEL = re.compile(r"(?:pixel|px|p)?_?(\d+)(?:x(\d+))?", re.IGNORECASE)
LEAST_PIXELS = 16
COLUMNS = ("image", "shape", "dtype")
"""Those of a part's table that an image may need."""


class WrongImages(ValueError):
    """Columns among which the images are not found, or not one."""


def choose_image(schema: pa.Schema, wanted: str | None) -> tuple[str, ...]:
    """The column of the images; or those of their pixels, in order.

    Raises:
        WrongImages: no column can be it, or several can and none is called `image`.
    """
    if wanted is not None:
        if wanted not in schema.names:
            raise WrongImages(f"has no column {wanted}; its columns are {_listed(schema.names)}")
        kind = schema.field(wanted).type
        if not can_be_image(kind) and _depth(kind) != 1:
            raise WrongImages(f"has a column {wanted} of type {kind}; allowed: encoded images or pixels")
        return (wanted,)
    if "image" in schema.names and can_be_image(schema.field("image").type):
        return ("image",)
    found = [field.name for field in schema if can_be_image(field.type)]
    named = [name for name in found if name.lower() in USUAL_IMAGES]
    if len(found) > 1 and len(named) != 1:
        raise WrongImages(f"has {len(found)} columns that may be the images, {_listed(found)}; {_type_one(found)}")
    if found:
        return (named or found)[:1] if len(found) > 1 else (found[0],)  # type: ignore[return-value]
    if flat := [each.name for each in schema if each.name.lower() in USUAL_IMAGES and _depth(each.type) == 1]:
        return (flat[0],)
    if pixels := pixel_columns(schema):
        return pixels
    raise WrongImages(f"has no column of images; its columns are {_with_types(schema)}")


def pixel_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Columns of numbers that are the pixels of a square grey image, in order; none where there are none."""
    found: dict[tuple[int, int], str] = {}
    for field in schema:
        match = PIXEL.fullmatch(field.name)
        if match and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            found[int(match[1]), int(match[2] or 0)] = field.name
    side = math.isqrt(len(found))
    return tuple(found[key] for key in sorted(found)) if len(found) >= LEAST_PIXELS and side**2 == len(found) else ()


def _type_one(names: Sequence[str]) -> str:
    first = names[0]
    return f"type data.columns.image={first}"


def _listed(names: Sequence[str]) -> str:
    return shown(names) if len(names) > 8 else ", ".join(names)


def _with_types(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:8]) + (", …" if len(schema) > 8 else "")


def can_be_image(kind: Any) -> bool:
    """Whether values of this type may be images: files, or pixels in two or three dimensions or flattened ones."""
    if isinstance(kind, pa.BaseExtensionType):
        return _tensor_shape(kind) is not None
    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(number).name for number in range(kind.num_fields)}
    return is_binary(kind) or (_is_list(kind) and _is_list(kind.value_type) and _depth(kind) in (2, 3))


def is_binary(kind: pa.DataType) -> bool:
    return any(
        check(kind)
        for check in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        )
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _depth(kind: Any) -> int:
    """How many lists are around the numbers; 0 where there are no numbers."""
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) else 0


def _tensor_shape(kind: Any) -> tuple[int, ...] | None:
    """The shape that a tensor type has: Arrow's own, or that of Ray Data."""
    shape = getattr(kind, "shape", None)
    return tuple(shape) if shape is not None and isinstance(kind, pa.FixedShapeTensorType) else None


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_images(columns: Sequence[pa.ChunkedArray[Any]], folder: str = "") -> dict[str, pa.Array[Any]]:
    """The column `image` of a part's table, with `shape` and `dtype` where the images are raw pixels.

    Args:
        columns: that of the images; or those of their pixels.
        folder: what the paths of structs are relative to.

    Raises:
        ValueError: they are no images.
    """
    if len(columns) > 1:
        rows = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
        return _of_arrays(iter(rows))
    whole: Any = columns[0].combine_chunks()
    whole = whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
    kind = whole.type
    if isinstance(kind, pa.FixedShapeTensorType):
        order = kind.permutation or range(len(kind.shape))
        shape = [kind.shape[k] for k in order]
        return _of_arrays(row if row is None else row.reshape(shape) for row in _rows(whole.storage))
    if pa.types.is_struct(kind):
        return {"image": pa.array(list(_files(whole, folder)), pa.large_binary())}
    if _is_list(kind):
        return _of_arrays(_rows(whole))
    return {"image": whole.cast(pa.large_binary())}


def _files(values: Any, folder: str) -> Iterator[bytes | None]:
    encoded, paths = values.field("bytes").to_pylist(), values.field("path").to_pylist()
    for row, (file, path) in enumerate(zip(encoded, paths, strict=True)):
        if file is not None or not path or values[row].as_py() is None:
            yield file
            continue
        place = path if path.startswith("/") or "://" in path or not folder else join_path(folder, path)
        try:
            filesystem, inner = file_system(posixpath.normpath(place) if "://" not in place else place)
            with filesystem.open_input_file(inner) as opened:
                yield opened.read()
        except (OSError, ValueError, pa.ArrowException):
            yield None


def _rows(values: Any) -> Iterator[np.ndarray | None]:
    """Each row of nested lists as an array; one whose lists differ in length is an array of objects."""
    number = values.type
    while _is_list(number):
        number = number.value_type
    dtype = np.dtype(number.to_pandas_dtype())
    shape = _common_shape(values)
    if shape is not None:
        flat = values
        while _is_list(flat.type):
            flat = flat.flatten()
        yield from flat.to_numpy(zero_copy_only=False).reshape(len(values), *shape)
        return
    for row in values.to_pylist():
        try:
            yield None if row is None else np.asarray(row, dtype)
        except (TypeError, ValueError):
            yield np.zeros((0, 0), dtype)


def _common_shape(values: Any) -> tuple[int, ...] | None:
    """The shape of every row, if all have the same and nothing is missing."""
    shape: list[int] = []
    while _is_list(values.type):
        if values.null_count or not len(values):
            return None
        lengths: Any = pc.min_max(pc.list_value_length(values)).as_py()
        if lengths["min"] != lengths["max"] or not lengths["max"]:
            return None
        shape.append(lengths["max"])
        values = values.flatten()
    return None if values.null_count else tuple(shape)


def _of_arrays(rows: Iterator[np.ndarray | None]) -> dict[str, pa.Array[Any]]:
    return of_arrays([None if row is None else as_picture(row) for row in rows])


def as_picture(array: np.ndarray) -> np.ndarray:
    """An array of pixels as [height, width, channels]; one dimension is a square grey image.

    Whole numbers from 0 to 255 are bytes, whatever type a library gives to them by default.
    """
    if array.ndim == 1:
        side = math.isqrt(len(array))
        if side**2 != len(array):
            raise ValueError(
                f"{len(array):,} numbers a row are no square grey image, and how they lie is unknown; store them as "
                "lists [height][width] or [height][width][channels]"
            )
        array = array.reshape(side, side)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1 and array.size and 0 <= array.min() <= array.max() <= 255:
        array = array.astype(np.uint8)
    return np.ascontiguousarray(channels_last(array)) if array.size else array


def of_arrays(rows: Sequence[np.ndarray | None]) -> dict[str, pa.Array[Any]]:
    """Images [height, width, channels] as the columns of a part's table. One without pixels, a damaged one, is null."""
    found = [None if row is None or not row.size else row for row in rows]
    return {
        "image": pa.array([None if row is None else row.tobytes() for row in found], pa.large_binary()),
        "shape": pa.array([None if row is None else list(row.shape) for row in found], pa.list_(pa.int32())),
        "dtype": pa.array([None if row is None else row.dtype.name for row in found], pa.string()),
    }


# ── what Hugging Face writes beside the columns ─────────────────────────────────────────────────────────────────────


def hugging_face_classes(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """By column, the names of the classes that its numbers mean, from the metadata that `datasets` writes."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: names for name, feature in features.items() if (names := _names_in(feature))}
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError):
        return {}


def _names_in(feature: Any) -> tuple[str, ...]:
    """The names of a ClassLabel, or of the ClassLabels in a list."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names_in(feature[0])
    if not isinstance(feature, dict):
        return ()
    if "names" in feature and isinstance(feature["names"], list):
        return tuple(map(str, feature["names"]))
    return _names_in(feature.get("feature"))
