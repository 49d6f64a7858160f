"""Which of the folders, or rows, of a data set are its splits, and which rows belong together.

What is neither a split nor a class is told or refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lehr.data.sources.listing import shown
from lehr.job.sections import FOLDER
from lehr.job.text import show

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Folder:
    """One of the folders at the top of a data set.

    Attributes:
        loose: whether data lie directly in it.
        inside: those of its folders that contain data.
    """

    loose: bool
    inside: Collection[str] = ()


class Unclear(ValueError):
    """Folders that may be splits or classes; says what to type for each."""


def split_of(name: str) -> str | None:
    """The split that a folder of this name holds: `train`, `validation` or `test`."""
    return SPLITS.get(name.lower())


COLUMN, NO_COLUMN = "split", "none"
"""The column that says the split of a row where a job names none, and what a job says to leave it alone."""


class WrongColumn(ValueError):
    """A column that says no splits or no groups; `field` is the job's, such as `data.split`, empty for the data's."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


def split_column(wanted: str | None, there: Sequence[str]) -> str | None:
    """The column that says the split of each row; None for none.

    Args:
        wanted: the job's `data.split`. there: the columns that there are.

    Raises:
        WrongColumn: the job names one that is not there.
    """
    if wanted is None or wanted == NO_COLUMN:
        return COLUMN if wanted is None and COLUMN in there else None
    _refuse_missing(wanted, there, "data.split")
    return wanted


def rows_of_splits(column: str, said: Sequence[Any], name: Callable[[int], str]) -> dict[str, np.ndarray]:
    """The rows of each split that a column says, int64 ascending, by the split's name; `name` names a row.

    Raises:
        WrongColumn: a row says no split, or none is for training.
    """
    named = [split_of(str(each).strip()) if each is not None else None for each in said]
    if None in named:
        row = named.index(None)
        allowed = f"allowed: train, validation, test; or data.split={NO_COLUMN}, for all rows together"
        raise WrongColumn("", f"{name(row)} has {said[row]!r} in its column {column}; {allowed}")
    found = {split: np.flatnonzero(np.array(named) == split) for split in ("train", "validation", "test")}
    if not len(found["train"]):
        raise WrongColumn("", f"has no row whose {column} is train; allowed: rows to train on")
    return {split: rows for split, rows in found.items() if len(rows)}


def group_column(wanted: str, there: Sequence[str]) -> str:
    """The column that says the group of each row. Raises WrongColumn where it is not there."""
    _refuse_missing(wanted, there, "data.group")
    return wanted


def _refuse_missing(column: str, there: Sequence[str], field: str) -> None:
    if column not in there:
        columns = ", ".join(there[:8]) + (", …" if len(there) > 8 else "")
        raise WrongColumn(field, f"has no column {column}; its columns are {columns}")


def group_codes(values: Sequence[Any], name: Callable[[int], str]) -> np.ndarray:
    """int64 [rows]: a number for the group of each row, the same for the same value in whatever data it stands.

    Args:
        values: text, numbers or other plain values. name: names a row.

    Raises:
        WrongColumn: a row has none.
    """
    codes: dict[Any, int] = {}
    for row, value in enumerate(values):
        if value is None or value != value or value == "":
            raise WrongColumn("data.group", f"{name(row)} belongs to no group; allowed: a value in every row")
        if value not in codes:
            digest = hashlib.blake2b(str(value).encode("utf-8", "surrogateescape"), digest_size=8).digest()
            codes[value] = int.from_bytes(digest, "little", signed=True)
    return np.array([codes[value] for value in values], np.int64)


