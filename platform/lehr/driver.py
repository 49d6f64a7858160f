"""Runs a job from start to end: run folder, lease, screen, stop signals. What a kind of job does is its own affair."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from lehr.durations import Clock
from lehr.errors import JobError, LehrError, RunError, RunHeld
from lehr.formatting import format_folder, format_path
from lehr.job import Job, TrainJob, changes_of_run, describe_changes, extends, from_dict, to_dict
from lehr.paths import add_to_path
from lehr.runs import Folder, Lease, RunFolder, collect_environment, names, step_of, steps_per_epoch
from lehr.screen import Screen, open_screen, quiet


class Interrupted(LehrError):
    """Asked to stop, by Ctrl-C or a signal. What there was to save is saved."""

    exit_code = 130


@dataclass
class Running:
    """A job that is running: what its kind works with.

    Attributes:
        job: the job, checked.
        run: its run folder, held by this process.
        screen: where to speak.
        log: where everything goes that is not for the screen.
        debug: everything in this process, without Ray.
        started: when the command began (`time.time()`).
        training: whether there is something to save; until then a first Ctrl-C ends the job at once.
        lease: this process's hold on the run folder.
        command: what runs this job again.
        startup: seconds until training began, once it has.
    """

    job: Job
    run: RunFolder
    screen: Screen
    log: Path
    debug: bool
    started: float
    lease: Lease
    command: str
    training: bool = False
    startup: float | None = None

    def check_lease(self) -> None:
        """Raises RunHeld when another process has taken the run over, because this one was away for too long."""
        if self.lease.lost.is_set():
            raise RunHeld(f"{self.run.name} was taken over by another process; this one stops and changes nothing more")

    def log_trace(self, trace: str) -> None:
        with self.log.open("a") as file:
            file.write(f"\n{trace}\n")

    def begin_training(self) -> None:
        """From now on there is something to save."""
        if not self.training:
            self.training = True
            self.startup = time.time() - self.started

    # What the data door tells (`lehr.data.door.Listener`).

    def say(self, line: str) -> None:
        self.screen.say(line)

    def status(self, text: str) -> None:
        self.screen.status(text)

    def note_data(self, facts: Mapping[str, Any]) -> None:
        """Keeps in the run's environment.json what is known of its data; in a search over several sets, of the last."""
        environment = self.run.environment
        self.run.write_environment({**environment, "data": {**environment.get("data", {}), **facts}})


@dataclass(frozen=True)
class Kind:
    """What one kind of job does; `lehr.kinds` has them all.

    Attributes:
        check: raises JobError for what can be refused before anything is read or started.
        run: does the job to its end and leaves its results in the run folder.
        report: writes the run's report.html and pictures again; raises RunError where nothing was recorded yet.
        files, folders: what a run of this kind leaves in its run folder beside what every run has.
    """

    check: Callable[[Any], None]
    run: Callable[[Running], None]
    report: Callable[[RunFolder], None]
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


EVERY_RUN = Kind(
    check=lambda _: None,
    run=lambda _: None,
    report=lambda _: None,
    files=(
        "job.yaml", "progress.json", "outcome.json", "stop.json", "failure.json", "lost.json",
        "curves.png", "report.html", "diagnosis.json",
    ),
    folders=("checkpoints", "steps", "epochs", "events", "model"),
)  # fmt: skip
"""What every run leaves. `attempts/` is not among it: a worker of an old attempt that still writes must not find its
number in use again; nor `lease.json`, which belongs to the writer."""


def run_with(
    kind: Kind, job: Job, *, debug: bool = False, fresh: bool = False, started: float | None = None,
    command: str | None = None,
) -> RunFolder:  # fmt: skip
    """Runs a job to its end and returns its run folder; see `lehr.kinds.run_job`, which knows the kind."""
    from lehr.monitoring.exporter import exporting

    started = started or time.time()
    command = command or f"lehr.run(…) of {job.run_name}"
    add_to_path(job.folder)
    kind.check(job)
    folder, existing = place(job, fresh=fresh)
    log = log_file(folder)
    with ExitStack() as stack:
        screen = open_screen(sys.stdout if debug else stack.enter_context(quiet(log)))
        stack.callback(screen.close)
        if existing and not fresh and is_done(job, existing):
            screen.say(f"{folder.name} is finished: {format_folder(folder)}\nTo start over, add --fresh: {command}")
            return existing
        lease = stack.enter_context(Lease.acquire(folder))
        run = open_run(kind, job, folder, existing, fresh=fresh)
        running = Running(job, run, screen, log, debug, started, lease, command)
        stack.enter_context(_stop_signals(running))
        screen.say(f"{job.kind} {folder.name}   run folder: {format_folder(folder)}   log: {format_path(log)}")
        with nullcontext() if debug else exporting(run, job.kind), _failing_well(running):
            kind.run(running)
    return run


