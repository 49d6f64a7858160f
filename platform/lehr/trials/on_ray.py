"""Trials on Ray: Ray Tune places them, the run folder is the source of truth.

Tune does what it does well: it places trials on CPUs and GPUs, reuses their processes from one trial to the next
(`reuse_actors`), and restarts a trial whose process was lost. It decides nothing. The study decides what to train next
(it is wrapped as Tune's search algorithm) and when to end a trial; it tells the trial itself, through the `Broker`, and
the trial ends by returning. Tune never stops a trial, so nothing is left half-written and no placement group leaks. A
trial with one worker trains in Tune's process; one with several runs Ray Train inside it.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

# Read when Tune is imported. Tune's own files are not needed: the run folder is the source of truth.
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
from lehr.errors import LehrError, RunLost, TrainingError
from lehr.job import TrainJob
from lehr.own_modules import look_in
from lehr.ray_cluster.connection import connect
from lehr.ray_cluster.waiting import wait_for
from lehr.runs import Claim, Folder, RunFolder
from lehr.runs.scratch import scratch
from lehr.training.allocation import WorkerResources, too_much
from lehr.training.failures import describe, last_line
from lehr.training.group import Group
from lehr.training.ray_train import fit, stop_watcher
from lehr.training.setup import Plan
from lehr.trials.broker import Broker
from lehr.trials.children import end_of, keep_failure, open_child
from lehr.trials.dataset_cache import DatasetCache, SharedData
from lehr.trials.parent_progress import ParentProgress
from lehr.trials.slots import Slots, slots
from lehr.trials.study import Study, Trial
from lehr.trials.trainable import TrialCallbacks
from lehr.trust import adopt, grants


def run_on_ray(running: Running, study: Study, shared: SharedData, at_most: int | None = None) -> None:
    """Runs the study's trials until it proposes no more. The first one determines the resources of each.

    Args:
        at_most: the largest number of trials that can run at the same time; when there are few, each gets more CPUs.
        held: a job whose data were shared before, and their handles.

    Raises:
        Interrupted: the job was asked to stop; every trial is saved, and running the job again resumes it.
    """
    runner = _TrialRunner(running, study, shared)
    if not (first := runner.next()):
        return
    job = first[0].job
    if not ray.is_initialized():
        running.screen.status("starting Ray")
    widest = job.workers.count if isinstance(job.workers.count, int) else 1
    with connect(widest, job.workers.cpus) as resources:
        room = slots(job, resources.cpus, resources.gpus, at_most, resources.nodes)
        if problem := too_much(room.share, resources.cpus, resources.gpus, resources.nodes, resources.limits):
            at = "base." if hasattr(running.job, "base") else ""
            raise running.job.error(f"{at}workers.{problem[0]}", problem[1])
        if resources.nodes:  # others may use this cluster too
            wait_for(room.share, running.screen.status)
        runner.run(first, room)


class _TrialRunner:
    """Connects a study with Tune.

    Tune's thread takes trials and reports their ends, one thread prepares their data, and the main thread answers
    their reports and updates the screen. One lock guards what they share, so the study is called by one at a time.
    """

    def __init__(self, running: Running, study: Study, shared: SharedData) -> None:
        self.running, self.study = running, study
        self.parent = ParentProgress(running, study)
        self.lock = threading.RLock()
        self.live: dict[str, tuple[Trial, RunFolder]] = {}
        self.problem: BaseException | None = None
        self.surveys = shared.surveys
        self.datasets: DatasetCache[Handle] = shared.cache(self._shared_data)

    def next(self) -> tuple[Trial, RunFolder] | None:
        """The next trial with something left to do, and its run folder; finished ones are reported to the study."""
        while trial := self.study.ask():
            child = open_child(self.running.run, trial)
            if not (outcome := end_of(child)):
                self.surveys.lend(child, trial.job)
                return trial, child
            self.surveys.keep(child, trial.job)
            self.study.tell(trial, outcome)
            self.parent.trial_ended(outcome.status)
        return None

    # ── in the main thread ──────────────────────────────────────────────────────────────────────────────────────────

    def run(self, first: tuple[Trial, RunFolder], room: Slots) -> None:
        """Runs until Tune has no trial left; meanwhile answers the trials and updates the screen."""
        self.first: tuple[Trial, RunFolder] | None = first
        self.slots, self.parent.at_once = room, room.count
        cpus = max(2, int(room.cpus))
        # Trials may hold every CPU: a task that asked for one would never start.
        self.host = RayHost(decode_at_once=cpus // room.count, spare_cpus=False, free_of_cpus=cpus)
        actor: Any = ray.remote(num_cpus=0)(Broker)  # Ray's types know an actor's methods only if it decorates them
        self.broker = actor.remote()
        self.data_thread = ThreadPoolExecutor(1, "trial-data")
        thread = threading.Thread(target=self._tune, args=(first[0].job,), daemon=True, name="ray-tune")
        thread.start()
        while thread.is_alive():
            self.running.check_lease()
            for report in ray.get(self.broker.reports.remote(0.2)):
                with self.lock:
                    reason = None
                    if known := self.live.get(report.folder):
                        self.parent.trial_epoch(known[0], report.row)
                        reason = self.study.epoch(known[0], report.row)
                self.broker.answer.remote(report.number, reason)
            if self.running.training:
                with self.lock:
                    self.parent.tick()
        self.data_thread.shutdown()
        if self.problem:
            raise self.problem
        if reason := self.running.run.stop_requested():
            self.parent.tell("stopped", reason)
            raise Interrupted(f"{self.running.stopped}; every trial is saved. Resume with: {self.running.command}")

    # ── in Tune's thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _tune(self, job: TrainJob) -> None:
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.slots.count)  # otherwise the first trials start one by one
        run, self.retries = self.running.run, job.workers.retries
        try:
            with scratch(run.folder, on_every_node=sum(node["Alive"] for node in ray.nodes()) > 1) as place:  # type: ignore[no-untyped-call]
                tune.Tuner(
                    tune.with_resources(
                        partial(_trial_process, self.broker, run.folder.uri, run.claim), self.slots.of_trial
                    ),
                    tune_config=tune.TuneConfig(
                        search_alg=_StudySearcher(self),
                        num_samples=-1,
                        reuse_actors=True,
                        max_concurrent_trials=self.slots.count,
                    ),
                    run_config=tune.RunConfig(
                        name=run.name,
                        storage_path=place,
                        failure_config=tune.FailureConfig(max_failures=self.retries),
                        callbacks=[_TrialEnds(self)],
                        verbose=0,
                        progress_reporter=tune.CLIReporter(),  # that of a notebook clears the output of the cell
                    ),
                ).fit()
        except BaseException as error:
            self.problem = self.problem or error

    def next_folder(self) -> str | None:
        """The folder of the next trial; empty if there is none until another one ends, None if there is none at all."""
        try:
            with self.lock:
                if self.problem or self.running.run.stop_requested():
                    return None
                found, self.first = self.first or self.next(), None
                if not found:
                    return "" if self.live else None
                self.live[found[0].folder] = found
                self.parent.trial_began(found[0])
            self.data_thread.submit(self._prepare, *found)
            return found[0].folder
        except BaseException as error:
            self.problem = error
            return None

    def ended(self, folder: str, lost: str = "") -> None:
        """Handles the end of a trial. Its run folder says how it ended; `lost`: why its process could not."""
        try:
            with self.lock:
                trial, child = self.live.pop(folder)
                if not end_of(child) and (lost or not (self.problem or self.running.run.stop_requested())):
                    times = f"lost {self.retries + 1} times" if self.retries else "lost"
                    keep_failure(
                        child,
                        describe(TrainingError(f"its process was {times}: {lost or 'it ended without a result'}")),
                    )
                self.parent.trial_left(trial)
                if outcome := end_of(child):
                    if failure := child.failure():
                        self.running.log_trace(failure.trace)
                    self.surveys.keep(child, trial.job)
                    self.study.tell(trial, outcome)
                    self.parent.trial_ended(outcome.status)
            self.broker.clear.remote(folder)
        except BaseException as error:
            self.problem = error

    # ── in the thread that prepares data ────────────────────────────────────────────────────────────────────────────

    def _prepare(self, trial: Trial, child: RunFolder) -> None:
        """Puts the trial's assignment into the broker; None if its data cannot be loaded."""
        assignment = None
        try:
            shared = self.datasets.of(trial.job)
            self.running.begin_training()
            assignment = _Assignment(trial, dict(shared), self.slots.share, grants())
        except LehrError as error:
            keep_failure(child, describe(error))
        except BaseException as error:
            self.problem = error
        # As a reference in a list, which the broker passes on unopened: it need not import what the trial needs, and a
        # trial that cannot be unpickled fails in its own process, where Tune sees it.
        self.broker.put.remote(trial.folder, assignment and [ray.put(assignment)])

    def _shared_data(self, job: TrainJob) -> dict[str, Handle]:
        """A job's images in the object store, where the processes of all trials map the same memory."""
        return share(open_data(job, self.host, self.running))