def groups_of_files(wanted: str, files: Sequence[str], classes: Collection[str] = ()) -> list[str]:
    """The group of each file, from its path below the data's folder.

    Args:
        wanted: `folder`, the name of the folder that holds it; or a regular expression whose parentheses hold it, for
            any part of the path.
        classes: the folders at the top that are classes; a file directly in one of them is in no folder of its own.

    Raises:
        WrongColumn: the path of a file says no group.
    """
    found = []
    for file in files:
        if wanted == FOLDER:
            above = file.split("/")[:-1]
            if len(above) <= (1 if classes else 0):
                what = f"{file} lies in no folder of its own below its class; allowed: a regular expression"
                raise WrongColumn("data.group", f"{what} for the file's path, such as '([^/_]+)_[^/]*$'")
            found.append(above[-1])
            continue
        match = re.search(wanted, file)
        if not match or not match[1]:
            raise WrongColumn("data.group", f"{show(wanted)} finds no group in {file}; allowed: what fits every path")
        found.append(match[1])
    return found


def split_folders(root: str, folders: Mapping[str, Folder], classes: Sequence[str] = ()) -> dict[str, str]:
    """The folder of each split; empty where the folders are classes.

    Args:
        root: the data set, for messages.
        folders: those at the top that contain data, by name.
        classes: the names that a job asks for. A split's name among them says that the folders are classes.

    Raises:
        Unclear: some seem to be splits and others not, two are the same split, or the training rows are missing.
    """
    named = {name: split for name in folders if (split := split_of(name))}
    others = sorted(name for name in folders if name not in named)
    if not named or any(name in named for name in classes):
        _refuse_hidden_splits(root, folders, classes)
        return {}
    if others and len(named) == 1 and all(folder.loose for folder in folders.values()):
        return {}  # a class that is called as a split is: photographs of buses, cars and trains
    if others:
        what = f'"{root}" has folders that are named as splits, {shown(named)}, and others with data, {shown(others)}'
        raise Unclear(
            f"{what}; allowed: {_as_splits(root, folders)}; or, if all of them are classes, {_as_classes(folders)}"
        )
    if len(set(named.values())) < len(named):
        twice = shown(name for name in named if list(named.values()).count(named[name]) > 1)
        raise Unclear(f'"{root}" has several folders for one split, {twice}; allowed: {_as_splits(root, folders)}')
    if "train" not in named.values():
        if len(named) == 1:
            return {}  # one folder: nothing is mixed, and what is in it decides
        raise Unclear(f'"{root}" has {shown(named)}, and no folder train; allowed: {_as_splits(root, folders)}')
    return {split: name for name, split in named.items()}


def _refuse_hidden_splits(root: str, folders: Mapping[str, Folder], classes: Sequence[str]) -> None:
    """Raises Unclear for `train_set/{cat,dog}` beside `test_set/{cat,dog}`: as classes, they would hold the same."""
    alike = [
        name
        for name, folder in folders.items()
        if not folder.loose and any(split_of(word) for word in re.split(r"[^a-z]+|sets?(?![a-z])", name.lower()))
    ]
    if classes or len(alike) < 2 or not set.intersection(*(set(folders[name].inside) for name in alike)):
        return
    what = f'"{root}" has folders that are named as splits and have the same folders in them, {shown(alike)}'
    raise Unclear(f"{what}; allowed: {_as_splits(root, folders)}; or, if they are classes, {_as_classes(folders)}")


def _as_splits(root: str, folders: Mapping[str, Folder]) -> str:
    """What to type for splits: a path for each."""
    found: dict[str, str] = {}
    for name in sorted(folders):
        words = [split for word in re.split(r"[^a-z]+|sets?(?![a-z])", name.lower()) if (split := split_of(word))]
        if words:
            found.setdefault(words[0], name)
    base = root.rstrip("/")
    paths: dict[str, str] = {
        "path": found.get("train", "FOLDER"),
        **{split: found[split] for split in ("validation", "test") if split in found},
    }
    return "data: {" + ", ".join(f"{field}: {base}/{name}" for field, name in paths.items()) + "}"


def _as_classes(folders: Mapping[str, Folder]) -> str:
    return f"data.classes: [{', '.join(sorted(folders))}]"
