"""Trials on Ray: Ray Tune gives them their slots, the run folder keeps the truth.

Tune is asked for what it does well: placing trials on CPUs and GPUs, keeping their processes warm from one trial to the
next (`reuse_actors`), and starting a trial again whose process was lost. It decides nothing: the study says what is
trained next (as Tune's search algorithm) and when a trial has shown enough. It says so to the trial itself, through the
`Broker`, and the trial ends by returning: Tune never stops one, so nothing is left half-written and no placement group
is left behind. A trial of one worker trains right in Tune's process; one of several runs Ray Train inside it.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

# Read when Tune is imported. Nothing of what Tune would write is wanted: the truth is in the run folder.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000000")
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "10")

import ray
import torch
from ray import tune
from ray.tune.search import Searcher

from lehr.data.door import open_data
from lehr.data.load import splits
from lehr.data.ray_data import Handle, RayHost, share
from lehr.driver import Interrupted, Running
from lehr.errors import LehrError, TrainingError
from lehr.job import TrainJob
from lehr.paths import add_to_path
from lehr.ray_cluster.connection import connect
from lehr.ray_cluster.waiting import wait_for
from lehr.runs import RunFolder
from lehr.runs.scratch import scratch
from lehr.training.allocation import Nodes, WorkerResources, capacity
from lehr.training.failures import describe
from lehr.training.group import Group
from lehr.training.ray_train import fit, stop_watcher
from lehr.training.setup import Plan
from lehr.trials.broker import Broker
from lehr.trials.children import end_of, keep_failure, open_child
from lehr.trials.dataset_cache import DatasetCache
from lehr.trials.parent_progress import ParentProgress
from lehr.trials.study import Study, Trial
from lehr.trials.trainable import Trainable, TrialCallbacks

SHOW_SECONDS = 0.5  # how often the screen moves


@dataclass(frozen=True)
class Slots:
    """How a cluster is divided among trials.

    Attributes:
        count: how many trials run side by side.
        cpus: how many CPUs there are for all of them.
        share: the workers of one trial, and the CPUs and GPUs of each worker.
    """

    count: int
    cpus: float
    share: WorkerResources

    @property
    def nested(self) -> bool:
        """Whether a trial has several workers, in processes of their own."""
        return self.share.most > 1

    @property
    def of_trial(self) -> dict[str, float]:
        """What Tune keeps for a trial's process.

        Where the workers have processes of their own it is a megabyte, since it must be something: even a hundredth of
        a CPU would be what the last of the workers waits for.
        """
        return {"memory": 1e6} if self.nested else {"CPU": self.share.cpus, "GPU": self.share.gpus}


def slots(job: TrainJob, cpus: float, gpus: float, most: int | None = None, nodes: Nodes = ()) -> Slots:
    """How trials of this job share a cluster.

    A trial takes what `workers` says of each of its workers, and one CPU where it does not say; `auto` is one worker,
    on a GPU of its own (or the share that `workers.gpus` says) where there are GPUs. CPUs that would be idle, because
    GPUs are fewer or because there are at most `most` trials, are divided among the trials, as far as each worker fits
    onto one of the `nodes`.
    """
    section = job.workers
    workers: int | tuple[int, int] = 1
    per_worker_gpus = section.gpus
    if section.count == "auto":
        per_worker_gpus = section.gpus or min(1.0, gpus)
    else:
        workers = section.count if isinstance(section.count, int) else (section.count[0], section.count[1])
    widest = workers if isinstance(workers, int) else workers[1]
    count = max(1, int(cpus / ((section.cpus or 1) * widest) + 1e-9))
    if per_worker_gpus:
        count = min(count, max(1, int(gpus / (per_worker_gpus * widest) + 1e-9)))
    count = max(1, min(count, most or count))
    each = section.cpus or max(1, int(cpus / (count * widest)))
    if nodes:
        if not section.cpus:
            sizes = range(int(each), 1, -1)
            each = next((size for size in sizes if capacity(nodes, size, per_worker_gpus) >= count * widest), 1)
        count = max(1, min(count, capacity(nodes, each, per_worker_gpus) // widest))
    return Slots(count, cpus, WorkerResources(workers, each, per_worker_gpus))


def run_on_ray(running: Running, study: Study, at_most: int | None = None) -> None:
    """Runs the study's trials until it has no more to ask. The first of them says what each gets of the cluster.

    Args:
        at_most: how many trials there can be at the same time; each gets more CPUs where these are few.

    Raises:
        Interrupted: asked to stop; every trial is saved, and running the job again goes on.
    """
    trials = _Trials(running, study)
    if not (first := trials.next()):
        return
    job = first[0].job
    running.screen.status("starting Ray")
    widest = job.workers.count if isinstance(job.workers.count, int) else 1
    with connect(widest, job.workers.cpus) as resources:
        room = slots(job, resources.cpus, resources.gpus, at_most, resources.nodes)
        if resources.nodes:  # others may use this cluster too
            wait_for(room.share, running.screen.status)
        trials.run(first, room)


class _Trials:
    """The trials of a study, between the study and Tune.

    Tune's thread takes trials and says that they ended, a thread prepares their data, and the main thread answers their
    questions and moves the screen. What they share is touched under one lock, so the study hears one thing at a time.
    """

    def __init__(self, running: Running, study: Study) -> None:
        self.running, self.study = running, study
        self.parent = ParentProgress(running, study)
        self.lock = threading.RLock()
        self.live: dict[str, tuple[Trial, RunFolder]] = {}
        self.problem: BaseException | None = None
        self.datasets: DatasetCache[Handle] = DatasetCache(self._shared_data)

    def next(self) -> tuple[Trial, RunFolder] | None:
        """The next trial that has something left to do, and its run folder; finished ones are told to the study."""
        while trial := self.study.ask():
            child = open_child(self.running.run, trial)
            if not (outcome := end_of(child)):
                return trial, child
            self.study.tell(trial, outcome)
            self.parent.count(outcome.status)
        return None

    # ── in the main thread ──────────────────────────────────────────────────────────────────────────────────────────

    def run(self, first: tuple[Trial, RunFolder], room: Slots) -> None:
        """Runs until Tune has no trial left; answers the trials and moves the screen meanwhile."""
        self.first: tuple[Trial, RunFolder] | None = first
        self.slots = room
        cpus = max(2, int(room.cpus))
        # Trials may hold every CPU: a task that asked for one would wait for ever.
        self.host = RayHost(decode_at_once=cpus // room.count, spare_cpus=False, free_of_cpus=cpus)
        self.desk = ray.remote(num_cpus=0)(Broker).remote()
        self.preparing = ThreadPoolExecutor(1, "data-of-trials")
        thread = threading.Thread(target=self._tune, args=(first[0].job,), daemon=True, name="ray-tune")
        thread.start()
        shown = 0.0
        while thread.is_alive():
            self.running.check_lease()
            for question in ray.get(self.desk.questions.remote(0.2)):
                with self.lock:
                    known = self.live.get(question.folder)
                    reason = self.study.epoch(known[0], question.row) if known else None
                self.desk.answer.remote(question.number, reason)
            if self.running.training and time.monotonic() - shown > SHOW_SECONDS:
                with self.lock:
                    self.parent.tell("running")
                shown = time.monotonic()
        self.preparing.shutdown()
        if self.problem:
            raise self.problem
        if reason := self.running.run.stop_requested():
            self.parent.tell("stopped", reason)
            raise Interrupted(f"Stopped; every trial is saved. Go on with: {self.running.command}")

    # ── in Tune's thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _tune(self, job: TrainJob) -> None:
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.slots.count)  # or the first ones start one by one
        run, self.retries = self.running.run, job.workers.retries
        try:
            with scratch(run.folder, on_every_node=sum(node["Alive"] for node in ray.nodes()) > 1) as place:
                tune.Tuner(
                    tune.with_resources(partial(_trial_process, self.desk), self.slots.of_trial),
                    tune_config=tune.TuneConfig(
                        search_alg=_Asking(self),
                        num_samples=-1,
                        reuse_actors=True,
                        max_concurrent_trials=self.slots.count,
                    ),
                    run_config=tune.RunConfig(
                        name=run.name,
                        storage_path=place,
                        failure_config=tune.FailureConfig(max_failures=self.retries),
                        callbacks=[_Telling(self)],
                        verbose=0,
                    ),
                ).fit()
        except BaseException as error:
            self.problem = self.problem or error

    def give(self) -> str | None:
        """The folder of the trial that is next; empty where there is none before another has ended, None at the end."""
        try:
            with self.lock:
                if self.problem or self.running.run.stop_requested():
                    return None
                found, self.first = self.first or self.next(), None
                if not found:
                    return "" if self.live else None
                self.live[found[0].folder] = found
                self.parent.count("running")
            self.preparing.submit(self._lay_out, *found)
            return found[0].folder
        except BaseException as error:
            self.problem = error
            return None

    def ended(self, folder: str, lost: str = "") -> None:
        """A trial has ended. Its run folder says how; `lost` is why it cannot, when its process was lost too often."""
        try:
            with self.lock:
                trial, child = self.live.pop(folder)
                if not end_of(child) and (lost or not (self.problem or self.running.run.stop_requested())):
                    times = f"lost {self.retries + 1} times" if self.retries else "lost"
                    keep_failure(child, describe(TrainingError(f"its process was {times}: {lost or 'it just ended'}")))
                self.parent.counts["running"] -= 1
                if outcome := end_of(child):
                    if outcome.status == "failed":
                        self.running.log_trace(child.folder.read_json("failure.json")["trace"])
                    self.study.tell(trial, outcome)
                    self.parent.count(outcome.status)
            self.desk.clear.remote(folder)
        except BaseException as error:
            self.problem = error

    # ── in the thread that prepares data ────────────────────────────────────────────────────────────────────────────

    def _lay_out(self, trial: Trial, child: RunFolder) -> None:
        """Lays a trial's work out; none where its data cannot be had."""
        work = None
        try:
            shared = self.datasets.of(trial.job)
            self.running.begin_training()
            work = _Assignment(trial, child.folder.uri, self.running.run.folder.uri, dict(shared), self.slots.share)
        except LehrError as error:
            keep_failure(child, describe(error))
        except BaseException as error:
            self.problem = error
        self.desk.lay_out.remote(trial.folder, work)

    def _shared_data(self, job: TrainJob) -> dict[str, Handle]:
        """A job's images in the object store, where the processes of all trials map the same memory."""
        return share(open_data(job, self.host, self.running))


