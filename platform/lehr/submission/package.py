"""The working folder of a job as one zip file: the user's own modules, but no ignored files, run folders or large data.

Pure functions of a folder's content: the same files give the same package, which is sent to a cluster only once.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from lehr.errors import LehrError

LIMIT = 100 * 2**20
"""Bytes that Ray's dashboard accepts in one request (DASHBOARD_CLIENT_MAX_SIZE; its manual names another number)."""
DATA_LIMIT = 20 * 2**20
"""Bytes of the job's own data that are sent with it."""
IGNORE_FILES = (".gitignore", ".rayignore")
ALWAYS_IGNORED = (
    ".git", ".hg", ".svn", "__pycache__", ".venv", "node_modules", ".ipynb_checkpoints",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox",
)  # fmt: skip


@dataclass(frozen=True)
class Package:
    """The files of a working folder that are sent to a cluster.

    Attributes:
        root: the folder.
        files: paths relative to it, sorted, with `/`.
        sizes: bytes of each.
        digest: 32 hex digits over names, modes and contents.
    """

    root: Path
    files: tuple[str, ...]
    sizes: tuple[int, ...]
    digest: str

    @property
    def nbytes(self) -> int:
        """Bytes of all files before compression."""
        return sum(self.sizes)

    @property
    def name(self) -> str:
        """The name under which Ray keeps it."""
        return f"_ray_pkg_{self.digest}.zip"

    def zip(self, inside: str = "") -> bytes:
        """The zip file, with all files in a folder `inside`. The same files give the same bytes.

        Raises:
            LehrError: it is larger than a cluster accepts.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in self.files:
                path = self.root / name
                entry = zipfile.ZipInfo(f"{inside}{name}", (1980, 1, 1, 0, 0, 0))
                entry.external_attr = (0o100755 if os.access(path, os.X_OK) else 0o100644) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
                if buffer.tell() >= LIMIT:
                    raise LehrError(self.too_large())
        if buffer.tell() >= LIMIT:
            raise LehrError(self.too_large())
        return buffer.getvalue()

    def too_large(self) -> str:
        """The sentence that refuses a package of this size."""
        largest = sorted(zip(self.sizes, self.files, strict=True), reverse=True)[:5]
        named = ", ".join(f"{name} ({format_bytes(size)})" for size, name in largest)
        return (
            f"{self.root} is too large for a cluster ({format_bytes(self.nbytes)}, compressed more than "
            f"{format_bytes(LIMIT)}); the largest files are {named}; list what the job does not need in .gitignore or "
            ".rayignore"
        )


def format_bytes(count: int) -> str:
    """`3.2 MiB`, or `14 KiB` below one MiB."""
    return f"{count / 2**20:.3g} MiB" if count >= 2**20 else f"{max(1, round(count / 1024))} KiB"


def package(root: Path, *, without: Collection[Path] = (), data: Collection[Path] = (), suffix: str = "") -> Package:
    """The files of `root` that are sent to a cluster.

    Left out are files that `.gitignore` or `.rayignore` lists, version control, caches, virtual environments, run
    folders, and the files and folders `without`. The job's own `data` (files or folders in `root`) are included, even
    if they are ignored, but only if they are small; otherwise the cluster must reach them elsewhere. With a `suffix`,
    only files that end with it are included.

    Raises:
        LehrError: `root` is not a folder, or a file in it cannot be read.
    """
    if not root.is_dir():
        raise LehrError(f"{root} is not a folder, so it cannot be the working folder of a job")
    inside = [path for path in data if path.is_relative_to(root) and path != root]
    found = {path: path.stat().st_size for path in _walk(root, [*without, *inside]) if path.name.endswith(suffix)}
    data_files = {path: path.stat().st_size for each in inside for path in _files(each)}
    if sum(data_files.values()) <= DATA_LIMIT:
        found |= data_files
    by_name = sorted((path.relative_to(root).as_posix(), size) for path, size in found.items())
    digest = hashlib.sha256()
    for name, size in by_name:
        mode = "x" if os.access(root / name, os.X_OK) else "-"
        digest.update(f"{name}\0{mode}\0{size}\0".encode())
        try:
            with open(root / name, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise LehrError(f"{root / name}: cannot be read: {error.strerror}; list it in .rayignore") from None
    return Package(
        root, tuple(name for name, _ in by_name), tuple(size for _, size in by_name), digest.hexdigest()[:32]
    )


def _walk(root: Path, without: Collection[Path]) -> Iterator[Path]:
    left_out = {path.resolve() for path in without}

    def visit(folder: Path, specs: list[tuple[Path, GitIgnoreSpec]], above: tuple[Path, ...]) -> Iterator[Path]:
        real = folder.resolve()
        if real in above:
            return  # a cycle of links
        specs = specs + _specs(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.name in ALWAYS_IGNORED or path.resolve() in left_out or _ignored(path, entry.is_dir(), specs):
                continue
            if entry.is_dir():
                if not (path / "pyvenv.cfg").exists() and not _is_run(path):
                    yield from visit(path, specs, (*above, real))
            elif entry.is_file():  # neither a socket nor a broken link
                yield path

    yield from visit(root, [], ())


def _specs(folder: Path) -> list[tuple[Path, GitIgnoreSpec]]:
    found = []
    for name in IGNORE_FILES:
        path = folder / name
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found.append((folder, GitIgnoreSpec.from_lines(lines)))
    return found


def _ignored(path: Path, is_folder: bool, specs: list[tuple[Path, GitIgnoreSpec]]) -> bool:
    """As git decides: the deepest ignore file that matches the path has the last word."""
    for folder, spec in reversed(specs):
        verdict = spec.check_file(path.relative_to(folder).as_posix() + ("/" if is_folder else "")).include
        if verdict is not None:
            return verdict
    return False


def _is_run(folder: Path) -> bool:
    job = folder / "job.yaml"
    try:
        with job.open("rb") as file:
            return file.read(8) == b"format: "
    except OSError:
        return False


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
