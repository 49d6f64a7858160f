"""Runs a job of any kind from start to end: run folder, lease, screen, signals, and one sentence for a failure."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace

from lehr.curves.typed import as_typed
from lehr.data.sources import returns_dataset
from lehr.driver.kind import Kind
from lehr.driver.notify import address_of, end_is_told
from lehr.driver.run_folder import as_recorded, choose_run_folder, is_done, log_file, open_run, starts_over
from lehr.driver.running import Interrupted, Running
from lehr.driver.signals import stop_signals
from lehr.driver.time_limit import time_limited
from lehr.errors import JobError, LehrError, RunHeld, RunLost
from lehr.formatting import format_folder, format_path
from lehr.job import DataSection, Job, to_dict, unused_in_debug
from lehr.notebooks import NotebookScreen, in_notebook
from lehr.own_modules import look_in
from lehr.runs import Claim, Failure, Lease, RunFolder
from lehr.screen import open_screen, quiet
from lehr.tracking import TRACKERS, tracked
from lehr.trust import addresses_of, calls_of, remember


def run_with(
    kind: Kind, job: Job, *, debug: bool = False, fresh: bool | str = False, started: float | None = None,
    command: str | None = None,
) -> RunFolder:  # fmt: skip
    """Runs a job to its end and returns its run folder; see `lehr.kinds.run_job`, which knows the kind."""
    from lehr.monitoring.exporter import exporting

    if debug:
        _refuse_rays_data(job)
    started = started or time.time()
    command = command or f"lehr.run(…) of {job.run_name}"
    look_in(job.folder)
    address = address_of(job)
    for tracker in job.tracking:
        TRACKERS[tracker].check("tracking")
    kind.check(job)
    remember([*calls_of(to_dict(job)), *addresses_of(to_dict(job))])
    once, fresh = (fresh, starts_over(job, fresh)) if isinstance(fresh, str) else ("", fresh)
    folder, existing = choose_run_folder(job, fresh=fresh)
    if existing and not fresh:
        job = as_recorded(job, existing)
    log = log_file(folder)
    with ExitStack() as stack:
        file = sys.stdout if debug else stack.enter_context(quiet(log))
        screen = NotebookScreen() if in_notebook() else open_screen(file)
        stack.callback(screen.close)
        if existing and not fresh and is_done(job, existing):
            if not folder.exists("report.html"):  # the attempt that finished could not write it any more
                with suppress(LehrError):  # or there is nothing to report
                    kind.report(existing)
            over = to_start_over(command, existing)
            screen.say(f"{folder.name} is finished: {format_folder(folder)}\nTo start over, {over}")
            return existing
        lease = stack.enter_context(Lease.acquire(folder, say=screen.say))
        run = open_run(kind, job, folder, existing, Claim(folder.uri, lease.holder.owner), fresh=fresh, once=once)
        running = Running(job, run, screen, log, debug, started, lease, command)
        stack.enter_context(stop_signals(running))
        stack.enter_context(time_limited(running))
        told = "" if debug else f"   log: {format_path(log)}"  # with debug everything is on the screen
        screen.say(f"{job.kind} {folder.name}   run folder: {format_folder(folder)}{told}")
        if debug and (unused := unused_in_debug(job)):
            screen.say(f"--debug trains in this process, one step after the other; not used: {', '.join(unused)}")
        quietly = nullcontext() if debug else exporting(run, job.kind)
        followed = tracked(run, job.tracking, screen.say, screen.status)
        mistakes = nullcontext() if existing else _no_run_of_a_mistake(running)
        with followed, end_is_told(running, address), quietly, _failures_in_one_sentence(running), mistakes:
            kind.run(running)
    return run


def to_start_over(command: str, run: RunFolder) -> str:
    """What to type for a finished run to start over, after the command that found it finished."""
    if command.startswith("lehr resume "):
        again = "lehr run JOB"
        again += f" name={shlex.quote(run.name)}" if run.job.get("name") else ""
        return f"run its job file: {as_typed(again, run)} --fresh"
    return f"add --fresh: {command} --fresh" if command.startswith("lehr ") else "pass fresh=True to lehr.run"


def _refuse_rays_data(job: Job) -> None:
    """Raises JobError for data that only Ray can open, which a job without Ray does not have."""
    for at, holder in (("data", job), ("base.data", getattr(job, "base", None))):
        data = getattr(holder, "data", None)
        if isinstance(data, DataSection) and returns_dataset(data):
            what = f"{data.source} returns a Ray Dataset, and --debug runs without Ray; leave --debug out"
            raise job.error(f"{at}.source", what)


@contextmanager
def _no_run_of_a_mistake(running: Running) -> Iterator[None]:
    """Deletes a new run that ends with a mistake in the job before anything was trained: there is nothing to keep."""
    try:
        yield
    except JobError:
        if not running.training:
            running.lease.release()
            with suppress(LehrError):
                running.run.folder.delete_all()
        raise


@contextmanager
def _failures_in_one_sentence(running: Running) -> Iterator[None]:
    """Turns whatever ends the job into one sentence, records it in the run, and removes temporary files."""
    try:
        yield
    except (RunHeld, RunLost, Interrupted):
        raise  # the run folder belongs to another process now, or already says how the run ended
    except Exception as error:
        if running.lease.released:  # the run is deleted
            raise
        running.check_there()  # where the folder was deleted, whatever failed, failed for that
        failure = _record(running, error)
        if isinstance(error, LehrError):
            raise
        with suppress(OSError):
            running.log_trace(failure.trace)
        failed = LehrError(f"{failure.sentence}\nThe full trace is in {running.log}")
        failed.exit_code = failure.exit_code
        raise failed from error
    finally:
        with suppress(LehrError):
            if not (running.lease.lost.is_set() or running.lease.released):
                running.run.folder.sweep()


def _record(running: Running, error: Exception) -> Failure:
    """Records why the job ends in its run, if nothing else is recorded there as its end."""
    from lehr.training.failures import describe

    failure = describe(error)
    with suppress(LehrError):
        if running.run.outcome() is None:
            told = running.run.progress()
            running.run.write_progress(replace(told, status="failed", message=failure.sentence))
    return failure