class _NotRestored:
    """Tune pickles what it is given, to go on from there after a crash; we go on from the run folder."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Asking(_NotRestored, Searcher):
    """What Tune takes for a search algorithm: it passes on what the study wants next, and knows nothing itself."""

    def __init__(self, trials: _Trials) -> None:
        super().__init__()
        self.trials = trials

    def suggest(self, trial_id: str) -> Any:
        folder = self.trials.give()
        return {"folder": folder} if folder else None if folder == "" else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Said by `_Telling`, which knows why."""

    def save(self, checkpoint_path: str) -> None:
        """There is nothing to keep: the run folder holds it."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """As `save`."""

    def restore(self, checkpoint_path: str) -> None:
        """As `save`."""


class _Telling(_NotRestored, tune.Callback):
    """Passes on from Tune that a trial has ended."""

    def __init__(self, trials: _Trials) -> None:
        self.trials = trials

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.trials.ended(trial.config["folder"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines() or ["it is gone"]
        self.trials.ended(trial.config["folder"], lines[0][:300])


# ── in the process of a trial ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Assignment:
    """Everything a trial's process needs."""

    trial: Trial
    run: str
    parent: str
    shared: dict[str, Handle]
    share: WorkerResources


def _trial_process(desk: Any, config: Mapping[str, Any]) -> None:
    """Does a trial's work, and returns however it ended: the run folder says how. Only a lost process is Tune's."""
    told: _Assignment | None = ray.get(desk.take.remote(config["folder"]))
    if told is None:
        return
    run, job = RunFolder.open(told.run), told.trial.job
    add_to_path(job.folder)
    try:
        work = partial(_work, told.trial.work, desk, config["folder"], told.parent)
        if told.share.most > 1:
            fit(job, run.folder, told.shared, told.share, work)
            return
        torch.set_num_threads(max(1, int(told.share.cpus)))
        device = torch.device("cuda" if told.share.gpus and torch.cuda.is_available() else "cpu")
        data = {name: handle.open() for name, handle in told.shared.items()}
        work(Plan.make(job, splits(job, data)), run, Group(device=device))
    except ray.exceptions.RayError:
        raise  # the desk or the data are gone: worth another attempt
    except Exception as error:
        keep_failure(run, describe(error))
    finally:
        if torch.cuda.is_available():  # what one trial leaves on a GPU, the next one lacks
            gc.collect()
            torch.cuda.empty_cache()


def _work(work: Trainable, desk: Any, name: str, parent: str, plan: Plan, run: RunFolder, group: Group) -> None:
    """A trial's work in this process, which asks the study about every epoch."""

    def after_epoch(row: Mapping[str, float]) -> str | None:
        reason: str | None = ray.get(desk.ask.remote(name, dict(row)))
        return reason

    work(plan, run, group, TrialCallbacks(stop_watcher(RunFolder.open(parent)), after_epoch))
