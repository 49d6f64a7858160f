"""`kind: train`: one network, on one worker or many."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import torch

from lehr.clusters.machine import cores
from lehr.data.load import Opened, splits
from lehr.driver import Interrupted, Running, short, shown
from lehr.errors import LehrError
from lehr.job import TrainJob
from lehr.runs import RunFolder
from lehr.screen import clock, time_table
from lehr.training.failures import describe
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job

check = check_job


def run(running: Running) -> None:
    """Trains, shows how it goes, and ends with the picture and the summary."""
    job = cast(TrainJob, running.job)
    opened = Opened(job)
    train_here(running, opened) if running.debug else train_on_ray(running, opened)
    conclude(running)


def train_here(running: Running, opened: Opened) -> None:
    """In this process, without Ray: one worker, breakpoints work, `print` prints."""
    job, run = opened.job, running.run
    plan = Plan.make(job, splits(job, opened.decode()))
    running.training = True
    running.startup = time.time() - running.started

    def should_stop() -> str | None:
        running.check_lease()
        running.screen.progress(run.progress())
        return run.stop_requested()

    torch.set_num_threads(cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train(plan, run, Group(device=device), should_stop)


def train_on_ray(running: Running, opened: Opened) -> None:
    """On Ray Train workers; this process watches the run folder, as anyone else could."""
    from lehr.clusters.local import cluster  # Ray is imported here and not before: --debug does without

    job, run, screen = opened.job, running.run, running.screen
    screen.status("starting Ray")
    most = job.workers.count if isinstance(job.workers.count, int) else 1
    if isinstance(job.workers.count, (list, tuple)):
        most = job.workers.count[1]
    with cluster(most, job.workers.cpus) as resources:
        from lehr.data.ray_data import Shared, read_with_ray
        from lehr.training.ray_train import fit, share_out

        screen.status(f"reading {sum(source.rows for source in opened.sources.values()):,} images")
        images = opened.decode(read_with_ray)
        Plan.make(job, splits(job, images))  # what the workers would refuse is refused here, before they start
        shared = {name: Shared.put(decoded) for name, decoded in images.items()}
        share = share_out(job, resources.cpus, resources.gpus)
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
        watch(running, thread)
        thread.join(timeout=3.0)
        if ended and ended[0] is not None and not run.folder.exists("failure.json"):
            running.log_trace(describe(ended[0])["trace"])
            raise LehrError(
                f"training failed {job.workers.retries + 1} times: {_cause(ended[0])}; the log has the whole story: "
                f"{running.log}"
            )


def watch(running: Running, thread: threading.Thread) -> None:
    """Shows the run's progress until it has ended, one way or another."""
    run = running.run
    every = 0.2 if run.folder.is_local else 2.0
    last = run.progress().get("updated")
    while True:
        running.check_lease()
        alive = thread.is_alive()
        progress = run.progress()
        if progress.get("updated") != last:
            last = progress.get("updated")
            if not running.training:
                running.training = True
                running.startup = time.time() - running.started
            running.screen.progress(progress)
            if progress["status"] != "running":
                return
        if run.folder.exists("failure.json") or not alive:
            return
        thread.join(timeout=every)


def conclude(running: Running) -> None:
    """Ends with what a person wants to know: how good, how long, where."""
    run, screen = running.run, running.screen
    if run.folder.exists("failure.json"):
        failure = run.folder.read_json("failure.json")
        running.log_trace(failure["trace"])
        run.write_progress({**run.progress(), "status": "failed", "message": failure["sentence"]})
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
    picture = draw(run)
    screen.close()
    for line in summary(run, progress, picture):
        screen.say(line)


def draw(run: RunFolder) -> Path | None:
    from lehr.curves import write_curves

    return write_curves(run)


def summary(run: RunFolder, progress: dict[str, Any], picture: Path | None) -> list[str]:
    best, seconds = progress["best"], progress["seconds"]
    value = f"{best['value']:.2%}" if "accuracy" in best["metric"] else f"{best['value']:.4f}"
    ending, took = progress["message"], clock(seconds["total"] + seconds.get("startup", 0))
    lines = [f"{ending[:1].upper()}{ending[1:]}, in {took}."]
    lines.append(f"Best {best['metric'].replace('_', ' ')}: {value}, epoch {best['epoch']} of {progress['epochs']}")
    if "test_accuracy" in progress["metrics"]:
        lines.append(f"Test accuracy of that model: {progress['metrics']['test_accuracy']:.2%}")
    lines.append(f"Time: {time_table(seconds)}")
    where = run.folder
    lines.append(f"Model:  {shown(where)}/model")
    if picture:
        lines.append(f"Curves: {short(picture)}")
    return lines


def _cause(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1][:300] if str(error).strip() else type(error).__name__
