"""Data sets for tests."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import lehr.data


def digits_with_test(folder: Path, shift: int) -> str:
    """The digits as a folder with splits; the labels of the test rows are shifted by `shift`."""
    table = pq.read_table(Path(lehr.data.__file__).parent / "digits.parquet")
    for name, part in (("train", table.slice(0, 900)), ("test", table.slice(900, 300))):
        labels = [(label + (shift if name == "test" else 0)) % 10 for label in part["label"].to_numpy().tolist()]
        shifted = part.set_column(part.schema.get_field_index("label"), "label", pa.array(labels, pa.int64()))
        (folder / name).mkdir(parents=True)
        pq.write_table(shifted.replace_schema_metadata(table.schema.metadata), folder / name / "part.parquet")
    return str(folder)
