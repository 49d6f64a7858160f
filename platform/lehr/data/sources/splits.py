"""Which of the folders of a data set are its splits; what is neither a split nor a class is told or refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lehr.data.sources.listing import shown

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
