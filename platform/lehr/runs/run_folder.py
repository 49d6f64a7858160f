"""The run folder as one object: what the job was, how far it came, what it recorded."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import yaml

from lehr.errors import RunError

from lehr.runs import lease, records
from lehr.runs.attempts import newest_attempt
from lehr.runs.timestamps import now
from lehr.runs.progress import ENDED, Progress, RunOutcome
from lehr.runs.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2
MOST_VALUES = 100_000  # of a job; aliases counted each time
Status = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]

_LOG = logging.getLogger(__name__)
_SHAPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("status", "message", "headline", "recipe_step"), str),
    **dict.fromkeys(("metrics", "best", "seconds", "facts", "table", "children", "diagnosis", "recent"), dict),
    **dict.fromkeys(("step", "total_steps", "epochs", "epochs_done", "attempt"), int),
}
"""What the fields of progress.json are, for those that readers rely on; what is something else is not told."""
_PACKAGES = ("lehr", "ray", "torch", "torchvision", "pyarrow", "numpy")


class RunFolder:
    """A run, at `folder`. Children (trials, members, steps of a recipe) are run folders themselves."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._document: dict[str, Any] | None = None
        self._job: dict[str, Any] | None = None
        self._format: int | None = None
        self._environment: dict[str, Any] | None = None

    @classmethod
    def create(cls, folder: Folder, job: Mapping[str, Any], environment: Mapping[str, Any]) -> RunFolder:
        """Make a new run of `job`. Raises `RunError` where there is one already."""
        if folder.exists("job.yaml"):
            raise RunError(f"{folder.uri}: there is a run already; choose another name, or resume it with the same job")
        run, document = cls(folder), _job_document(folder, job)
        run.write_environment(environment)
        # Last, since it is what makes the folder a run.
        if not folder.create("job.yaml", document):
            raise RunError(f"{folder.uri}: another process has just created a run of this name")
        return run

    @classmethod
    def open(cls, where: Folder | str | os.PathLike[str]) -> RunFolder:
        """The run at a folder, path or URI. Raises `RunError` where there is none, or one of a newer lehr."""
        run = cls(where if isinstance(where, Folder) else Folder.at(where))
        run._read()
        return run

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def job(self) -> dict[str, Any]:
        """The job as resolved, without the format number; fields have their present names, whoever wrote them."""
        if self._job is None:
            from lehr.job import with_new_names  # not needed to list runs, and it takes a fifth of a second

            if self._document is None:
                self._read()
            self._job = with_new_names(self._document or {})
        return self._job

    @property
    def format(self) -> int:
        """The number of the format that the run was created in."""
        if self._format is None:
            self._read()
        assert self._format is not None
        return self._format

    def _read(self) -> None:
        self._format, self._document = _read_job(self.folder)
        self._job = None

    @property
    def environment(self) -> dict[str, Any]:
        """What the run was started in (`collect_environment`), and "started"; empty where it was not kept."""
        if self._environment is None:
            told = self._json_or("environment.json", {})
            self._environment = told if isinstance(told, dict) else {}
        return self._environment

    @property
    def started(self) -> str:
        """When the run was created: UTC, ISO 8601; empty where it was not kept."""
        return str(self.environment.get("started", ""))

    def write_job(self, job: Mapping[str, Any]) -> None:
        """Replace job.yaml, on a resume with a change that one name may go through."""
        self.folder.write("job.yaml", _job_document(self.folder, job, self.format))
        self._document = self._job = None

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        self._environment = {"started": now()} | dict(environment)
        self.folder.write_json("environment.json", self._environment)

    def progress(self) -> dict[str, Any]:
        """What the writer last told of itself; empty before it did, and where it is damaged: it only shows things."""
        try:
            told = self._json_or("progress.json", {})
        except RunError:
            return {}
        if not isinstance(told, dict):
            return {}
        return {name: value for name, value in told.items() if isinstance(value, _SHAPES.get(name, object))}

    def typed_progress(self) -> Progress:
        """What the writer last told of itself; that of a new run before it did. Only to be shown."""
        return Progress.read(self.folder)

    def write_progress(self, progress: Progress | Mapping[str, Any]) -> None:
        """Replaces progress.json; the last one of an attempt also leaves outcome.json, which decides, before it."""
        told = progress if isinstance(progress, Progress) else Progress.from_json(dict(progress))
        if told.status in ENDED:
            RunOutcome.of(told).write(self.folder)
        self.folder.write_json("progress.json", progress.to_json() if isinstance(progress, Progress) else dict(progress))

    def outcome(self) -> RunOutcome | None:
        """How the run ended; None while it has not, or when another attempt has begun since."""
        if found := RunOutcome.read(self.folder):
            return found
        if self.format > 1:
            return None
        told = self.typed_progress()  # format 1 had no other place for it
        return RunOutcome.of(told) if told.status in ENDED else None

    def begin(self) -> None:
        """Another attempt begins: what the last one left about its end no longer holds."""
        self.folder.delete("outcome.json")
        if self.format == 1 and (told := self.typed_progress()).status in ENDED:
            replace(told, status="running").write(self.folder)

    def status(self) -> Status:
        """How the run ended; else "running" while somebody alive holds its lease, "new" before the first attempt."""
        for last_look in (False, True):
            if found := self.outcome():
                return found.status
            told = self.typed_progress().status
            if told == "new":
                return "new"
            holder = lease.read_holder(self.folder)
            if holder is not None and holder.is_alive():
                return "running"
            # A run that ends writes its outcome before it gives the lease back: look again before judging.
            if last_look:
                break
        return "interrupted"

    def children(self, kind: str) -> list[RunFolder]:
        """The runs in the folder `kind` ("trials", "members", …), by name."""
        place = self.folder.child(kind)
        return [RunFolder.open(place.child(name)) for name in place.folders() if place.exists(f"{name}/job.yaml")]

    def steps(self) -> pa.Table:
        return records.read_steps(self.folder)

    def epochs(self) -> pa.Table:
        return records.read_epochs(self.folder)

    def events(self) -> list[dict[str, Any]]:
        return records.read_events(self.folder)

    def request_stop(self, reason: str) -> None:
        """Ask the writer, wherever it runs, to stop at its next opportunity."""
        self.folder.write_json("stop.json", {"reason": reason, "requested": now()})

    def stop_requested(self) -> str | None:
        """The reason of a stop request, or None."""
        request = self._json_or("stop.json", None)
        return None if request is None else str(request.get("reason", ""))

    def take_loss(self) -> str:
        """Why the attempt before this one lost its workers, where somebody saw it; told only once."""
        told = self._json_or("lost.json", {})
        if told:
            self.folder.delete("lost.json")
        return str(told.get("sentence", ""))

    def clear_stop(self) -> None:
        self.folder.delete("stop.json")

    def __repr__(self) -> str:
        return f"RunFolder({self.folder.uri!r})"

    def _json_or(self, name: str, default: Any) -> Any:
        try:
            return self.folder.read_json(name)
        except FileNotFoundError:
            return default


