"""The working folder of a job as one zip file: the user's own modules, without what is ignored, recorded or large.

Pure functions of a folder's content: the same files give the same package, which a cluster that has it need not get
again.
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

LIMIT = (
    100 * 2**20
)  # bytes: what Ray's dashboard takes in one request (DASHBOARD_CLIENT_MAX_SIZE), whatever its manual says
DATA_LIMIT = 20 * 2**20  # bytes of the job's own data that travel with it
IGNORE_FILES = (".gitignore", ".rayignore")
NEVER = (
    ".git", ".hg", ".svn", "__pycache__", ".venv", "node_modules", ".ipynb_checkpoints",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox",
)  # fmt: skip


@dataclass(frozen=True)
class Package:
    """The files of a working folder that go to a cluster.

    Attributes:
        root: the folder.
        files: paths relative to it, sorted, with `/`.
        sizes: bytes of each.
        digest: 32 hex digits of names, modes and contents.
    """

    root: Path
    files: tuple[str, ...]
    sizes: tuple[int, ...]
    digest: str

    @property
    def nbytes(self) -> int:
        """Bytes of all files before they are packed."""
        return sum(self.sizes)

    @property
    def name(self) -> str:
        """The name Ray keeps it under."""
        return f"_ray_pkg_{self.digest}.zip"

    def zip(self, inside: str = "") -> bytes:
        """The package itself, its files in a folder `inside`. Raises LehrError when it is larger than a cluster takes.

        The same files give the same bytes.
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
        largest = sorted(zip(self.sizes, self.files, strict=True), reverse=True)[:5]
        named = ", ".join(f"{name} ({in_mib(size)})" for size, name in largest)
        return (
            f"{self.root} is too large for a cluster ({in_mib(self.nbytes)}, packed more than {in_mib(LIMIT)}); the "
            f"largest files are {named}; name what the job does not need in .gitignore or .rayignore"
        )


def in_mib(count: int) -> str:
    """`3.2 MiB`, or `14 KiB` for less."""
    return f"{count / 2**20:.3g} MiB" if count >= 2**20 else f"{max(1, round(count / 1024))} KiB"


def package(root: Path, *, without: Collection[Path] = (), data: Collection[Path] = (), suffix: str = "") -> Package:
    """The files of `root` that go to a cluster.

    Left out are what `.gitignore` and `.rayignore` name, version control, caches, virtual environments, run folders,
    and the files and folders `without`. The job's own `data`, files or folders in `root`, go along, ignored or not,
    where they are small; otherwise they stay, and must be where the cluster reaches them. With a `suffix`, only files
    that end so.

    Raises:
        LehrError: `root` is no folder, or a file in it cannot be read.
    """
    if not root.is_dir():
        raise LehrError(f"{root} is not a folder; the working folder of a job is one")
    theirs = [path for path in data if path.is_relative_to(root) and path != root]
    found = {path: path.stat().st_size for path in _walk(root, [*without, *theirs]) if path.name.endswith(suffix)}
    files = {path: path.stat().st_size for each in theirs for path in _files(each)}
    if sum(files.values()) <= DATA_LIMIT:
        found |= files
    by_name = sorted((path.relative_to(root).as_posix(), size) for path, size in found.items())
    digest = hashlib.sha256()
    for name, size in by_name:
        mode = "x" if os.access(root / name, os.X_OK) else "-"
        digest.update(f"{name}\0{mode}\0{size}\0".encode())
        try:
            with open(root / name, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise LehrError(f"{root / name}: cannot be read: {error.strerror}; name it in .rayignore") from None
    return Package(
        root, tuple(name for name, _ in by_name), tuple(size for _, size in by_name), digest.hexdigest()[:32]
    )


def _walk(root: Path, without: Collection[Path]) -> Iterator[Path]:
    out = {path.resolve() for path in without}

    def visit(folder: Path, specs: list[tuple[Path, GitIgnoreSpec]], above: tuple[Path, ...]) -> Iterator[Path]:
        real = folder.resolve()
        if real in above:
            return  # a circle of links
        specs = specs + _specs(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.name in NEVER or path.resolve() in out or _ignored(path, entry.is_dir(), specs):
                continue
            if entry.is_dir():
                if not (path / "pyvenv.cfg").exists() and not _is_run(path):
                    yield from visit(path, specs, (*above, real))
            elif entry.is_file():  # neither sockets nor links to nowhere
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
    """As git decides: the deepest file that says anything about the path has the last word."""
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
