"""What any cluster must be able to do for a submitted job: requests, submissions, and the protocol of a backend.

No Ray is imported here.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lehr.credentials import has_credentials, is_secret, mask
from lehr.errors import JobError
from lehr.paths import ROOT
from lehr.printing import one_line
from lehr.ray_cluster.namespaces import namespace_of
from lehr.runs.progress import ENDED, Ended
from lehr.runs.storage import PATIENCE

if TYPE_CHECKING:
    from lehr.job import Job

REQUEST = "LEHR_SUBMISSION"
"""The environment variable of a submitted job that holds its request, as JSON."""
SAFE_WAY = (
    "set it where the cluster's nodes start: export NAME=… before lehr cluster up or ray start; on Kubernetes, put it "
    "into a Secret and name that in the profile (secret: NAME)"
)
"""How a secret reaches a job."""
ENTRYPOINT = "python -m lehr.submission.supervise"

PATIENCE_SECONDS = 900
"""How long an attempt of a job on a cluster waits for a storage that is unavailable before it ends."""

Status = Literal["pending", "running"] | Ended


@dataclass(frozen=True)
class Request:
    """What is to be run on a cluster.

    Attributes:
        run: name of the run folder.
        job: the job as resolved where it was submitted, with `name` set: the same job wherever it runs.
        root: the folder that is packaged, as it is called where the job was submitted.
        folder: the folder of the job file, for the user's own modules.
        source: the job file as messages show it.
        retries: how often a driver that died is restarted.
        stop_wait: seconds that a stop leaves for saving a checkpoint.
        check: check the cluster first, and end the job there if it would fail.
        only_check: end after the check.
        fresh: delete what the run left, and start over.
        client: versions where the job was submitted, by package.
        env: further environment variables of the job.
        pip: requirements to install for the job, as pip writes them.
        include: what is packaged although it looks like a secret or is ignored, relative to `root`.
        trust: runs whose code may run too, and digests of such code; see `lehr.result.trust_all`.
        check_token: marks the check's result in the job's log; see `lehr.submission.check_result`.
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
    include: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    check_token: str = field(default_factory=lambda: secrets.token_hex(8))

    def load(self) -> Job:
        """The job, with the folder and the file that it was loaded from where it was submitted."""
        from lehr.job import from_dict

        job = from_dict(self.job)
        job._origin = replace(job._origin, folder=Path(self.folder), source=self.source, submitted_from=self.root)
        return job

    def given(self) -> Job:
        """The job where it was submitted to: what it names may run there, and so may the code of the runs in `trust`.

        Raises:
            RunError: there is no run of a name in `trust`.
        """
        from lehr.job import to_dict
        from lehr.result import trust_all
        from lehr.trust import give

        job = self.load()
        give(to_dict(job))
        trust_all(self.trust, job.storage)
        return job

    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment without the working folder: the same on every worker of the job."""
        variables = {
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "RAY_JOB_STOP_WAIT_TIME_S": str(self.stop_wait),
            # A worker group waits until all of it fits, however long that takes; the job says what it waits for.
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(10 * 365 * 24 * 3600),
            "RAY_NAMESPACE": namespace_of(self.run),
            "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # for the dashboard's /api/train/v2/runs/v1
            PATIENCE: str(PATIENCE_SECONDS),
            ROOT: self.root,
            REQUEST: self.write(),
            **self.env,
        }
        return {"env_vars": variables, **({"pip": list(self.pip)} if self.pip else {})}

    def write(self) -> str:
        """The request as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Request:
        """A request that `write` wrote. Fields that only another version of lehr knows are left out.

        Raises:
            ValueError, TypeError: it is damaged, or incomplete.
        """
        parsed = json.loads(text)
        known = {each.name: parsed[each.name] for each in fields(cls) if each.name in parsed}
        lists = {name: tuple(known.get(name, ())) for name in ("pip", "include", "trust")}
        return cls(**{**known, **lists})

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Request:
        """The request of the job that has these environment variables. Raises KeyError where there is none."""
        return cls.read(variables[REQUEST])


