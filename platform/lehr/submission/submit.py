"""From a job to a request: what is sent to a cluster, and what submitting the same run again means."""

from __future__ import annotations

import importlib.metadata
import platform
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from lehr.credentials import mask
from lehr.driver import choose_run_folder
from lehr.errors import LehrError, RunError, StorageError
from lehr.job import EnsembleJob, Job, PredictJob, changes_of_run, describe_changes, extends, to_dict, with_new_names
from lehr.job.base import path_fields
from lehr.paths import user_folder
from lehr.ray_cluster.token import token_file
from lehr.result import DIGEST, code_of, find, trust_run
from lehr.submission.backend import Backend, Request, Submission, command
from lehr.submission.package import Package, package
from lehr.trust import Call, is_allowed

STORAGE_SECONDS = 5.0  # how long to wait for a storage that this machine may not even reach

T = TypeVar("T")

Action = Literal["submit", "attach", "nothing"]


def request_of(job: Job, root: Path, trust: Sequence[str] = (), **options: Any) -> Request:
    """The request for a job whose working folder is `root`.

    Args:
        trust: runs that the job names whose code may run too.
        options: further fields of `Request`.
    """
    run = existing_name(job)
    return Request(
        run=run,
        job={**to_dict(job), "name": run},
        root=str(root),
        folder=str(job.folder),
        source=job.source,
        client=versions(),
        trust=trusted_with(job, trust),
        **options,
    )


def working_folder(job: Job, given: Path | None) -> Path:
    """The folder to package: the one given, else the current one if the job file is in it, else the job file's.

    Raises:
        LehrError: the given folder does not contain the job file, so its modules would not be found.
    """
    if given:
        root = given.absolute()
        if not job.folder.is_relative_to(root):
            raise LehrError(f"{root} does not contain the job file {job.source}; give a folder that does")
        return root
    return Path.cwd() if job.folder.is_relative_to(Path.cwd()) else job.folder


def package_of(job: Job, root: Path, include: Collection[str] = ()) -> Package:
    """The working folder's package, without the job's run folders and the cluster's token.

    What `include` names, relative to `root`, is sent whatever it is.
    """
    without = {token_file().absolute(): "the cluster's token", user_folder().absolute(): "lehr's own files"}
    if "://" not in job.storage:
        without[Path(job.storage)] = "the job's run folders"
    data = [Path(path) for path in data_paths(job).values() if "://" not in path]
    return package(root, without=without, data=[path for path in data if path.exists()], include=include)


def travels(request: Request, package: Package | None) -> list[str]:
    """Everything that goes to a cluster with a request, one line each, without the values of variables."""
    lines = package.listing() if package else ["no files"]
    sent = {
        "environment variables": sorted(request.env),
        "requirements": list(map(mask, request.pip)),
        "code of other runs that may run": request.trust,
    }
    lines += [f"{what}: {', '.join(names)}" for what, names in sent.items() if names]
    return [*lines, f"the job as resolved, with the paths of its file and folder: {request.source}, {request.root}"]


def data_paths(job: Job) -> dict[str, str]:
    """Every path and URI of data in a job, by dotted field."""
    return {
        ".".join(map(str, field)): path
        for field, path in path_fields(job)
        if "data" in field[:-1] and not path.startswith("run:")
    }


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
    """The name of the job's run. As locally, a default name that another job's run has is replaced by a free one.

    A storage that this machine does not reach is left to the cluster.

    Raises:
        RunError: an explicit name belongs to a run of another job.
    """
    return _from_storage(lambda: choose_run_folder(job, fresh=False)[0].name) or job.run_name


def trusted_with(job: Job, named: Sequence[str]) -> tuple[str, ...]:
    """What the cluster may run beside what the job names: the code of the runs in `named`, and of those runs that the
    job names which this user may run here. As digests; as a name where this machine does not reach the storage.

    Raises:
        RunError: there is no run of a name in `named`.
    """
    found: list[str] = []
    for name in (*named, *_runs_of(job)):
        explicit = name in named
        calls = _from_storage(partial(_code, name, job.storage, explicit))
        if calls is None:
            found += [name] if explicit else []
        else:
            found += [f"{DIGEST}{call.digest}" for call in calls]
    return tuple(dict.fromkeys(found))


def _code(name: str, storage: str, explicit: bool) -> list[Call]:
    """The code of a run that may run."""
    try:
        run = find(name, storage).record
    except RunError:
        if explicit:
            raise
        return []
    if explicit:
        trust_run(run)
    return [call for call in code_of(run) if is_allowed(call)]


def _runs_of(job: Job) -> list[str]:
    """The runs that a job names."""
    names = [text for _, text in path_fields(job, runs=True) if text.startswith("run:")]
    if isinstance(job, PredictJob):
        names.append(job.run)
    if isinstance(job, EnsembleJob):
        of = job.members["of"] if isinstance(job.members, dict) else job.members
        names += [each for each in (of if isinstance(of, list) else [of]) if isinstance(each, str)]
    return names


def _from_storage(ask: Callable[[], T]) -> T | None:
    """The answer; None where the storage does not give one in `STORAGE_SECONDS`. Raises other LehrErrors of `ask`."""
    answer: list[T | LehrError] = []

    def asked() -> None:
        try:
            answer.append(ask())
        except StorageError:
            pass
        except LehrError as error:
            answer.append(error)

    asking = threading.Thread(target=asked, daemon=True)
    asking.start()
    asking.join(STORAGE_SECONDS)
    found = answer[0] if answer else None
    if isinstance(found, LehrError):
        raise found
    return found


def next_action(request: Request, existing: Submission | None, backend: Backend) -> Action:
    """What to do for a request where the cluster may know the run already.

    A run that failed or was stopped is submitted again, and so is a finished one that has something left to do (more
    epochs, another budget); the driver on the cluster, which sees the run folder, has the last word. A running job is
    attached to.

    Raises:
        LehrError: a job of this name is running there with other settings, or is to start over while it runs.
    """
    if existing is None or existing.status in ("failed", "stopped") or (request.fresh and existing.is_over):
        return "submit"
    known = with_new_names(existing.request.job) if existing.request else {}
    comparable = "kind" in known  # not every cluster remembers the job
    changed = changes_of_run(known, request.job) if comparable else {}
    if existing.is_over:
        return "submit" if changed or (comparable and extends(known, request.job)) else "nothing"
    if changed or request.fresh:
        why = f"with other settings ({describe_changes(changed)})" if changed else "and cannot start over"
        raise LehrError(
            f"{request.run} is running on {backend.address} {why}; give this job another name, or stop that one first: "
            f"{command('stop', request.run, backend)}"
        )
    return "attach"
