"""The bundled optical digits: 1,797 scans of 8 × 8 pixels (UCI Machine Learning Repository, CC BY 4.0)."""

from __future__ import annotations

from pathlib import Path

from lehr.data.sources.base import ErrorFactory, Source
from lehr.data.sources.parquet import parquet_files
from lehr.data.sources.tabular import Wanted
from lehr.job import DataSection


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    return parquet_files(
        [str(Path(__file__).parents[1] / "digits.parquet")], "digits", "data.source", job_error, Wanted()
    )
