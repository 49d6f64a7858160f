"""`environment.json`: what a result may depend on besides its job."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lehr.errors import RunError
from lehr.runs.storage import Folder
from lehr.runs.timestamps import now
from lehr.runs.tolerant import tolerant

_PACKAGES = ("lehr", "ray", "torch", "torchvision", "pyarrow", "numpy")


@dataclass(frozen=True)
class Gpu:
    """A GPU of the machine."""

    name: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True)
class GitState:
    """The commit of the job's folder, and whether any file differs from it."""

    commit: str = ""
    dirty: bool = False


@dataclass(frozen=True)
class UnreadableImages:
    """Images that could not be read: how many, and the names of the first thousand."""

    count: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """What is known of a run's data once they were opened.

    Attributes:
        rows: per split; of a prediction, of all its rows.
        classes: how many.
        shape: of an image: height, width, channels.
        bytes: of all decoded images.
        held: `cached` or `streamed`.
        why: the sentence that explains the choice.
        notes: what the source reported.
        unreadable: None if every image could be read.
        fingerprint: the same for the same data, see `lehr.data.fingerprint`; empty where none was taken.
    """

    rows: Mapping[str, int] | int | None = None
    classes: int | None = None
    shape: tuple[int, ...] = ()
    bytes: int | None = None
    held: str = ""
    why: str = ""
    notes: tuple[str, ...] = ()
    unreadable: UnreadableImages | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Environment:
    """`environment.json`.

    Attributes:
        started: when the run was created: UTC, ISO 8601.
        seed: of the job.
        host, platform, cpus, memory_bytes, gpus: the machine that the run was started on.
        versions: by package; None for one that is not installed.
        git: of the job's folder; None outside a repository.
        job_file, overrides: the file of the job, and what was changed beside it; empty for a job built in Python.
        submitted_from: the folder that was sent to a cluster with the job; empty where it was begun on its own machine.
        data: None until they were opened.
    """

    started: str = ""
    seed: int | None = None
    host: str = ""
    platform: str = ""
    cpus: int | None = None
    memory_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()
    versions: Mapping[str, str | None] = field(default_factory=dict)
    git: GitState | None = None
    job_file: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    submitted_from: str = ""
    data: DataFacts | None = None

    @classmethod
    def read(cls, folder: Folder) -> Environment:
        """The environment of the run in `folder`; an empty one if there is none, or it is damaged."""
        try:
            return tolerant(cls, folder.read_json("environment.json"))
        except (FileNotFoundError, RunError):
            return cls()

    def write(self, folder: Folder) -> None:
        """Replaces environment.json."""
        folder.write_json("environment.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As the file has it: without `data` until they were opened, and without the facts that are not known."""
        value = asdict(self)
        if self.data is None:
            del value["data"]
        else:
            value["data"] = {name: fact for name, fact in value["data"].items() if fact not in (None, "", ())}
        return value

    @classmethod
    def collect(cls, *, seed: int | None = None, source: str | os.PathLike[str] | None = None) -> Environment:
        """That of this machine now; `source` is the folder whose git state counts. Imports neither torch nor Ray."""
        return cls(
            started=now(),
            seed=seed,
            host=platform.node(),
            platform=platform.platform(),
            cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            gpus=_gpus(),
            versions={"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
            git=None if source is None else _git(source),
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch sees; none where torch is not in use, since importing it takes seconds."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(gpu.name, gpu.total_memory) for gpu in found)


def _git(source: str | os.PathLike[str]) -> GitState | None:
    """The state of the repository that a folder is in; None outside one, and before its first commit."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", os.fspath(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return GitState(commit=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return None
