"""What is in a working folder: the files that may travel with their sizes, and what is left out, each with a reason.

Nothing is read but ignore files and the first bytes of files that may be run folders, so that a folder with a terabyte
in it is judged as quickly as a small one.
"""

from __future__ import annotations

import ntpath
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pathspec import GitIgnoreSpec

from lehr.errors import LehrError
from lehr.submission.private_files import private_file, private_folder

MOST_FILES = 20_000
"""Files and folders of a package."""
DEEPEST = 100
"""Folders inside each other."""
LARGEST_IGNORE_FILE = 2**20
"""Bytes."""
IGNORE_FILES = (".gitignore", ".rayignore")
VERSION_CONTROL = (".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS")
CACHES = (
    "__pycache__", ".venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache",
    ".hypothesis", ".tox", ".nox", ".cache", ".eggs", ".terraform",
)  # fmt: skip

Kind = Literal["secret", "outside", "odd", "data", "quiet"]


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that does not travel.

    Attributes:
        name: relative to the working folder, with `/`; that of a folder ends with one.
        kind: `secret`; `outside` for a link that leads out of the folder; `odd` for what no package can hold; `data`
            that are too large; `quiet` for what a user expects to stay.
        why: the reason, in a few words.
    """

    name: str
    kind: Kind
    why: str


@dataclass
class Survey:
    """The files of a working folder, found by `survey`.

    Attributes:
        files: bytes of each file, by its name relative to the folder.
        left_out: everything else, in the order in which it was found.
    """

    files: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(self.files.values())


class TooManyFiles(Exception):
    """The survey was given up; what was found so far is in `survey`."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey


def survey(
    root: Path, start: Path | None = None, *, skip: Mapping[Path, str] | None = None, named: bool = False
) -> Survey:
    """Looks through the folder `root`, or through the file or folder `start` in it, where ignore files do not count.

    Args:
        skip: files and folders to leave out, each with the reason; those without one are not even listed.
        named: the user named `start`: nothing in it is left out but what no package can hold.

    Raises:
        TooManyFiles: there are more than `MOST_FILES`.
        LehrError: an ignore file cannot be read.
    """
    away = {os.path.realpath(path): why for path, why in (skip or {}).items()}
    walk = _Walk(os.path.realpath(root), away, named, whole=start is None)
    if start is None:
        walk.folder(os.fspath(root), "", walk.root, [], ())
    else:
        parent = start.parent.relative_to(root).as_posix()
        walk.entry(os.fspath(start), "" if parent == "." else f"{parent}/", os.path.realpath(start.parent), [], ())
    return walk.found


