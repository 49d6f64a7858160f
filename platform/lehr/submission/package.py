"""The working folder of a job as one zip file: the user's own modules, but no secrets, ignored files or large data.

The one door through which files go to a cluster. The same files give the same package, which is sent only once.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lehr.errors import JobError, LehrError
from lehr.submission.private_files import HEAD, private_content
from lehr.submission.survey import MOST_FILES, Kind, LeftOut, Survey, TooManyFiles, shown, survey

LIMIT = 100 * 2**20
"""Bytes that Ray's dashboard accepts in one request (DASHBOARD_CLIENT_MAX_SIZE; its manual names another number)."""
UNPACKED_LIMIT = 5 * LIMIT
"""Bytes of all files before compression: more are refused before any is read."""
DATA_LIMIT = 20 * 2**20
"""Bytes of the job's own data that are sent with it."""
MOST_SHOWN = 8
_CHUNK = 2**20
_TOO_MANY = f"more than {MOST_FILES:,} files"
_FORMAT = b"3"  # part of the digest: a new way to pack makes new packages


@dataclass(frozen=True)
class PackedFile:
    """A file of a package: its name relative to the folder (with `/`), its bytes, their SHA-256, and its kind."""

    name: str
    size: int
    digest: bytes
    executable: bool


@dataclass(frozen=True)
class Package:
    """The files of a working folder that are sent to a cluster.

    Attributes:
        root: the folder.
        packed: the files, sorted by name.
        left_out: what stays here, each with the reason.
    """

    root: Path
    packed: tuple[PackedFile, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files."""
        return tuple(each.name for each in self.packed)

    @property
    def nbytes(self) -> int:
        """Bytes of all files before compression."""
        return sum(each.size for each in self.packed)

    @cached_property
    def digest(self) -> str:
        """32 hex digits over names, modes and contents."""
        digest = hashlib.sha256(_FORMAT)
        for each in self.packed:
            digest.update(f"{each.name}\0{'x' if each.executable else '-'}\0{each.size}\0".encode())
            digest.update(each.digest)
        return digest.hexdigest()[:32]

    @property
    def name(self) -> str:
        """The name under which Ray keeps it."""
        return f"_ray_pkg_{self.digest}.zip"

    @property
    def summary(self) -> str:
        """`3 files, 12 KiB, from /home/me/project`."""
        count = len(self.packed)
        return f"{count} file{'' if count == 1 else 's'}, {format_bytes(self.nbytes)}, from {shown(str(self.root))}"

    def zip(self, inside: str = "") -> bytes:
        """The zip file, with all files in a folder `inside`. The same files give the same bytes.

        Unpacked, the files are readable for their owner only.

        Raises:
            LehrError: it is larger than a cluster accepts, or a file has changed.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for each in self.packed:
                entry = zipfile.ZipInfo(f"{inside}{each.name}", (1980, 1, 1, 0, 0, 0))
                entry.external_attr = (0o100700 if each.executable else 0o100600) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, self._content(each))
                if buffer.tell() >= LIMIT:
                    raise LehrError(self.too_large())
        if buffer.tell() >= LIMIT:
            raise LehrError(self.too_large())
        return buffer.getvalue()

    def _content(self, file: PackedFile) -> bytes:
        """What a file held when the package was made; what was appended since is left out."""
        try:
            content = b"".join(_pieces(self.root / file.name, file.size))
        except OSError:
            content = b""
        if hashlib.sha256(content).digest() != file.digest:
            raise LehrError(
                f"{self.root / file.name} changed while it was packed; submit again once nothing writes to it, or list "
                "it in .rayignore"
            )
        return content

    def too_large(self) -> str:
        """The sentence that refuses a package of this size."""
        how = f"{format_bytes(self.nbytes)}, compressed more than {format_bytes(LIMIT)}"
        return _too_large(self.root, how, {each.name: each.size for each in self.packed})

    def told(self) -> list[str]:
        """One sentence for each kind of things that are left out and that the user may have expected to travel."""
        sentences: list[str] = []
        for kind, why in WHY_TOLD.items():
            names = [_with_reason(each) for each in self.left_out if each.kind == kind]
            if names:
                more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
                sentences.append(f"left out, since they {why[0]}: {', '.join(names[:MOST_SHOWN])}{more}{why[1]}")
        return sentences

    def listing(self) -> list[str]:
        """Every file with its size, and everything that is left out with the reason."""
        lines = [f"{format_bytes(each.size):>10}  {each.name}" for each in self.packed]
        lines.append(self.summary)
        if self.left_out:
            width = min(40, max(len(shown(each.name)) for each in self.left_out))
            lines.append("left out:")
            lines += [f"  {shown(each.name):<{width}}  {_REASON[each.kind]}{shown(each.why)}" for each in self.left_out]
        return lines


