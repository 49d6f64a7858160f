"""The files of a data set that has several: those of a folder or a pattern, and which split each belongs to.

A path may be a file, a folder, or a pattern: `train-*.parquet`, `{000..009}.tar`, `{train,test}.tar`. What begins with
`_` or a dot is not taken: Spark writes such files.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pyarrow.fs import FileType

from lehr.data.sources.base import ErrorFactory, file_system, join_path
from lehr.data.sources.listing import kind_of, list_folder, shown
from lehr.data.sources.splits import split_of
from lehr.paths import packaged_path

MOST_FILES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class Shards:
    """The files of a data set.

    Attributes:
        splits: by split, its name in messages and the paths of its files in order. There always is `train`.
        notes: what is left out, one sentence each.
    """

    splits: dict[str, tuple[str, list[str]]]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> str:
        """The path of the first file to train on."""
        return self.splits["train"][1][0]


def find_shards(
    path: str,
    endings: Collection[str],
    field: str,
    job_error: ErrorFactory,
    taken: Callable[[str], bool] = lambda name: True,
) -> Shards:
    """The files at a path. A file that is named outright may have any ending.

    Args:
        taken: whether a file of a folder is one of the data, by its name below it.

    Raises:
        JobError: there are none, or which split each belongs to is unclear.
    """
    try:
        if is_pattern(path):
            root, names = _matching(path)
            if not names:
                raise job_error(field, f'no file matches "{path}"')
            return Shards(_splits(root, names, field, job_error))
        filesystem, inner = file_system(path)
        kind = filesystem.get_file_info(inner).type
        if kind == FileType.NotFound:
            raise job_error(field, f'"{path}" does not exist')
        if kind == FileType.File:
            return Shards({"train": (path, [path])})
        listing = list_folder(filesystem, inner)
    except (OSError, ValueError) as error:
        raise job_error(field, f"cannot be read: {str(error).splitlines()[0]}") from error
    listing.files = [name for name in listing.files if not any(part.startswith("_") for part in name.split("/"))]
    names = sorted(name for name in listing.files if kind_of(name) in endings)
    names = list(filter(taken, names))
    notes = listing.notes(path, set(names).__contains__)
    if not names:
        what = f'"{path}" contains no {", ".join(endings)} file'
        raise job_error(field, what + "".join(f"; {note}" for note in notes))
    return Shards(_splits(path, names, field, job_error), notes)


def _splits(root: str, names: Sequence[str], field: str, job_error: ErrorFactory) -> dict[str, tuple[str, list[str]]]:
    found = splits_of_files(root, names, field, job_error)
    return {
        split: (join_path(root, name), [join_path(root, each) for each in files])
        for split, (name, files) in found.items()
    }


def splits_of_files(
    root: str, names: Sequence[str], field: str, job_error: ErrorFactory
) -> dict[str, tuple[str, list[str]]]:
    """By split: its name, and its files. It is a folder, the first in which files differ, or else how names of files
    begin (`train-00000-…`).

    Files of a single split, or of none, are all for training. Raises JobError for a mixture.
    """
    above = os.path.commonpath([os.path.dirname(name) for name in names]) if names else ""
    start = len(above) + 1 if above else 0
    folders = any("/" in name[start:] for name in names)
    files: dict[str, list[str]] = defaultdict(list)
    for name in names:
        top = name[start:].split("/")[0]
        files[top if "/" in name[start:] else "" if folders else re.split(r"[^A-Za-z]", top)[0]].append(name)
    named = {name: split for name in files if (split := split_of(name))}
    if not named or len(files) == 1:
        return {"train": ("", list(names))}
    if len(named) == len(files) == len(set(named.values())) and "train" in named.values():
        return {split: (name, files[name]) for name, split in named.items()}
    others = shown(name or "files in no folder" for name in files if name not in named)
    kind = (kind_of(names[0]).removeprefix(".") or "data").capitalize()
    what = f'"{root}" has {kind} files of the splits {shown(named)}' + (f" beside others ({others})" if others else "")
    allowed = "one folder for each of train, validation and test, and nothing else; or data.path, data.validation and "
    raise job_error(field, f"{what}; allowed: {allowed}data.test, each a folder or a file of {root}")


# ── patterns ────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_pattern(path: str) -> bool:
    """Whether a path names several files by a pattern. A file or folder whose name has such characters is itself."""
    if not re.search(r"[*?]|\[.+\]|\{.*\}", path):
        return False
    return "://" in path or not os.path.exists(packaged_path(path))


def _matching(path: str) -> tuple[str, list[str]]:
    """The folder of a pattern, and the files below it that match, in their order; each once.

    `*` and `?` stay within a folder; `**` is any number of folders.
    """
    parts = path.split("/")
    at = next(number for number, part in enumerate(parts) if re.search(r"[*?\[{]", part))
    root = "/".join(parts[:at]) or ("/" if path.startswith("/") else ".")
    filesystem, inner = file_system(root)
    if filesystem.get_file_info(inner).type != FileType.Directory and "://" not in root:
        return root, []
    there = list_folder(filesystem, inner).files
    found: dict[str, None] = {}
    for each in _braces("/".join(parts[at:])):
        match = re.compile(_as_regex(each)).fullmatch
        found |= dict.fromkeys(sorted(name for name in there if match(name)))
    return root, list(found)


def _as_regex(pattern: str) -> str:
    folders = [r"(?:[^/]+/)*" if part == "**" else _within_folder(part) + "/" for part in pattern.split("/")]
    return "".join(folders).removesuffix("/")


def _within_folder(pattern: str) -> str:
    found = {"*": "[^/]*", "?": "[^/]"}
    pieces = re.findall(r"\[!?[^\]]+\]|.", pattern, re.DOTALL)
    sets = [each.replace("[!", "[^") if len(each) > 1 else re.escape(each) for each in pieces]
    return "".join(found.get(each, one) for each, one in zip(pieces, sets, strict=True))


def _braces(pattern: str) -> list[str]:
    """`{000..002}` and `{a,b}` as a shell has them. Raises ValueError for more than are sensible."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if between := _RANGE.fullmatch(match[1]):
        first, last = int(between[1]), int(between[2])
        if abs(last - first) >= MOST_FILES:
            raise ValueError(f"{match[0]} names {abs(last - first) + 1:,} files; allowed: {MOST_FILES:,}")
        width = len(between[1]) if between[1].startswith("0") or len(between[1]) == len(between[2]) else 0
        each = [f"{number:0{width}d}" for number in range(first, last + 1)]
    else:
        each = match[1].split(",")
    found = [pattern[: match.start()] + one + pattern[match.end() :] for one in each]
    return [whole for one in found for whole in _braces(one)]
