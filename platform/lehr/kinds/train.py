"""`kind: train`: one network, on one worker or many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from lehr.curves import verdict, write_curves
from lehr.curves.more_rows import advise_folds
from lehr.data.door import LocalHost, choose, load
from lehr.data.load import OpenedSources, splits
from lehr.data.sources import returns_dataset
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError, RunError
from lehr.formatting import format_folder, format_metric, format_path, format_seconds, format_time_table
from lehr.job import TrainJob, refuse_unused
from lehr.machine import cores
from lehr.runs import Progress, RunFolder
from lehr.runs.answers import Answers
from lehr.runs.attempts import newest_number
from lehr.runs.columns import listed
from lehr.runs.examples import Examples
from lehr.runs.row_names import write_row_names
from lehr.tasks.forms import spoken_in_full
from lehr.training.allocation import allocate, too_much
from lehr.training.failures import describe, describe_lost_workers, full_memory, last_line
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job

MOST_TOLD = 8  # metrics of the job's own list that are told at the end
STILL_SECONDS = 10.0  # without progress until the cluster is asked whether workers wait for resources


def check(job: TrainJob) -> None:
    """Raises JobError for what can be refused before any data are read."""
    refuse_unused(job)
    check_job(job)


def report(run: RunFolder) -> None:
    """Writes the run's page and picture again. Raises RunError if nothing was recorded yet."""
    if not len(run.steps()):
        raise RunError(f"{run.name} has recorded no steps yet; there is nothing to report")
    write_curves(run)


def run(running: Running) -> None:
    """Trains, shows the progress, and ends with the picture and the summary."""
    job = cast(TrainJob, running.job)
    train_here(running, job) if running.debug else train_on_ray(running, job)
    conclude(running)