WHY_TOLD: Mapping[Kind, tuple[str, str]] = {
    "secret": ("look like secrets", "; what the job needs must be named: --include PATH"),
    "outside": ("lead out of the folder", "; what the job needs must be named: --include PATH"),
    "odd": ("cannot travel", ""),
    "data": (
        f"are data of more than {DATA_LIMIT >> 20} MiB",
        "; put them on storage that the cluster reaches (s3://…, gs://…, a shared file system)",
    ),
}
"""Why things of each kind are left out, and what to do about it."""
_REASON: Mapping[Kind, str] = {
    "secret": "looks like a secret: ",
    "outside": "leads out of the folder: to ",
    "odd": "cannot travel: ",
    "data": "data of the job: ",
    "quiet": "",
}


def format_bytes(count: int) -> str:
    """`3.2 MiB`, or `14 KiB` below one MiB, or `50 GiB`."""
    if count >= 2**30:
        return f"{count / 2**30:.3g} GiB"
    return f"{count / 2**20:.3g} MiB" if count >= 2**20 else f"{max(1, round(count / 1024))} KiB"


def package(
    root: Path,
    *,
    without: Mapping[Path, str] | None = None,
    data: Collection[Path] = (),
    include: Collection[str] = (),
    suffix: str = "",
) -> Package:
    """The files of `root` that are sent to a cluster.

    Left out are files that `.gitignore` or `.rayignore` lists, version control, caches, virtual environments, run
    folders, what looks like a secret, links that lead out of `root`, and the files and folders `without`, each of which
    has a reason. The job's own `data` (files or folders in `root`) are included, even if they are ignored, but only if
    they are small; otherwise the cluster must reach them elsewhere. What `include` names, relative to `root`, is
    included whatever it is. With a `suffix`, only other files that end with it are included.

    Sizes are judged before any file is read.

    Raises:
        JobError: `include` names what is not there.
        LehrError: `root` is not a folder or too large, or an ignore file in it cannot be read.
    """
    if not root.is_dir():
        raise LehrError(f"{root} is not a folder, so it cannot be the working folder of a job")
    named = [_included(root, name) for name in include]
    inside = [path for path in data if path.is_relative_to(root) and path != root and path not in named]
    later = dict.fromkeys((*named, *inside), "")
    try:
        found = survey(root, skip={**(without or {}), **later})
        if suffix:
            found.files = {name: size for name, size in found.files.items() if name.endswith(suffix)}
            found.left_out = [each for each in found.left_out if each.name.endswith(suffix)]
        for path in inside:
            _add_data(found, root, path, dict.fromkeys(named, ""))
        whole: set[str] = set()
        for path in named:
            asked = survey(root, path, named=True)
            found.files |= asked.files
            found.left_out += asked.left_out
            whole |= asked.files.keys()
    except TooManyFiles as stopped:
        raise LehrError(_too_large(root, _TOO_MANY, dict.fromkeys(stopped.survey.files, 1), _count)) from None
    if found.nbytes > UNPACKED_LIMIT:
        raise LehrError(_too_large(root, format_bytes(found.nbytes), found.files))
    return _read(root, found, whole)