@contextmanager
def _failing_well(running: Running) -> Iterator[None]:
    """Whatever ends the job becomes one sentence, which the run keeps too, and no temporary file stays behind."""
    from lehr.training.failures import describe

    try:
        yield
    except (RunHeld, Interrupted):
        raise  # the run folder is somebody else's now, or tells already how it ended
    except Exception as error:
        failure = describe(error)
        with suppress(LehrError):
            if running.run.outcome() is None:
                told = running.run.typed_progress()
                running.run.write_progress(replace(told, status="failed", message=failure["sentence"]))
        if isinstance(error, LehrError):
            raise
        with suppress(OSError):
            running.log_trace(failure["trace"])
        failed = LehrError(f"{failure['sentence']}\nThe full trace is in {running.log}")
        failed.exit_code = failure["exit_code"]
        raise failed from error
    finally:
        with suppress(LehrError):
            if not running.lease.lost.is_set():
                running.run.folder.sweep()


# ── the run folder ────────────────────────────────────────────────────────────────────────────────────────────────


def place(job: Job, *, fresh: bool) -> tuple[Folder, RunFolder | None]:
    """The job's run folder, and the run that is there already, if it is of the same job.

    A run named by default gives way to a run of another job (`train-2`); an explicit name is refused.

    Raises:
        RunError: the explicit name belongs to a run of another job; the difference is in the sentence.
    """
    storage = Folder.at(job.storage)
    for number in count(1):
        folder = storage.child(job.run_name if number == 1 else f"{job.run_name}-{number}")
        if not folder.exists("job.yaml"):
            return folder, None
        existing = RunFolder.open(folder)
        changed = changes(existing, job)
        if not changed or (fresh and job.named_explicitly):
            return folder, existing
        if job.named_explicitly:
            raise RunError(
                f"{folder.name} is a run of another job ({changed}); "
                "give this one another name, or start over with --fresh"
            )
    raise AssertionError("unreachable")


def changes(existing: RunFolder, job: Job) -> str:
    """How the job differs from the run's, in words; empty if it may go on under the same name."""
    try:
        old = to_dict(from_dict(existing.job))
    except JobError:
        return "it was written by another version of lehr"
    changed = changes_of_run(old, to_dict(job))
    if set(changed) == {"train.epochs"} and keeps_rate(existing, job):
        return ""
    return describe_changes(changed)


def keeps_rate(existing: RunFolder, job: Job) -> bool:
    """Whether every step that was taken keeps its learning rate under the new number of epochs."""
    from lehr.training.setup import learning_rate

    steps = [step_of(name) for name in names(existing.folder)]
    if not steps:  # what was not saved is done again, at whatever rate
        return True
    old = from_dict(existing.job)
    if not isinstance(job, TrainJob) or not isinstance(old, TrainJob) or job.train.epochs < old.train.epochs:
        return False
    if job.finetune:  # what is frozen when may depend on the length of the run
        return False
    if (per_epoch := steps_per_epoch(existing)) is None:
        return False
    before, after = (learning_rate(each, Clock(per_epoch, per_epoch * each.train.epochs)) for each in (old, job))
    return all(before(step) == after(step) for step in range(max(steps)))


def is_done(job: Job, existing: RunFolder) -> bool:
    """Whether the run has nothing left to do for this job."""
    outcome = existing.outcome()
    if outcome is None or outcome.status != "finished":
        return False
    return not extends(existing.job, to_dict(job))


def open_run(kind: Kind, job: Job, folder: Folder, existing: RunFolder | None, *, fresh: bool) -> RunFolder:
    """The run folder ready for an attempt: new, emptied, or as the last attempt left it."""
    if existing and fresh:
        for name in (*EVERY_RUN.folders, *kind.folders):
            folder.child(name).delete_all()
        for name in (*EVERY_RUN.files, *kind.files):
            folder.delete(name)
        existing = None
    if existing is None:
        environment = collect_environment(seed=job.seed, source=job.folder)
        return RunFolder.create(folder, to_dict(job), environment)
    existing.begin()
    existing.clear_stop()
    folder.delete("failure.json")
    if existing.job != to_dict(job):
        existing.write_job(to_dict(job))
    return existing


def log_file(folder: Folder) -> Path:
    """Where the log goes: into a local run folder, else beside the temporary files of this machine."""
    if folder.is_local:
        return folder.local_path / "log.txt"
    return Path(tempfile.gettempdir()) / "lehr-logs" / f"{folder.name}.txt"


# ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _stop_signals(running: Running) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks the workers to save and stop; a Ctrl-C after it ends everything at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number == signal.SIGTERM:
            return  # a supervisor and a cluster may both send it
        if asked:
            running.screen.close()
            running.screen.say(f"Ended at once. What was saved before stays; go on with: {running.command}")
            leave(130)
        asked = True
        if not running.training:
            raise Interrupted(f"Stopped before the first step. Start again with: {running.command}")
        running.run.request_stop(signal.Signals(number).name)
        running.screen.say("Stopping: saving a checkpoint first. Ctrl-C again ends at once.")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> None:
    """Ends this process and every process it started, at once."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(code)
