"""`kind: train`: one network, on one worker or many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from lehr.curves import verdict, write_curves
from lehr.data.dataset import Images
from lehr.data.load import Opened, decide, splits
from lehr.data.sources import returns_dataset
from lehr.data.streaming import Stream, ThreadDecoder
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError, RunError
from lehr.formatting import format_folder, format_path, format_seconds, format_time_table
from lehr.job import TrainJob
from lehr.machine import cores, memory
from lehr.runs import RunFolder
from lehr.training.allocation import allocate
from lehr.training.failures import describe, last_line, lost
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job

STILL_SECONDS = 10.0  # without progress, before a cluster is asked whether workers wait for resources


def report(run: RunFolder) -> None:
    """Writes the run's page and picture anew. Raises RunError where nothing was recorded yet."""
    if not len(run.steps()):
        raise RunError(f"{run.name} has recorded no steps yet; there is nothing to report")
    write_curves(run)


def run(running: Running) -> None:
    """Trains, shows how it goes, and ends with the picture and the summary."""
    job = cast(TrainJob, running.job)
    train_here(running, job) if running.debug else train_on_ray(running, job)
    conclude(running)


def train_here(running: Running, job: TrainJob) -> None:
    """In this process, without Ray: one worker, breakpoints work, `print` prints."""
    run, opened = running.run, Opened(job)
    if choose(running, opened, memory(), "this machine's memory"):
        data: dict[str, Images] | dict[str, Stream] = opened.stream(ThreadDecoder(cores()))
    else:
        data = opened.decode()
        say_unreadable(running, opened, data)
    plan = Plan.make(job, splits(job, data))
    running.training = True
    running.startup = time.time() - running.started

    def should_stop() -> str | None:
        running.check_lease()
        running.screen.progress(run.progress())
        return run.stop_requested()

    torch.set_num_threads(cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train(plan, run, Group(device=device), should_stop)


def train_on_ray(running: Running, job: TrainJob) -> None:
    """On Ray Train workers; this process watches the run folder, as anyone else could."""
    from lehr.ray_cluster.connection import connect  # Ray is imported here and not before: --debug does without

    run, screen = running.run, running.screen
    opened = None if returns_dataset(job.data) else Opened(job)  # what can be refused is refused before Ray starts
    screen.status("starting Ray")
    most = job.workers.count if isinstance(job.workers.count, int) else 1
    if isinstance(job.workers.count, (list, tuple)):
        most = job.workers.count[1]
    with connect(most, job.workers.cpus) as resources:
        from lehr.data.ray_data import RayDecoder, Shared, SharedStream, read_anywhere, smallest_store
        from lehr.training.ray_train import fit

        opened = opened or Opened(job)
        stream = choose(running, opened, smallest_store(), "the smallest object store")
        share = allocate(job, resources.cpus, resources.gpus, stream, resources.nodes)
        look = None
        if resources.nodes:  # others may use this cluster too
            from lehr.ray_cluster.waiting import queued, wait_for

            wait_for(share, screen.status)
            look = partial(queued, share)
        shared: dict[str, Any]
        if stream:
            decoder = RayDecoder(max(2, int(resources.cpus) // most), share.most * share.cpus < resources.cpus)
            streams = opened.stream(decoder)
            Plan.make(job, splits(job, streams))  # what the workers would refuse is refused here, before they start
            shared = {name: SharedStream.put(rows, decoder) for name, rows in streams.items()}
        else:
            screen.status(f"reading {sum(source.rows for source in opened.sources.values()):,} images")
            images = opened.decode(read_anywhere)
            say_unreadable(running, opened, images)
            Plan.make(job, splits(job, images))
            shared = {name: Shared.put(decoded) for name, decoded in images.items()}
            del images  # one copy, in the object store, is enough
        workers = share.workers if isinstance(share.workers, int) else f"{share.workers[0]} to {share.workers[1]}"
        screen.status(f"starting {workers} worker{'' if workers == 1 else 's'}")
        ended: list[BaseException | None] = []

        def fit_to_end() -> None:
            try:
                fit(job, run.folder, shared, share)
                ended.append(None)
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=fit_to_end, daemon=True, name="ray-train")
        thread.start()
        watch(running, thread, look)
        thread.join(timeout=3.0)
        if ended and ended[0] is not None and not run.folder.exists("failure.json"):
            running.log_trace(describe(ended[0])["trace"])
            times = f"{job.workers.retries + 1} times, the last time because " if job.workers.retries else "because "
            failures = getattr(ended[0], "worker_failures", None)
            why = lost(failures) if failures else last_line(ended[0])
            raise LehrError(
                f"training failed {times}{why}; what was saved stays, and running the job again goes on from there; "
                f"the log has the whole story: {running.log}"
            )


def choose(running: Running, opened: Opened, room: int, where: str) -> bool:
    """Whether the job's data are streamed; says so, and notes it in the run with what else is known of them."""
    job, run = opened.job, running.run
    stream, sentence = decide(job.data.cache, opened.nbytes, room, where)
    for line in (*(note for source in opened.sources.values() for note in source.notes), sentence):
        running.screen.say(line)
    about = {
        "rows": {name: source.rows for name, source in opened.sources.items()},
        "classes": len(opened.main.classes),
        "shape": list(opened.shape),
        "bytes": opened.nbytes,
        "held": "streamed" if stream else "cached",
        "why": sentence,
        "notes": [note for source in opened.sources.values() for note in source.notes],
    }
    run.write_environment({**run.environment, "data": about})
    return stream


def say_unreadable(running: Running, opened: Opened, images: dict[str, Images]) -> None:
    """Says how many images were skipped; the run notes their names."""
    names = [opened.sources[name].name_of(row) for name, decoded in images.items() for row in decoded.unreadable]
    if not names:
        return
    few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    running.screen.say(f"{len(names)} unreadable image{'s' if len(names) > 1 else ''} skipped: {few}")
    environment = running.run.environment
    about = {**environment["data"], "unreadable": {"count": len(names), "names": names[:1000]}}
    running.run.write_environment({**environment, "data": about})


def watch(running: Running, thread: threading.Thread, waiting: Callable[[], str] | None = None) -> None:
    """Shows the run's progress until it has ended, one way or another.

    Args:
        waiting: what the workers wait for on a cluster, asked when nothing has moved for `STILL_SECONDS`.
    """
    run = running.run
    moved, said = time.monotonic(), ""
    every = 0.2 if run.folder.is_local else 2.0
    first = run.progress()
    last, attempt = first.get("updated"), first.get("attempt", 0)
    while True:
        running.check_lease()
        alive = thread.is_alive()
        progress = run.progress()
        if progress.get("updated") != last:
            last = progress.get("updated")
            moved, said = time.monotonic(), ""
            if not running.training:
                running.training = True
                running.startup = time.time() - running.started
                attempt = progress.get("attempt", 0)
            if progress.get("attempt", 0) > attempt:
                attempt = progress.get("attempt", 0)
                say_restart(running)
            running.screen.progress(progress)
            if progress["status"] != "running":
                return
        if run.folder.exists("failure.json") or not alive:
            return
        if waiting and time.monotonic() - moved > STILL_SECONDS:
            moved, before = time.monotonic(), said
            said = waiting()
            if said and said != before:
                running.screen.status(said)
        thread.join(timeout=every)


def say_restart(running: Running) -> None:
    """Says why the workers were started again, and where they go on."""
    told = [event for event in running.run.events() if event["kind"] in ("lost", "started", "resumed")]
    for event in told[-2:]:
        running.screen.say(f"{event['message'][:1].upper()}{event['message'][1:]}.")


def conclude(running: Running) -> None:
    """Ends with what a person wants to know: how good, how long, where."""
    run, screen = running.run, running.screen
    if run.folder.exists("failure.json"):
        failure = run.folder.read_json("failure.json")
        running.log_trace(failure["trace"])
        run.write_progress({**run.progress(), "status": "failed", "message": failure["sentence"]})
        write_curves(run)
        error = LehrError(f"{failure['sentence']}\nThe full trace is in {running.log}")
        error.exit_code = failure["exit_code"]
        raise error
    progress = run.progress()
    screen.progress(progress)
    if running.startup:
        progress["seconds"]["startup"] = running.startup
        run.write_progress(progress)
    if progress["status"] == "stopped":
        done = f"epoch {progress['epoch']:.1f} of {progress['epochs']} (step {progress['step']})"
        raise Interrupted(f"Stopped at {done}; everything is saved. Go on with: {running.command}")
    picture = write_curves(run)
    screen.close()
    for line in summary(run, progress, picture):
        screen.say(line)


def summary(run: RunFolder, progress: dict[str, Any], picture: Path | None) -> list[str]:
    best, seconds = progress["best"], progress["seconds"]
    value = f"{best['value']:.2%}" if "accuracy" in best["metric"] else f"{best['value']:.4f}"
    ending, took = progress["message"], format_seconds(seconds["total"] + seconds.get("startup", 0))
    lines = [f"{ending[:1].upper()}{ending[1:]}, in {took}."]
    lines.append(f"Best {best['metric'].replace('_', ' ')}: {value}, epoch {best['epoch']} of {progress['epochs']}")
    if "test_accuracy" in progress["metrics"]:
        lines.append(f"Test accuracy of that model: {progress['metrics']['test_accuracy']:.2%}")
    lines.append(f"Time: {format_time_table(seconds)}")
    where = run.folder
    lines.append(f"Model:  {format_folder(where)}/model")
    if picture:
        lines.append(f"Curves: {format_path(picture)}, and in {format_folder(where)}/report.html")
    return [*lines, f"Verdict: {verdict(run)}"]


KIND = Kind(check=check_job, run=run, report=report)
