"""Small sets of images for the tests of sources and streaming."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

CLASSES = ("cat", "dog", "élan")


def image_of(row: int, size: tuple[int, int] = (8, 8), channels: int = 3) -> np.ndarray:
    """An image that differs from those of all other rows."""
    shape = (*size, 3) if channels == 3 else size
    return np.random.default_rng(row).integers(0, 256, shape, dtype=np.uint8)


def png(row: int, size: tuple[int, int] = (8, 8), channels: int = 3) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_of(row, size, channels)).save(file, "PNG")
    return file.getvalue()


def write_parquet(path: Path, rows: range, group: int = 10, broken: tuple[int, ...] = ()) -> Path:
    """Rows with label row % 3; the rows in `broken` are not images."""
    table = pa.table(
        {
            "image": pa.array([b"no image" if row in broken else png(row) for row in rows], pa.binary()),
            "label": pa.array([row % 3 for row in rows], pa.int64()),
        }
    )
    pq.write_table(table.replace_schema_metadata({"classes": ",".join(CLASSES)}), path, row_group_size=group)
    return path


@pytest.fixture
def parquet_file(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "set.parquet", range(97))


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """30 images in three class folders, and files that are not images."""
    root = tmp_path / "pets"
    for row in range(30):
        folder = root / CLASSES[row % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"nº {row}.{'PNG' if row % 2 else 'png'}").write_bytes(png(row))
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "cat" / ".hidden.png").write_bytes(b"not an image either")
    (root / "readme.md").write_text("not a class")
    (root / "empty").mkdir()
    return root