class _NotRestored:
    """Has no state to pickle: Tune would restore itself after a crash, lehr resumes from the run folder."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StudySearcher(_NotRestored, Searcher):
    """The study as a search algorithm of Tune: it only passes on which trial comes next."""

    def __init__(self, runner: _TrialRunner) -> None:
        super().__init__()
        self.runner = runner

    def suggest(self, trial_id: str) -> Any:
        folder = self.runner.next_folder()
        return {"folder": folder} if folder else None if folder == "" else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Left to `_TrialEnds`, which knows the reason."""

    def save(self, checkpoint_path: str) -> None:
        """There is nothing to save: the run folder has it."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """As `save`."""

    def restore(self, checkpoint_path: str) -> None:
        """As `save`."""


class _TrialEnds(_NotRestored, tune.Callback):
    """Tells the runner that Tune has seen a trial end."""

    def __init__(self, runner: _TrialRunner) -> None:
        self.runner = runner

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.runner.ended(trial.config["folder"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines() or ["it disappeared"]
        self.runner.ended(trial.config["folder"], lines[0][:300])


# ── in the process of a trial ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Assignment:
    """What a trial's process needs."""

    trial: Trial
    shared: dict[str, Handle]
    share: WorkerResources
    grants: tuple[str, ...]


def _trial_process(broker: Any, parent: str, claim: Claim | None, config: Mapping[str, Any]) -> None:
    """Runs a trial and returns however it ended: the run folder says how. Tune only handles a lost process."""
    found: list[ray.ObjectRef[Any]] | None = ray.get(broker.get.remote(config["folder"]))
    if found is None:
        return
    run = RunFolder.open(Folder.at(parent).child(config["folder"]), claim)
    try:
        assignment = _opened(found[0])
        job = assignment.trial.job
        look_in(job.folder)
        adopt(assignment.grants)
        run_it = partial(_run_trainable, assignment.trial, broker, parent)
        if assignment.share.most > 1:
            fit(job, run, assignment.shared, assignment.share, run_it)
            if failure := run.failure():
                keep_failure(run, failure)
            return
        torch.set_num_threads(max(1, int(assignment.share.cpus)))
        device = torch.device("cuda" if assignment.share.gpus and torch.cuda.is_available() else "cpu")
        data = {name: handle.open() for name, handle in assignment.shared.items()}
        run_it(Plan.make(job, splits(job, data)), run, Group(device=device))
    except (ray.exceptions.RayError, RunLost):
        raise  # the broker or the data are lost, or the trial is another process's now: it has not failed
    except Exception as error:
        keep_failure(run, describe(error))
    finally:
        if torch.cuda.is_available():  # what one trial leaves on a GPU is missing for the next one
            gc.collect()
            torch.cuda.empty_cache()


def _opened(reference: ray.ObjectRef[Any]) -> _Assignment:
    """The assignment. Raises TrainingError if it names something that this process cannot import."""
    try:
        assignment: _Assignment = ray.get(reference)
    except ray.exceptions.RaySystemError as error:  # what Ray makes of any error in unpickling
        raise TrainingError(f"the trial cannot be loaded in its process: {last_line(error)}") from error
    return assignment


def _run_trainable(trial: Trial, broker: Any, parent: str, plan: Plan, run: RunFolder, group: Group) -> None:
    """Runs a trial in this process; it reports every epoch to the study."""

    def after_epoch(row: Mapping[str, float]) -> str | None:
        reason: str | None = ray.get(broker.report.remote(trial.folder, dict(row)))
        return reason

    should_stop = stop_watcher(RunFolder.open(parent))
    if trial.deadline:
        should_stop = trial.deadline.watch(should_stop)
    trial.trainable(plan, run, group, TrialCallbacks(should_stop, after_epoch))
