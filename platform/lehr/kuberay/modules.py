"""The user's own modules as one archive in the storage, from where Ray takes them to every pod."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lehr.job import Job, to_dict
from lehr.paths import PACKED
from lehr.runs import Folder
from lehr.submission.package import Package, package

INLINE = 600 << 10  # bytes that fit into a ConfigMap (1 MiB), in base64 and beside the job
LIMIT = 20 * 2**20  # bytes of Python text; more than that is data that was included by mistake
ARCHIVES = "packages"  # the archives' folder, beside the run folders
_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_BUILT_IN = ("torchvision:", "run:")


@dataclass(frozen=True)
class Modules:
    """The Python files of a job's folder."""

    package: Package

    @property
    def folder(self) -> Path:
        """The folder they are in."""
        return self.package.root

    @property
    def name(self) -> str:
        """The archive's name. The same files give the same name, and are stored only once."""
        return f"modules-{self.package.digest[:16]}.zip"

    def uri(self, storage: str) -> str:
        """The archive's address in a storage. Ray itself reads it, and accepts no options (`?…`) in the address."""
        return f"{storage.partition('?')[0].rstrip('/')}/{ARCHIVES}/{self.name}"

    def archive(self) -> bytes:
        """The archive; the same files give the same bytes. Ray strips the first folder."""
        return self.package.zip(f"job/{PACKED}/")

    def inline(self) -> dict[str, str]:
        """By key in a ConfigMap, each file's path as Ray unpacks it, in the order of `contents`."""
        return {f"module-{number}": f"{PACKED}/{name}" for number, name in enumerate(sorted(self.package.files))}

    def contents(self) -> dict[str, str]:
        """By key in a ConfigMap, each file in base64."""
        names = sorted(self.package.files)
        read = [(self.package.root / name).read_bytes() for name in names]
        return {f"module-{number}": base64.b64encode(data).decode() for number, data in enumerate(read)}

    def store(self, storage: str) -> bool:
        """Uploads the archive to a storage; False where it is there already. Raises StorageError."""
        return Folder.at(storage).child(ARCHIVES).create(self.name, self.archive())


def own_modules(job: Job, include: Collection[str] = ()) -> Modules | None:
    """The modules beside the job file, if the job names one of them (`nets:Net`), and what `include` names; else None.

    Raises:
        JobError: they are too large to be only a job's code.
    """
    named = {name.partition(":")[0].split(".")[0] for name in _names(to_dict(job))}
    places = [place / name for place in (job.folder, job.folder / "src") for name in named]
    if not include and not any(place.is_dir() or place.with_name(f"{place.name}.py").is_file() for place in places):
        return None
    found = package(job.folder, suffix=".py", include=include)
    if found.nbytes > LIMIT:
        raise job.error(
            "",
            f"{job.folder} holds more than {LIMIT >> 20} MiB of Python files; move the job into a folder of its own",
        )
    return Modules(found)


def _names(value: Any) -> Iterator[str]:
    """Every `module:name` in a job."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)
    elif isinstance(value, str) and _OWN.fullmatch(value) and not value.startswith(_BUILT_IN):
        yield value
