"""What lies below a folder, on a disk or an object store: each file once, whatever links lead to it.

Hidden entries, and folders that operating systems leave (`SYSTEM`), are not looked into. On a disk, links are followed
after everything that is there without them. Left out, and told, are links to a folder that is listed already or that
contains the one that is listed, and links to a file that is listed already.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from lehr.printing import one_line

SYSTEM = frozenset({"__MACOSX", "__pycache__", "@eaDir", "@tmp", "#recycle", "$RECYCLE.BIN", "lost+found"})
INSTALL = {".heic": "pip install pillow-heif", ".heif": "pip install pillow-heif"}
"""By a file's ending: what reads it once it is installed."""
MOST_SHOWN = 6  # kinds of files, or names, in a sentence


@dataclass
class Listing:
    """What lies below a folder. Names are relative to it, with `/` between their parts.

    Attributes:
        folders: those below it, in no particular order.
        files: the files, in no particular order.
        links: links that lead to what is listed already, or to what contains the folder.
        system: folders that an operating system left.
    """

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    system: list[str] = field(default_factory=list)

    def notes(self, root: str, taken: Callable[[str], bool]) -> tuple[str, ...]:
        """What a user should know: which files and links are left out, one sentence each.

        Args:
            taken: whether a file, by its name, is taken.
        """
        kinds = Counter(kind_of(name) for name in self.files if not taken(name))
        found = []
        if count := kinds.total():
            found.append(f"{count:,} file{'s' * (count > 1)} left out of {root}: {shown_kinds(kinds)}")
        if self.links:
            what = f"{len(self.links):,} link{'s' * (len(self.links) > 1)} left out of {root}"
            found.append(f"{what}, to what is listed already or contains it: {shown(self.links)}")
        if self.system:
            found.append(f"left out of {root}, as folders that an operating system made: {shown(self.system)}")
        return tuple(found)


def shown(names: Iterable[str]) -> str:
    """The first few names, sorted."""
    names = sorted(names)
    return ", ".join(map(one_line, names[:MOST_SHOWN])) + (", …" if len(names) > MOST_SHOWN else "")


def shown_kinds(kinds: Counter[str]) -> str:
    """`2 .txt, 1 .heic (pip install pillow-heif reads it)`."""
    each = [
        f"{count:,} {one_line(kind)}{f' ({INSTALL[kind]} reads it)' if kind in INSTALL else ''}"
        for kind, count in kinds.most_common(MOST_SHOWN)
    ]
    rest = len(kinds) - len(each)
    return ", ".join(each) + (f" and {rest} more kinds" if rest else "")


def kind_of(name: str) -> str:
    """The ending of a file's name in lower case, such as `.txt`; `without an ending`."""
    return os.path.splitext(name)[1].lower() or "without an ending"


_listed: ContextVar[dict[tuple[str, str], Listing] | None] = ContextVar("listed", default=None)


@contextmanager
def listed_once() -> Iterator[None]:
    """Within, each folder is listed once, however often it is asked for: a store with a million files takes minutes."""
    token = _listed.set({})
    try:
        yield
    finally:
        _listed.reset(token)


def list_folder(filesystem: FileSystem, folder: str) -> Listing:
    """Everything below a folder.

    Raises:
        OSError, ValueError: it cannot be listed, or holds a name that is no UTF-8; the sentence names it.
    """
    known, name = _listed.get(), (filesystem.type_name, folder.rstrip("/"))
    if known is None:
        return _list(filesystem, folder)
    if name not in known:
        known[name] = _list(filesystem, folder)
    return known[name]


def _list(filesystem: FileSystem, folder: str) -> Listing:
    if isinstance(filesystem, LocalFileSystem):
        return _Walk(folder).listing
    listing = Listing()
    for info in filesystem.get_file_info(FileSelector(folder, recursive=True)):
        name = info.path[len(folder) :].lstrip("/")
        parts = name.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if made := [number for number, part in enumerate(parts) if part in SYSTEM]:
            listing.system.append("/".join(parts[: made[0] + 1]))
        else:
            (listing.folders if info.type == FileType.Directory else listing.files).append(name)
    listing.system = sorted(set(listing.system))
    return listing


class _Walk:
    """A folder of a disk, listed: first what is there, then what links lead to, in the order of their names."""

    def __init__(self, root: str) -> None:
        self.root, self.listing = root, Listing()
        self.around = _around(root)
        self.seen: set[tuple[int, int]] = set()
        self.folder_links: list[str] = []
        self.file_links: list[str] = []
        self._enter("")
        while self.folder_links:
            links, self.folder_links = sorted(self.folder_links), []
            for name in links:
                self._follow(name)
        self._follow_files()

    def _enter(self, name: str) -> None:
        """Lists a folder and all below it, links set aside."""
        waiting = [name]
        while waiting:
            inside = waiting.pop()
            path = os.path.join(self.root, inside) if inside else self.root
            self.seen.add(_identity(path))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    below = f"{inside}/{entry.name}" if inside else entry.name
                    if any("\ud800" <= character <= "\udfff" for character in entry.name):
                        raise ValueError(
                            f"the name {one_line(below)} is not UTF-8; rename it, such as with: "
                            f"convmv -f latin1 -t utf8 -r --notest {self.root}"
                        )
                    if entry.is_symlink():
                        (self.folder_links if os.path.isdir(entry.path) else self.file_links).append(below)
                    elif not entry.is_dir():
                        self.listing.files.append(below)
                    elif entry.name in SYSTEM:
                        self.listing.system.append(below)
                    else:
                        self.listing.folders.append(below)
                        waiting.append(below)

    def _follow(self, name: str) -> None:
        """Lists what a link to a folder leads to, unless that is listed already."""
        found = _identity(os.path.join(self.root, name))
        if found in self.seen or found in self.around:
            self.listing.links.append(name)
        else:
            self.listing.folders.append(name)
            self._enter(name)

    def _follow_files(self) -> None:
        """Takes each file that a link leads to, unless it is listed already. A link to nothing stays, unreadable."""
        known: set[tuple[int, int]] = set()
        if self.file_links:
            known = {_identity(os.path.join(self.root, name)) for name in self.listing.files}
        for name in sorted(self.file_links):
            try:
                found = _identity(os.path.join(self.root, name))
            except OSError:
                self.listing.files.append(name)
                continue
            (self.listing.links if found in known else self.listing.files).append(name)
            known.add(found)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _around(root: str) -> set[tuple[int, int]]:
    """The folder and all that contain it."""
    path, found = os.path.realpath(root), set()
    while True:
        found.add(_identity(path))
        if (above := os.path.dirname(path)) == path:
            return found
        path = above
