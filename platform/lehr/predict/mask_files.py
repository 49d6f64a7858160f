"""Predicted masks as files: `masks/NUMBER NAME.png` beside the Parquet files, for people and for other tools."""

from __future__ import annotations

import re
from posixpath import basename, splitext

import pyarrow.parquet as pq

from lehr.runs import Folder

FOLDER = "masks"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def write_masks(out: Folder) -> int:
    """Writes the mask of each row of a prediction as a PNG; its values are the classes, its colours those of Pascal
    VOC. Returns how many there are."""
    count = 0
    for name in out.files():
        if not name.endswith(".parquet"):
            continue
        with out.open_input_file(name) as file:
            for batch in pq.ParquetFile(file).iter_batches(64, columns=["id", "name", "mask"]):
                for row in batch.to_pylist():
                    if row["mask"] is not None:
                        out.write(f"{FOLDER}/{file_of(row['id'], row['name'])}", row["mask"])
                        count += 1
    return count


def file_of(number: int, name: str) -> str:
    """The file of a row: its number, which no other row has, and what its image is called."""
    stem = _UNSAFE.sub("_", splitext(basename(name))[0])[-_LONGEST:].strip("._")
    return f"{number:06} {stem}.png" if stem else f"{number:06}.png"