@dataclass(frozen=True)
class Submission:
    """One submission of a run to a cluster. Times are seconds since 1970.

    Attributes:
        id: what the cluster calls it.
        run: name of the run; empty for what lehr did not submit.
        number: which submission of the run it is, counted from 1.
        message: what the cluster says about its end.
        request: what was requested, where the cluster still knows.
        why: why it waits, or what befell it, where the cluster knows.
    """

    id: str
    run: str
    number: int
    status: Status
    message: str = ""
    started: float | None = None
    ended: float | None = None
    request: Request | None = None
    why: str = ""

    @property
    def is_over(self) -> bool:
        return self.status in ENDED


class Backend(Protocol):
    """A cluster that runs jobs. Every method raises ClusterError with one sentence when the cluster refuses."""

    address: str
    option: str
    """What names the cluster on the command line (`--cluster http://host:8265`); empty where it is the default."""
    notes: list[str]
    """What the last `submit` left out of the upload or would tell its user, one sentence each."""

    def submit(self, request: Request, after: Submission | None = None) -> Submission:
        """Submits a job, `after` the newest submission of the run that the client knows.

        Two clients that submit a run at the same time, and know the same, both get the same submission.
        """
        ...

    def jobs(self) -> list[Submission]:
        """All submissions of lehr that the cluster remembers, oldest first."""
        ...

    def get(self, submission: Submission) -> Submission:
        """The submission in its present state."""
        ...

    def logs(self, submission: Submission) -> str:
        """What the job has printed so far."""
        ...

    def stop(self, submission: Submission) -> None:
        """Asks the job to save a checkpoint and end."""
        ...


def refuse_secrets(request: Request) -> None:
    """Refuses a request that holds secrets: Ray writes all of it into its logs and into the arguments of processes.

    The job itself holds none: no job is made with credentials in an address.

    Raises:
        JobError: an environment variable looks like a secret, or a requirement holds credentials.
    """
    for name, value in request.env.items():
        if name.startswith("RAY_AUTH") or is_secret(name, value):
            raise JobError(
                f"{name} looks like a secret, and what is sent with a job stays readable on the cluster; {SAFE_WAY}; "
                "or send the name of a file on the nodes: NAME_FILE=/path",
                field="--env",
            )
    for line in request.pip:
        if has_credentials(line):
            raise JobError(
                f"{line} holds credentials, and what is sent with a job stays readable on the cluster; write ${{NAME}} "
                f"instead, which pip takes from the environment, and {SAFE_WAY}",
                field="--pip",
            )


def entrypoint(request: Request) -> str:
    """What Ray runs; after it, as a comment of the shell, what Ray's dashboard is to show: the run and its report."""
    job = request.job
    folder = f"{str(job.get('storage', '')).rstrip('/')}/{request.run}"
    about = f"{job.get('kind', 'job')} {request.run}; report: {folder}/report.html"
    return f"{ENTRYPOINT}  # {mask(one_line(about))}"


def newest(backend: Backend, run: str) -> Submission | None:
    """The newest submission of a run (or the one with this id), if the cluster remembers any."""
    found = [each for each in backend.jobs() if run in (each.run, each.id)]
    return max(found, key=lambda each: each.number) if found else None


def poll(backend: Backend, submission: Submission, every: float = 1.0) -> Iterator[tuple[Submission, str]]:
    """The submission every so many seconds, with the text that it has printed since; ends when the job does."""
    seen = 0
    while True:
        current = backend.get(submission)
        text = backend.logs(current)
        yield current, text[seen:]
        seen = len(text)
        if current.is_over:
            return
        time.sleep(every)


def command(verb: str, run: str, backend: Backend) -> str:
    """What to type for a run on this cluster: `lehr stop RUN --cluster http://host:8265`."""
    return " ".join(filter(None, ("lehr", verb, run, backend.option)))


def resume_command(run: str, backend: Backend) -> str:
    """What to type to resume a run."""
    return command("resume", run, backend)