def include_names(root: Path, given: Collection[Path]) -> tuple[str, ...]:
    """What a user asks to include, relative to the working folder.

    Raises:
        JobError: a path is not in that folder, or there is nothing.
    """
    names = []
    for path in given:
        whole = Path(os.path.normpath(Path.cwd() / path.expanduser()))
        if not whole.is_relative_to(root) or whole == root:
            raise JobError(f"{path} is not in {root}, the folder that is uploaded", field="--include")
        names.append(whole.relative_to(root).as_posix())
        _included(root, names[-1])
    return tuple(names)


def _included(root: Path, name: str) -> Path:
    if not os.path.exists(root / name):
        raise JobError(f"{shown(name)} is not in {root}, so it cannot be uploaded", field="--include")
    return root / name


def _add_data(found: Survey, root: Path, path: Path, named: Mapping[Path, str]) -> None:
    """Adds a file or folder that the job names as its data, if it is small."""
    name = path.relative_to(root).as_posix()
    try:
        own = survey(root, path, skip=named)
        size, how = own.nbytes, format_bytes(own.nbytes)
    except TooManyFiles as stopped:
        own, size, how = stopped.survey, DATA_LIMIT + 1, _TOO_MANY
    if size > DATA_LIMIT:
        found.left_out.append(LeftOut(f"{name}/" if path.is_dir() else name, "data", how))
    else:
        found.files |= own.files
        found.left_out += own.left_out


def _read(root: Path, found: Survey, whole: Collection[str]) -> Package:
    """The package of the files found: reads each once. Those in `whole` are not looked into for secrets."""
    packed, left_out = [], list(found.left_out)
    for name, size in sorted(found.files.items()):
        digest, head, length = hashlib.sha256(), b"", 0
        try:
            executable = bool(os.stat(root / name).st_mode & 0o111)
            for piece in _pieces(root / name, size):
                head, length = head or piece[:HEAD], length + len(piece)
                digest.update(piece)
        except OSError as error:
            left_out.append(LeftOut(name, "odd", f"cannot be read: {error.strerror}"))
            continue
        if name not in whole and (why := private_content(name, head)):
            left_out.append(LeftOut(name, "secret", why))
            continue
        packed.append(PackedFile(name, length, digest.digest(), executable))
    return Package(root, tuple(packed), tuple(left_out))


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file. Never waits, whatever has taken its place since it was found."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no longer a file")
        while size > 0 and (piece := file.read(min(size, _CHUNK))):
            size -= len(piece)
            yield piece


def _with_reason(each: LeftOut) -> str:
    reasons = {"outside": f" (to {shown(each.why)})", "secret": ""}
    return shown(each.name) + reasons.get(each.kind, f" ({shown(each.why)})")


def _count(files: int) -> str:
    return f"{files:,} files"


def _too_large(root: Path, how: str, sizes: Mapping[str, int], format_size: Callable[[int], str] = format_bytes) -> str:
    named = ", ".join(f"{shown(name)} ({format_size(size)})" for name, size in _largest(sizes)[:5])
    return (
        f"{root} is too large for a cluster ({how}); the largest entries are {named}; list what the job does not need "
        "in .gitignore or .rayignore; large data belong on s3://…, gs://… or a shared file system"
    )


def _largest(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    """The entries of a folder by size; where one folder has nearly all of it, that folder and its entries."""
    inside: str = ""
    around: list[tuple[str, int]] = []
    while True:
        entries: Counter[str] = Counter()
        for name, size in sizes.items():
            if name.startswith(inside):
                first, slash, _ = name.removeprefix(inside).partition("/")
                entries[f"{inside}{first}{slash}"] += size
        ordered = entries.most_common()
        if not ordered or not ordered[0][0].endswith("/") or ordered[0][1] < 0.9 * sum(entries.values()):
            return around + ordered
        inside, around = ordered[0][0], ordered[:1]