def steps_per_epoch(run: RunFolder) -> int | None:
    """Optimizer steps of an epoch of a training; None before its first attempt, and for other runs."""
    newest = newest_attempt(run.folder)
    if newest and newest.steps_per_epoch:
        return newest.steps_per_epoch
    told = run.typed_progress().training  # format 1 had no other place for it
    return told.total_steps // told.epochs if run.format == 1 and told and told.epochs else None


def find_runs(storage: Folder | str | os.PathLike[str]) -> list[RunFolder]:
    """The runs directly in a storage folder, oldest first. One that cannot be read is left out and logged."""
    place = storage if isinstance(storage, Folder) else Folder.at(storage)
    runs = []
    for name in place.folders():
        if place.exists(f"{name}/job.yaml"):
            try:
                runs.append(RunFolder.open(place.child(name)))
            except RunError as error:
                _LOG.warning("left out: %s", error)
    return sorted(runs, key=lambda run: (run.started, run.name))


def collect_environment(*, seed: int | None = None, source: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """What a result may depend on besides its job: versions, hardware, seed, git state of the folder `source`."""
    return {
        "started": now(),
        "seed": seed,
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "git": None if source is None else _git(source),
    }


def _read_job(folder: Folder) -> tuple[int, dict[str, Any]]:
    """The number of the format, and the job."""
    try:
        job = yaml.safe_load(folder.read("job.yaml"))
    except FileNotFoundError as error:
        raise RunError(f"{folder.uri}: is no run: it has no job.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{folder.uri}/job.yaml: is damaged: it is not YAML") from error
    number = job.pop("format", None) if isinstance(job, dict) else None
    if type(number) is not int or number < 1:
        raise RunError(f"{folder.uri}/job.yaml: is not the job of a run: it names no format")
    if not _fits(job):
        raise RunError(f"{folder.uri}/job.yaml: is damaged: it holds more than {MOST_VALUES} values")
    if number > FORMAT:
        raise RunError(f"{folder.uri}: was written by a newer lehr (format {number}, this one reads {FORMAT}); update")
    return number, job


def _fits(tree: Any) -> bool:
    """Whether there is an end to it: YAML's aliases can make billions of values of one line, or a circle."""
    waiting, seen = [tree], 0
    while waiting and seen <= MOST_VALUES:
        value, seen = waiting.pop(), seen + 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not waiting


def _job_document(folder: Folder, job: Mapping[str, Any], number: int = FORMAT) -> bytes:
    document = {"format": number} | {key: value for key, value in job.items() if key != "format"}
    try:
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
    except yaml.YAMLError as error:
        raise RunError(f"{folder.uri}/job.yaml: cannot be written: {' '.join(map(str, error.args))}") from error


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    """Name and memory of each GPU; empty where torch is not in use, since importing it takes seconds."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]


def _git(source: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Commit, and whether anything differs from it; None outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", os.fspath(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
