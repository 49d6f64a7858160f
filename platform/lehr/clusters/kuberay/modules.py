"""The user's own modules as one archive in storage, from where Ray brings them to every pod."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lehr.errors import LehrError
from lehr.job import Job, to_dict
from lehr.runs import Folder

LIMIT = 20 * 2**20  # bytes of Python text; more is data that was taken along by mistake
PLACE = "packages"  # the archives' folder, beside the run folders
_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_NOT_THEIRS = ("torchvision:", "run:")


@dataclass(frozen=True)
class Modules:
    """The Python files of a job's folder: names relative to it, with `/`, and their content."""

    folder: Path
    files: tuple[tuple[str, bytes], ...]

    @property
    def name(self) -> str:
        """The archive's name: the same files give the same name, and need to be stored once only."""
        digest = hashlib.sha256()
        for name, content in self.files:
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return f"modules-{digest.hexdigest()[:16]}.zip"

    def uri(self, storage: str) -> str:
        """Where the archive is, or will be, in a storage. Ray reads it by itself, from plain addresses only."""
        return f"{storage.partition('?')[0].rstrip('/')}/{PLACE}/{self.name}"

    def archive(self) -> bytes:
        """The archive, the same bytes for the same files. All is in one folder, since Ray takes a first one away."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files:
                entry = zipfile.ZipInfo(f"job/{name}", (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def store(self, storage: str) -> bool:
        """Puts the archive into a storage; False where it is there already. Raises StorageError."""
        return Folder.at(storage).child(PLACE).create(self.name, self.archive())


def own_modules(job: Job) -> Modules | None:
    """The modules beside the job file, if the job names one of them (`nets:Net`); else None.

    Raises:
        JobError: there is more of it than a job's code can be.
    """
    named = {name.partition(":")[0].split(".")[0] for name in _names(to_dict(job))}
    if not any((job.folder / name).is_dir() or (job.folder / f"{name}.py").is_file() for name in named):
        return None
    files, size = [], 0
    for path in _python_files(job.folder):
        try:
            files.append((path.relative_to(job.folder).as_posix(), path.read_bytes()))
        except OSError as error:
            raise LehrError(f"{path}: cannot be read: {error.strerror}") from None
        size += len(files[-1][1])
        if size > LIMIT:
            raise job.error(
                "",
                f"{job.folder} holds more than {LIMIT >> 20} MiB of Python files; put the job into a folder of its own",
            )
    return Modules(job.folder, tuple(files))


def _names(value: Any) -> Iterator[str]:
    """Every `module:name` that a job says."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)
    elif isinstance(value, str) and _OWN.fullmatch(value) and not value.startswith(_NOT_THEIRS):
        yield value


def _python_files(folder: Path) -> Iterator[Path]:
    """Sorted; hidden folders, virtual environments and caches left out."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.name.startswith((".", "__")) and not path.is_symlink() and not (path / "pyvenv.cfg").exists():
                yield from _python_files(path)
        elif path.suffix == ".py" and path.is_file():
            yield path
