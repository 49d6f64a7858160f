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
from lehr.job import TrainJob
from lehr.machine import cores
from lehr.training.failures import describe
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.trials.children import end_of, keep_failure, open_child
from lehr.trials.dataset_cache import DatasetCache
from lehr.trials.parent_progress import ParentProgress
from lehr.trials.study import Study
from lehr.trials.trainable import TrialCallbacks


def run_locally(
    running: Running, study: Study, held: tuple[TrainJob, Mapping[str, Images | Stream]] | None = None
) -> None:
    """Runs the study's trials until it proposes no more.

    Args:
        held: a job whose data were opened before, and they.

    Raises:
        Interrupted: the job was asked to stop; every trial is saved, and running the job again resumes it.
    """
    host = LocalHost()
    datasets: DatasetCache[Images | Stream] = DatasetCache(lambda job: open_data(job, host, running))
    if held:
        datasets.add(*held)
    torch.set_num_threads(cores())
    group = Group(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def should_stop() -> str | None:
        running.check_lease()
        return running.run.stop_requested()

    parent = ParentProgress(running, study)
    while trial := study.ask():
        parent.count("running")
        child = open_child(running.run, trial)
        if not (outcome := end_of(child)):
            running.begin_training()
            callbacks = TrialCallbacks(should_stop, partial(study.epoch, trial))
            try:
                plan = Plan.make(trial.job, splits(trial.job, datasets.of(trial.job)))
                trial.trainable(plan, child, group, callbacks)
            except RunLost:
                raise
            except Exception as error:
                keep_failure(child, describe(error))
            outcome = end_of(child)
        parent.counts["running"] -= 1
        if not outcome:
            parent.tell("stopped", running.run.stop_requested() or "")
            raise Interrupted(f"Stopped in {trial.folder}; everything is saved. Resume with: {running.command}")
        study.tell(trial, outcome)
        parent.count(outcome.status)
