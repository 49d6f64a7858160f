"""`row_names.json`: where a person finds the rows of which a run keeps pictures, such as the files of its images."""

from __future__ import annotations

from collections.abc import Mapping

from lehr.errors import RunError
from lehr.runs.storage import Folder

NAME = "row_names.json"


def read_row_names(folder: Folder) -> dict[int, str]:
    """The names by the ids of the rows; none where none are kept, or the file is damaged."""
    try:
        content = folder.read_json(NAME)
        return {int(row): str(name) for row, name in content["names"].items()}
    except (FileNotFoundError, RunError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def write_row_names(folder: Folder, names: Mapping[int, str]) -> None:
    """Replaces the file."""
    folder.write_json(NAME, {"names": {str(row): name for row, name in names.items()}})