def shown(name: str) -> str:
    """A file name on one line, whatever bytes it is made of."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


Specs = list[tuple[str, GitIgnoreSpec]]  # each with the folder of its ignore file, as a prefix of names


@dataclass
class _Walk:
    root: str  # real
    skip: dict[str, str]
    named: bool
    whole: bool
    found: Survey = field(default_factory=Survey)
    count: int = 0

    def folder(self, path: str, prefix: str, real: str, specs: Specs, above: tuple[str, ...]) -> None:
        """Everything in a folder. `real` is its path without links, `above` those of the folders around it."""
        if len(above) > DEEPEST:
            self.leave(prefix, "odd", f"deeper than {DEEPEST} folders")
            return
        try:
            entries = sorted(os.listdir(path))
        except OSError as error:
            self.leave(prefix or "./", "odd", f"cannot be read: {error.strerror}")
            return
        if self.whole:
            specs = [*specs, *_specs(path, prefix)]
        for name in entries:
            self.entry(os.path.join(path, name), prefix, real, specs, (*above, real))

    def entry(self, path: str, prefix: str, parent: str, specs: Specs, above: tuple[str, ...]) -> None:
        """One file or folder; `parent` is the real path of its folder."""
        name = f"{prefix}{os.path.basename(path)}"
        try:
            about = os.lstat(path)
            is_link = stat.S_ISLNK(about.st_mode)
            real = os.path.realpath(path) if is_link else os.path.join(parent, os.path.basename(path))
            if is_link and os.path.exists(path):
                about = os.stat(path)
        except OSError as error:
            self.leave(name, "odd", f"cannot be read: {error.strerror}")
            return
        is_folder = stat.S_ISDIR(about.st_mode)
        known = self.skip.get(real)
        left_out: tuple[Kind, str] | None = ("quiet", known) if known else self.judge(name, real, about.st_mode, specs)
        if known == "":
            return
        if left_out:
            self.leave(f"{name}/" if is_folder else name, *left_out)
        elif is_folder:
            if real not in above:  # else a loop of links
                self.counted()
                self.folder(path, f"{name}/", real, specs, above)
        else:
            self.counted()
            self.found.files[name] = about.st_size

    def judge(self, name: str, real: str, mode: int, specs: Specs) -> tuple[Kind, str] | None:
        """Why a file or folder is left out; None if it travels."""
        is_folder = stat.S_ISDIR(mode)
        if why := _cannot_travel(name):
            return "odd", why
        if stat.S_ISLNK(mode):
            return "quiet", "a link to nowhere"
        if not is_folder and not stat.S_ISREG(mode):
            return "odd", "a FIFO, a socket or a device"
        if self.named:
            return None
        if quiet := _never(os.path.basename(name)):
            return "quiet", quiet
        if _ignored(name, is_folder, specs):
            return "quiet", "ignored by .gitignore or .rayignore"
        names = [name] if self.whole else _with_parents(name)
        if real != os.path.join(self.root, name):  # a link, or behind one: as secret as what it leads to
            inside = os.path.relpath(real, self.root)
            if inside == ".." or inside.startswith("../"):
                return "outside", real
            if quiet := next(filter(None, map(_never, inside.split("/"))), ""):
                return "quiet", quiet
            names += _with_parents(inside)
        if is_folder and (os.path.exists(f"{real}/pyvenv.cfg") or os.path.isdir(f"{real}/conda-meta")):
            return "quiet", "a virtual environment"
        if is_folder and _is_run(real):
            return "quiet", "a run folder"
        why = _private(names, is_folder)
        return ("secret", why) if why else None

    def leave(self, name: str, kind: Kind, why: str) -> None:
        self.found.left_out.append(LeftOut(name, kind, why))

    def counted(self) -> None:
        self.count += 1
        if self.count > MOST_FILES:
            raise TooManyFiles(self.found)


def _cannot_travel(name: str) -> str:
    """Why a zip file, as Ray unpacks it, cannot hold a file of this name; empty where it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if not name.isprintable():
        return "its name holds control characters"
    return "Ray unpacks no such name" if "\\" in name or ntpath.splitdrive(name)[0] else ""


def _never(name: str) -> str:
    if name in VERSION_CONTROL:
        return "version control"
    return "a cache" if name in CACHES else ""


def _private(names: list[str], is_folder: bool) -> str:
    judged = (private_folder(name) or ("" if is_folder else private_file(name)) for name in names)
    return next(filter(None, judged), "")


def _with_parents(name: str) -> list[str]:
    """`a/b/c` as `a`, `a/b`, `a/b/c`."""
    parts = name.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _specs(path: str, prefix: str) -> Iterator[tuple[str, GitIgnoreSpec]]:
    for name in IGNORE_FILES:
        file = Path(path, name)
        if file.is_file():
            try:
                if file.stat().st_size > LARGEST_IGNORE_FILE:
                    raise ValueError("it is larger than 1 MiB")
                lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
                yield prefix, GitIgnoreSpec.from_lines(lines)
            except (OSError, ValueError) as error:
                raise LehrError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _ignored(name: str, is_folder: bool, specs: Specs) -> bool:
    """As git decides: the deepest ignore file that matches the path has the last word."""
    for prefix, spec in reversed(specs):
        verdict = spec.check_file(name.removeprefix(prefix) + ("/" if is_folder else "")).include
        if verdict is not None:
            return verdict
    return False


def _is_run(folder: str) -> bool:
    try:
        with open(os.open(f"{folder}/job.yaml", os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(8) == b"format: "
    except OSError:
        return False
