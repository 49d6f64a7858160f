"""Trials one after another in this process, without Ray: breakpoints work."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from lehr.data.dataset import Images
from lehr.data.door import LocalHost, open_data
from lehr.data.load import splits
from lehr.data.streaming import Stream
from lehr.driver import Interrupted, Running
from lehr.errors import RunLost
from lehr.machine import cores
from lehr.training.failures import describe
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.trials.children import end_of, keep_failure, open_child
from lehr.trials.dataset_cache import DatasetCache, SharedData
from lehr.trials.parent_progress import ParentProgress
from lehr.trials.study import Study, Trial
from lehr.trials.trainable import TrialCallbacks


def run_locally(running: Running, study: Study, shared: SharedData) -> None:
    """Runs the study's trials until it proposes no more.

    Raises:
        Interrupted: the job was asked to stop; every trial is saved, and running the job again resumes it.
    """
    host = LocalHost()
    surveys = shared.surveys
    datasets: DatasetCache[Images | Stream] = shared.cache(lambda job: open_data(job, host, running))
    torch.set_num_threads(cores())
    group = Group(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    parent = ParentProgress(running, study)

    def should_stop() -> str | None:
        running.check_lease()
        parent.tick()
        return running.run.stop_requested()

    def after_epoch(trial: Trial, row: Mapping[str, float]) -> str | None:
        parent.trial_epoch(trial, row)
        return study.epoch(trial, row)

    while trial := study.ask():
        parent.trial_began(trial)
        child = open_child(running.run, trial)
        if not (outcome := end_of(child)):
            running.begin_training()
            surveys.lend(child, trial.job)
            watched = trial.deadline.watch(should_stop) if trial.deadline else should_stop
            callbacks = TrialCallbacks(watched, partial(after_epoch, trial))
            try:
                plan = Plan.make(trial.job, splits(trial.job, datasets.of(trial.job)))
                trial.trainable(plan, child, group, callbacks)
            except RunLost:
                raise
            except Exception as error:
                keep_failure(child, describe(error))
            outcome = end_of(child)
        parent.trial_left(trial)
        if not outcome:
            parent.tell("stopped", running.run.stop_requested() or "")
            where = f"in {trial.folder}; everything is saved"
            raise Interrupted(f"{running.stopped} {where}. Resume with: {running.command}")
        surveys.keep(child, trial.job)
        study.tell(trial, outcome)
        parent.trial_ended(outcome.status)
