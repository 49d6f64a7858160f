"""The run folder as one object: which job it is of, how far the job has come, and what it recorded."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from lehr.errors import RunError, Superseded
from lehr.runs import format_1, format_2, lease, records
from lehr.runs.attempts import Attempt, CheckpointInfo, claim_attempt, newest_attempt, newest_number, start_attempt
from lehr.runs.claim import Claim
from lehr.runs.endings import Failure, LostWorkers, StopRequest
from lehr.runs.entries import entries
from lehr.runs.environment import Environment
from lehr.runs.job_file import FORMAT, JobFile
from lehr.runs.model import write_model
from lehr.runs.progress import ENDED, Progress, RunOutcome, outcome_name
from lehr.runs.storage import Folder
from lehr.runs.timestamps import now

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

Status = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]

_LOG = logging.getLogger(__name__)


class RunFolder:
    """A run, at `folder`. Its children (trials, members, steps of a recipe) are run folders themselves.

    A process that writes it says so with a `claim`. It then writes under the number of an attempt, and no longer once
    another process has begun a newer one: `check` and every method that writes raise `Superseded`.
    """

    def __init__(self, folder: Folder, claim: Claim | None = None) -> None:
        self.folder, self.claim = folder, claim
        self._number = newest_number(folder) if claim else 0
        self._attempt: Attempt | None = None
        self._file: JobFile | None = None
        self._looked_at: tuple[int, bytes] | None = None  # format and content of job.yaml, before its job is read
        self._job: dict[str, Any] | None = None
        self._environment: Environment | None = None

    @classmethod
    def create(
        cls,
        folder: Folder,
        job: Mapping[str, Any],
        environment: Environment | None = None,
        claim: Claim | None = None,
    ) -> RunFolder:
        """Makes a new run of `job`. Raises `RunError` where there already is a run."""
        if folder.exists("job.yaml"):
            raise RunError(f"{folder.uri}: there already is a run; choose another name, or resume it with the same job")
        run, document = cls(folder, claim), JobFile(FORMAT, job).to_yaml(folder)
        run.write_environment(environment or Environment())
        # Written last: it makes the folder a run.
        if not folder.create("job.yaml", document):
            raise RunError(f"{folder.uri}: another process has just created a run of this name")
        return run

    @classmethod
    def open(cls, where: Folder | str | os.PathLike[str], claim: Claim | None = None) -> RunFolder:
        """The run at a folder, path or URI. Raises `RunError` where there is none, or a newer lehr wrote it."""
        run = cls(where if isinstance(where, Folder) else Folder.at(where), claim)
        run._looked_at = JobFile.looked_at(run.folder)
        return run

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def job(self) -> dict[str, Any]:
        """The job as resolved; its fields have their present names and meaning, whichever version of lehr wrote it."""
        if self._job is None:
            from lehr.job import as_it_was_meant  # takes a fifth of a second, and listing runs does not need it

            self._job = as_it_was_meant(self._job_file.job)
        return self._job

    @property
    def format(self) -> int:
        """The number of the format that the run was created in."""
        return self._looked_at[0] if self._looked_at else self._job_file.format

    @property
    def _job_file(self) -> JobFile:
        if self._file is None:
            seen = self._looked_at
            self._file = JobFile.of(seen[1], self.folder) if seen else JobFile.read(self.folder)
        return self._file

    def write_job(self, job: Mapping[str, Any]) -> None:
        """Replaces job.yaml: on a resume with a change that is allowed under one name."""
        self._write_job_file(JobFile(self.format, job))

    def _write_job_file(self, file: JobFile) -> None:
        file.write(self.folder)
        self._file = self._job = self._looked_at = None

    @property
    def environment(self) -> Environment:
        """What the run was started in; an empty one where that is not known."""
        if self._environment is None:
            self._environment = Environment.read(self.folder)
        return self._environment

    @property
    def started(self) -> str:
        """When the run was created: UTC, ISO 8601; empty where that is not known."""
        return self.environment.started

    def write_environment(self, environment: Environment) -> None:
        """Replaces environment.json; an environment that has not started starts now."""
        self._environment = environment if environment.started else replace(environment, started=now())
        self._environment.write(self.folder)

    # ── who writes it ───────────────────────────────────────────────────────────────────────────────────────────────

    def claim_attempt(self, *, workers: int) -> Attempt:
        """Takes the next attempt number; from now on this object writes under it. See `attempts.claim_attempt`."""
        self._attempt = claim_attempt(self.folder, workers=workers, claim=self.claim)
        return self._attempt

    def start_attempt(
        self,
        *,
        checkpoint: CheckpointInfo | None = None,
        steps_per_epoch: int | None = None,
        total_steps: int | None = None,
    ) -> Attempt:
        """Says what the attempt that was claimed starts with. See `attempts.start_attempt`."""
        assert self._attempt, "no attempt was claimed"
        self._attempt = start_attempt(
            self.folder,
            self._attempt,
            checkpoint=checkpoint,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )
        return self._attempt

    def begin_attempt(
        self, *, workers: int, steps_per_epoch: int | None = None, total_steps: int | None = None
    ) -> Attempt:
        """Claims and starts an attempt that resumes from no checkpoint."""
        self.claim_attempt(workers=workers)
        return self.start_attempt(steps_per_epoch=steps_per_epoch, total_steps=total_steps)

    def attempt_number(self) -> int:
        """The number of the attempt that this process writes under.

        That of the attempt which it began; else, for a driver, of the newest one that its own workers began, or that
        was there when it took the lease.

        Raises:
            Superseded: somebody else has begun an attempt since then.
        """
        if self._attempt:
            self._attempt.check(self.folder)
            return self._attempt.number
        newest = newest_number(self.folder)
        if self.claim and newest > self._number:
            if Attempt.read(self.folder, newest).owner != self.claim.owner:
                raise Superseded(
                    f"{self.folder.uri}: another process has begun attempt {newest}; this one stops and writes nothing "
                    "more"
                )
            self._number = newest
        return newest

    def check(self) -> None:
        """Raises `Superseded` if another process has begun a newer attempt."""
        self.attempt_number()

    # ── how far it has come ─────────────────────────────────────────────────────────────────────────────────────────

    def progress(self) -> Progress:
        """What the writer last reported; that of a new run before its first report. Only to be shown."""
        return Progress.read(self.folder)

    def write_progress(self, progress: Progress) -> None:
        """Replaces progress.json. The last one of an attempt also leaves its outcome, which decides, before it."""
        number = self.attempt_number()
        if progress.status in ENDED:
            RunOutcome.of(progress).write(self.folder, number)
            self.check()  # it counts only if nobody has begun another attempt meanwhile
        progress.write(self.folder)

    def outcome(self) -> RunOutcome | None:
        """How the run ended; None if it has not ended, or another attempt has begun since."""
        if found := RunOutcome.read(self.folder, outcome_name(newest_number(self.folder))):
            return found
        if self.format == 2:
            return format_2.outcome(self.folder)
        return format_1.outcome(self.folder) if self.format == 1 else None

    def status(self) -> Status:
        """How the run ended; else "running" while a live process holds its lease, "new" before the first attempt."""
        for last_look in (False, True):
            if found := self.outcome():
                return found.status
            if self.progress().status == "new":
                return "new"
            holder = lease.Holder.read(self.folder)
            if holder is not None and holder.is_alive():
                return "running"
            # A run that ends writes its outcome before it gives the lease back: look again before judging.
            if last_look:
                break
        return "interrupted"

    def begin(self) -> None:
        """Another attempt begins: removes what the last one left about its end. The run is of this format now."""
        self.folder.delete(outcome_name(self.attempt_number()))
        if self.format == 1:
            format_1.begin(self.folder)
        if self.format == 2:
            format_2.begin(self.folder)
        if self.format < FORMAT:
            self._write_job_file(JobFile(FORMAT, self.job))

    def write_model(self, weights: dict[str, Tensor], description: Mapping[str, Any]) -> None:
        """Writes `model/`: the result of the run."""
        write_model(self.folder, weights, description, self.attempt_number())

    # ── stopping and failing ────────────────────────────────────────────────────────────────────────────────────────

    def request_stop(self, reason: str) -> None:
        """Asks the writer, wherever it runs, to save a checkpoint and stop at its next opportunity."""
        StopRequest(reason, now()).write(self.folder)

    def stop_requested(self) -> str | None:
        """The reason of a stop request; None if there is none."""
        request = StopRequest.read(self.folder)
        return request.reason if request else None

    def clear_stop(self) -> None:
        """Removes the request to stop, if there is one."""
        self.folder.delete("stop.json")

    def fail(self, failure: Failure) -> None:
        """Notes a failure that another attempt would meet again; the first one noted stays."""
        if self.claim:
            self.claim.check()
        replace(failure, owner=self.claim.owner if self.claim else "").create(self.folder)

    def failure(self) -> Failure | None:
        """Why the run failed in a way that another attempt would repeat; None if it did not.

        With a claim, only a failure under this claim counts.
        """
        found = Failure.read(self.folder)
        return None if found and self.claim and found.owner not in ("", self.claim.owner) else found

    def clear_failure(self) -> None:
        """Removes the failure of an earlier attempt, if there is one."""
        self.folder.delete("failure.json")

    def note_loss(self, sentence: str) -> None:
        """Notes why workers ended before their time, for the next attempt."""
        LostWorkers(sentence).write(self.folder)

    def lost(self) -> bool:
        """Whether the last attempt lost its workers."""
        return LostWorkers.read(self.folder) is not None

    def take_loss(self) -> str:
        """Why the last attempt lost its workers, and removes the note; empty if nothing is known."""
        loss = LostWorkers.read(self.folder)
        if loss:
            self.folder.delete("lost.json")
        return loss.sentence if loss else ""

    # ── what it recorded ────────────────────────────────────────────────────────────────────────────────────────────

    def children(self, kind: str) -> list[RunFolder]:
        """The runs in the folder `kind` ("trials", "members", …), by name; what cannot be read is logged."""
        runs, odd = entries(self.folder.child(kind), RunFolder.open)
        for entry in odd:
            _LOG.warning("left out of %s/%s: %s", self.folder.uri, kind, entry)
        return runs

    def steps(self) -> pa.Table:
        """A row per optimizer step; see `records.read_steps`."""
        return records.read_steps(self.folder)

    def epochs(self) -> pa.Table:
        """A row per epoch; see `records.read_epochs`."""
        return records.read_epochs(self.folder)

    def events(self) -> list[dict[str, Any]]:
        """What happened; see `records.read_events`."""
        return records.read_events(self.folder)

    def __repr__(self) -> str:
        return f"RunFolder({self.folder.uri!r})"


def steps_per_epoch(run: RunFolder) -> int | None:
    """Optimizer steps of an epoch of a training; None before its first attempt, and for other kinds of run."""
    newest = newest_attempt(run.folder)
    if newest and newest.steps_per_epoch:
        return newest.steps_per_epoch
    return format_1.steps_per_epoch(run.folder) if run.format == 1 else None
