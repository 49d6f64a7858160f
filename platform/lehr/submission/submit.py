"""From a job to a submission: what is sent, and what a second submission of the same run means."""

from __future__ import annotations

import importlib.metadata
import platform
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from lehr.driver import MAY_CHANGE, place
from lehr.errors import LehrError, StorageError
from lehr.job import Job, describe_difference, difference, to_dict
from lehr.job.sections import LOCAL_PATH, NO_PATHS
from lehr.submission.backend import Request, Submission
from lehr.submission.package import Package, package
from lehr.submission.ray_jobs import token_file

STORAGE_SECONDS = 5.0  # how long to wait for a storage that this machine may not even reach

What = Literal["send", "attach", "finished"]


def request_of(job: Job, root: Path, **wanted: Any) -> Request:
    """The request for a job whose working folder is `root`; `wanted` are further fields of `Request`."""
    run = existing_name(job)
    return Request(
        run=run,
        job={**to_dict(job), "name": run},
        root=str(root),
        folder=str(job.folder),
        source=job.source,
        client=versions(),
        **wanted,
    )


def working_folder(job: Job, said: Path | None) -> Path:
    """What is packaged: the folder that was said, else the current one if the job file is in it, else the job file's.

    Raises:
        LehrError: the folder that was said does not hold the job file, so its modules would not be found.
    """
    if said:
        root = said.absolute()
        if not job.folder.is_relative_to(root):
            raise LehrError(f"{root} does not hold the job file, {job.source}; the working folder must")
        return root
    return Path.cwd() if job.folder.is_relative_to(Path.cwd()) else job.folder


def package_of(job: Job, root: Path) -> Package:
    """The working folder's package, without the run folders of the job and the token of the cluster."""
    storage = [Path(job.storage)] if "://" not in job.storage else []
    data = [Path(path) for path in data_paths(job).values() if not _elsewhere(path)]
    return package(root, without=[*storage, token_file().absolute()], data=[path for path in data if path.exists()])


def data_paths(job: Job) -> dict[str, str]:
    """Every path and URI of data in a job, by dotted field."""
    return {name: path for name, path in _paths(job).items() if ".data." in f".{name}" and not path.startswith("run:")}


def _paths(job: BaseModel, at: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, info in type(job).model_fields.items():
        value = getattr(job, name)
        if isinstance(value, BaseModel):
            found |= _paths(value, f"{at}{name}.")
        elif isinstance(value, str) and LOCAL_PATH in info.metadata and value not in NO_PATHS:
            found[f"{at}{name}"] = value
    return found


def _elsewhere(path: str) -> bool:
    return "://" in path or path.startswith("run:")


def versions() -> dict[str, str]:
    """Versions that must be alike here and on the cluster, without importing anything."""
    found = {"python": platform.python_version()}
    for name in ("lehr", "ray", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def existing_name(job: Job) -> str:
    """The name of the job's run: as locally, one named by default gives way to another job's run of that name.

    A storage that this machine does not reach is the cluster's affair alone.

    Raises:
        RunError: an explicit name belongs to a run of another job.
    """
    answer: list[str | LehrError] = []

    def ask() -> None:
        try:
            answer.append(place(job, fresh=False)[0].name)
        except StorageError:
            pass
        except LehrError as error:
            answer.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(STORAGE_SECONDS)
    if answer and isinstance(answer[0], LehrError):
        raise answer[0]
    return str(answer[0]) if answer else job.run_name


def decide(request: Request, existing: Submission | None, cluster: str) -> What:
    """What sending a run means where the cluster knows it already.

    Raises:
        LehrError: another job of this name is running there.
    """
    if existing is None or existing.status in ("failed", "stopped") or (request.fresh and existing.is_over):
        return "send"
    known = existing.request.job if existing.request else {}
    changed = changes(known, request.job) if "kind" in known else ""  # not every cluster remembers the job
    if existing.is_over:
        return "send" if changed else "finished"
    if changed or request.fresh:
        why = f"of another job ({changed})" if changed else "and cannot start over"
        raise LehrError(
            f"{request.run} is running on {cluster} {why}; give this one another name, or end that one first: "
            f"lehr stop {request.run}"
        )
    return "attach"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """How two jobs of one name differ, in words; empty where they may be one run."""
    pairs = {
        path: pair
        for path, pair in difference(old, new).items()
        if not any(path == allowed or path.startswith(f"{allowed}.") for allowed in MAY_CHANGE)
    }
    return describe_difference(
        {path: before for path, (before, _) in pairs.items()}, {path: after for path, (_, after) in pairs.items()}
    )