def train_here(running: Running, job: TrainJob) -> None:
    """In this process, without Ray: one worker, breakpoints work, `print` prints."""
    run = running.run
    opened, host = OpenedSources(job), LocalHost()
    plan = Plan.make(job, splits(job, load(opened, choose(opened, host, running), host, running)))
    say_notes(running, plan)
    running.begin_training()

    def should_stop() -> str | None:
        running.check_lease()
        running.screen.progress(run.progress())
        return run.stop_requested()

    torch.set_num_threads(cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train(plan, run, Group(device=device), should_stop)
    name_rows(run, opened)


def train_on_ray(running: Running, job: TrainJob) -> None:
    """On Ray Train workers; this process only watches the run folder, as anyone else could."""
    from lehr.ray_cluster.connection import connect  # imports Ray, which --debug does without

    run, screen = running.run, running.screen
    # What can be refused is refused before Ray starts.
    opened = None if returns_dataset(job.data) else OpenedSources(job)
    screen.status("starting Ray")
    most = job.workers.count if isinstance(job.workers.count, int) else 1
    if isinstance(job.workers.count, (list, tuple)):
        most = job.workers.count[1]
    with connect(most, job.workers.cpus) as resources:
        from lehr.data.ray_data import RayHost, share
        from lehr.training.ray_train import fit

        opened = opened or OpenedSources(job)
        host = RayHost()
        policy = choose(opened, host, running)
        each = allocate(job, resources.cpus, resources.gpus, policy.streamed, resources.nodes)
        if problem := too_much(each, resources.cpus, resources.gpus, resources.nodes, resources.limits):
            raise job.error(f"workers.{problem[0]}", problem[1])
        what_for = None
        if resources.nodes:  # others may use this cluster too
            from lehr.ray_cluster.waiting import queued, wait_for

            wait_for(each, screen.status)
            what_for = partial(queued, each)
        host.decode_at_once = max(2, int(resources.cpus) // most)
        host.spare_cpus = each.most * each.cpus < resources.cpus
        data = load(opened, policy, host, running)
        say_notes(running, Plan.make(job, splits(job, data)))  # refuses what the workers would, before they start
        handles = share(data)
        del data  # one copy, in the object store, is enough
        workers = each.workers if isinstance(each.workers, int) else f"{each.workers[0]} to {each.workers[1]}"
        screen.status(f"starting {workers} worker{'' if workers == 1 else 's'}")
        errors: list[BaseException] = []

        def fit_to_end() -> None:
            try:
                fit(job, run, handles, each)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=fit_to_end, daemon=True, name="ray-train")
        thread.start()
        watch(running, thread, what_for)
        thread.join(timeout=3.0)
        name_rows(run, opened)
        if errors and not run.failure():
            running.log_trace(describe(errors[0]).trace)
            raise _gave_up(running, job.workers.retries, errors[0])


def name_rows(run: RunFolder, opened: OpenedSources) -> None:
    """Keeps where a person finds the validation rows of which the run has pictures."""
    answers, examples = Answers.read(run.folder), Examples.read(run.folder)
    rows = [each.row for each in examples.shown] if examples else []
    rows += [int(answers.rows[at]) for at in answers.pictures] if answers else []
    source = opened.sources.get("validation", opened.main)
    if rows:
        write_row_names(run.folder, {row: source.name_of(row) for row in rows if 0 <= row < source.rows})


def say_notes(running: Running, plan: Plan) -> None:
    """Says what of the job was made to fit a short run."""
    for note in plan.notes:
        running.say(f"{note}.")


def _gave_up(running: Running, retries: int, error: BaseException) -> LehrError:
    """Why Ray Train no longer restarts the workers, in one sentence."""
    failures = getattr(error, "worker_failures", None)
    times = f"{retries + 1} times, the last time because " if failures and retries else "because "
    why = describe_lost_workers(failures) if failures else full_memory(str(error)) or last_line(error)
    return LehrError(
        f"training failed {times}{why}; what was saved is kept, and running the job again resumes from there; "
        f"the full log is in {running.log}"
    )


def watch(running: Running, thread: threading.Thread, waiting: Callable[[], str] | None = None) -> None:
    """Shows the run's progress until it has ended, whatever the outcome.

    Args:
        waiting: says what the workers wait for on a cluster; called after `STILL_SECONDS` without progress.
    """
    run = running.run
    moved, said = time.monotonic(), ""
    every = 0.2 if run.folder.is_local else 2.0
    before = run.progress()
    last, attempt = before.updated, before.training.attempt if before.training else 0
    begun = newest_number(run.folder)
    while True:
        running.check_lease()
        alive = thread.is_alive()
        progress = run.progress()
        if progress.updated != last and progress.training:
            last = progress.updated
            moved, said = time.monotonic(), ""
            if not running.training:
                running.begin_training()
                attempt = progress.training.attempt
            if progress.training.attempt > attempt:
                attempt = progress.training.attempt
                say_restart(running)
            running.screen.progress(progress)
            if run.outcome():
                return
        elif not running.training and newest_number(run.folder) > begun:
            running.screen.status(first_step(cast(TrainJob, running.job)))
        if run.failure() or not alive:
            return
        if waiting and time.monotonic() - moved > STILL_SECONDS:
            moved, newest = time.monotonic(), waiting()
            if newest and newest != said:
                running.screen.status(newest)
            said = newest
        thread.join(timeout=every)


def first_step(job: TrainJob) -> str:
    """What workers do that have begun and have shown no progress yet."""
    return "compiling the network, which takes a minute or more" if job.train.compile else "taking the first step"


def say_restart(running: Running) -> None:
    """Says why the workers were restarted, and from where they resume."""
    told = [event for event in running.run.events() if event["kind"] in ("lost", "started", "resumed")]
    for event in told[-2:]:
        running.screen.say(f"{event['message'][:1].upper()}{event['message'][1:]}.")


def conclude(running: Running) -> None:
    """Tells what a person wants to know at the end: how good, how long, where."""
    run, screen = running.run, running.screen
    if failure := run.failure():
        running.log_trace(failure.trace)
        run.write_progress(replace(run.progress(), status="failed", message=failure.sentence))
        write_curves(run)
        error = LehrError(f"{failure.sentence}\nThe full trace is in {running.log}")
        error.exit_code = failure.exit_code
        raise error
    progress = run.progress()
    screen.progress(progress)
    if running.startup:
        progress = replace(progress, seconds={**progress.seconds, "startup": running.startup})
        run.write_progress(progress)
    if progress.status == "stopped" and (training := progress.training):
        done = f"epoch {training.epoch:.1f} of {training.epochs} (step {training.step})"
        raise Interrupted(f"{running.stopped} at {done}; everything is saved. Resume with: {running.command}")
    picture = write_curves(run)
    screen.close()
    for line in summary(run, progress, picture):
        screen.say(line)


def summary(run: RunFolder, progress: Progress, picture: Path | None) -> list[str]:
    """How the training ended, its best value, its time, and where everything is."""
    best, seconds, where = progress.best, progress.seconds, format_folder(run.folder)
    ending, took = progress.message, format_seconds(seconds["total"] + seconds.get("startup", 0))
    lines = [f"{ending[:1].upper()}{ending[1:]}, in {took}."]
    if best.value is not None and progress.training:
        value = format_metric(best.value, best.metric, progress.measured_rows)
        epochs = progress.training.epochs
        lines.append(f"Best {spoken_in_full(best.metric)}: {value}, epoch {best.epoch} of {epochs}")
    elif best.metric and progress.training and progress.training.epochs_done:
        told = f"{spoken_in_full(best.metric)} was not a number after any epoch"
        lines.append(f"{told[:1].upper()}{told[1:]}: the model is that of the last one")
    if (test := progress.metrics.get("test_accuracy")) is not None:
        lines.append(f"Test accuracy of that model: {format_metric(test, 'test_accuracy', progress.measured_rows)}")
    measured = [(name, progress.metrics[name]) for name in listed(progress.metrics, "test")]
    if own := [(name, value) for name, value in measured if value is not None]:
        known = [f"{name.removeprefix('test_').replace('_', ' ')} {figure:.4f}" for name, figure in own[:MOST_TOLD]]
        more = f", and {len(own) - MOST_TOLD} more in the report" if len(own) > MOST_TOLD else ""
        lines.append(f"Test {', '.join(known)}{more}")
    lines.append(f"Time: {format_time_table(seconds)}")
    lines.append(f"Model:  {where}/model")
    if advice := advise_folds(run, progress):
        lines.append(advice)
    if picture:
        lines.append(f"Curves: {format_path(picture)}, and in {where}/report.html")
    return [*lines, f"Verdict: {verdict(run)}"]


KIND = Kind(check=check, run=run, report=report)
