"""What any cluster must be able to do for a submitted job, and what a submission says. No Ray is imported here."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lehr.paths import ROOT
from lehr.runs.storage import PATIENCE

if TYPE_CHECKING:
    from lehr.job import Job

REQUEST = "LEHR_SUBMISSION"
"""Environment variable of a submitted job: its request, as JSON."""
ENTRYPOINT = "python -m lehr.submission.supervise"

PATIENCE_SECONDS = 900
"""How long a job on a cluster waits for a storage that is away before an attempt of its ends."""
NAMESPACE = "lehr:"
"""How the Ray namespace of a submitted job begins; the name of its run follows."""

Status = Literal["pending", "running", "finished", "failed", "stopped"]
ENDED: tuple[Status, ...] = ("finished", "failed", "stopped")


@dataclass(frozen=True)
class Request:
    """What is to be run on a cluster.

    Attributes:
        run: name of the run folder.
        job: the job as resolved where it was submitted, with `name` set: the same job wherever it runs.
        root: the folder that is packaged, as it is called there.
        folder: folder of the job file, for the user's own modules.
        source: the job file as messages show it.
        retries: how often a driver that died is started again.
        stop_wait: seconds that a stop leaves for saving.
        check: look the cluster over first, and refuse what would not work.
        only_check: stop after that.
        fresh: delete what the run left, and start over.
        client: versions where the job was submitted, by package.
        env: further environment variables of the job.
        pip: requirements to install for the job, in pip's words.
    """

    run: str
    job: Mapping[str, Any]
    root: str
    folder: str
    source: str = ""
    retries: int = 3
    stop_wait: int = 120
    check: bool = True
    only_check: bool = False
    fresh: bool = False
    client: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    pip: tuple[str, ...] = ()

    def load(self) -> Job:
        """The job, with the folder and the file that it came from where it was submitted."""
        from lehr.job import from_dict

        job = from_dict(self.job)
        job._origin = replace(job._origin, folder=Path(self.folder), source=self.source)
        return job

    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment, apart from the working folder: the same on every worker of the job."""
        variables = {
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "RAY_JOB_STOP_WAIT_TIME_S": str(self.stop_wait),
            # A worker group waits until all of it fits, however long; the waiting is shown.
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(10 * 365 * 24 * 3600),
            "RAY_NAMESPACE": f"{NAMESPACE}{self.run}",  # tells others whose resources these are
            "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # /api/train/v2/runs/v1 of the dashboard
            PATIENCE: str(PATIENCE_SECONDS),
            ROOT: self.root,
            REQUEST: json.dumps(asdict(self)),
            **self.env,
        }
        return {"env_vars": variables, **({"pip": list(self.pip)} if self.pip else {})}

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Request:
        """The request of the job that has these environment variables. Raises KeyError where there is none."""
        said = json.loads(variables[REQUEST])
        return cls(**{**said, "pip": tuple(said["pip"])})


@dataclass(frozen=True)
class Submission:
    """One submission of a run to a cluster. Times are seconds since 1970.

    Attributes:
        id: what the cluster calls it.
        run: name of the run; empty for what lehr did not submit.
        number: which submission of the run it is, from 1.
        message: what the cluster says about its end.
        request: what was asked for, where the cluster still knows.
    """

    id: str
    run: str
    number: int
    status: Status
    message: str = ""
    started: float | None = None
    ended: float | None = None
    request: Request | None = None

    @property
    def is_over(self) -> bool:
        return self.status in ENDED


class Backend(Protocol):
    """A cluster that runs jobs. Every method raises LehrError with one sentence when the cluster refuses."""

    address: str

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        """Sends a job, `after` the run's newest submission that the sender knows.

        Of two that send a run at once, knowing the same, both get the same submission.
        """
        ...

    def jobs(self) -> list[Submission]:
        """All submissions of lehr that the cluster remembers, oldest first."""
        ...

    def get(self, submission: Submission) -> Submission:
        """The submission as it is now."""
        ...

    def logs(self, submission: Submission) -> str:
        """What the job has printed so far."""
        ...

    def stop(self, submission: Submission) -> None:
        """Asks the job to save and end."""
        ...


def newest(backend: Backend, run: str) -> Submission | None:
    """The last submission of a run (or the one with this id), if the cluster remembers any."""
    found = [each for each in backend.jobs() if run in (each.run, each.id)]
    return max(found, key=lambda each: each.number) if found else None


def changes_of(backend: Backend, submission: Submission, every: float = 1.0) -> Iterator[tuple[Submission, str]]:
    """The submission as it goes on, with the text it has printed since; ends with it."""
    seen = 0
    while True:
        current = backend.get(submission)
        text = backend.logs(current)
        yield current, text[seen:]
        seen = len(text)
        if current.is_over:
            return
        time.sleep(every)
