"""The forms of data that `data.source` can name. Checks, messages and the schema are all made from this table.

To add one: its line in `SOURCES`, and a module in `lehr/data/sources/` with a function `open_source`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SourceForm:
    """What a job may say about one form of data.

    Attributes:
        module: the module in `lehr.data.sources` that opens it.
        path: whether the job must, may or must not set `data.path`.
        downloads: its rows are downloaded wherever they are needed.
        needs_ray: it can only be opened while Ray is running.
        labels: it reads labels of every kind, from columns that `data.columns` may name; others have one class a row.
        task: the task whose labels it has; empty for one class a row, or where the job's task decides.
        several: it has labels for more than one task, such as boxes and masks, and is told which are read.
        files: its rows are files, so that their paths may say which belong together.
    """

    module: str
    path: Literal["required", "optional", "none"]
    downloads: bool = False
    needs_ray: bool = False
    labels: bool = False
    task: str = ""
    several: bool = False
    files: bool = False


FUNCTION = "my_package.module:function"
SOURCES: dict[str, SourceForm] = {
    "digits": SourceForm("digits", path="none"),
    "auto": SourceForm("auto", path="required", labels=True),
    "images": SourceForm("images", path="required", files=True),
    "files": SourceForm("files", path="required"),
    "parquet": SourceForm("parquet", path="required", labels=True),
    "arrow": SourceForm("arrow", path="required", labels=True),
    "table": SourceForm("table", path="required", labels=True),
    "annotations": SourceForm("annotations", path="required", task="detection", several=True),
    "masks": SourceForm("mask_pairs", path="required", labels=True, task="segmentation"),
    "digits_canvas": SourceForm("digits_canvas", path="none", task="detection", several=True),
    "tar": SourceForm("tar_shards", path="required", labels=True),
    "numpy": SourceForm("arrays", path="required", labels=True),
    "torchvision:NAME": SourceForm("torchvision_sets", path="optional", downloads=True),
    FUNCTION: SourceForm("function", path="optional", needs_ray=True, labels=True),
}
"""By spelling. `NAME` stands for any name; a colon after any other prefix makes it a function."""


def source_form(source: str) -> SourceForm | None:
    """The form of the data that a job names; None for an unknown name."""
    prefix, colon, _ = source.partition(":")
    if not colon:
        return SOURCES.get(source)
    return SOURCES.get(f"{prefix}:NAME", SOURCES[FUNCTION])
