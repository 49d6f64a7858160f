"""The run folders of trials: created, reopened, and read for how a trial ended."""

from __future__ import annotations

from dataclasses import replace

from lehr.driver import changes
from lehr.errors import RunError
from lehr.job import to_dict
from lehr.runs import Failure, RunFolder
from lehr.trials.study import Outcome, Trial
from lehr.trust import calls_of, remember


def open_child(parent: RunFolder, trial: Trial) -> RunFolder:
    """The trial's run folder: new, or as an earlier attempt left it. A trial may be resumed with more epochs.

    Raises:
        RunError: the folder holds a trial of another job.
    """
    folder, job = parent.folder.child(trial.folder), to_dict(trial.job)
    remember(calls_of(job))
    if not folder.exists("job.yaml"):
        return RunFolder.create(folder, job, parent.environment, parent.claim)
    child = RunFolder.open(folder, parent.claim)
    longer = trial.goes_on
    if child.job != job:
        if changed := changes(child, trial.job):
            raise RunError(f"{parent.name}/{trial.folder} holds another trial ({changed}); start over: --fresh")
        longer = longer or trial.job.train.epochs > child.job["train"]["epochs"]
        child.write_job(job)
    if longer:
        child.begin()
    return child


def end_of(child: RunFolder) -> Outcome | None:
    """How a trial ended; None while something is left to do."""
    if failure := child.failure():
        return Outcome("failed", failure.sentence, child)
    ended = child.outcome()
    if ended is None or ended.status == "stopped":
        return None
    return Outcome("finished" if ended.status == "finished" else "failed", ended.message, child)


def keep_failure(child: RunFolder, failure: Failure) -> None:
    """Records why a trial failed; it will not be trained again."""
    child.fail(failure)
    child.write_progress(replace(child.progress(), status="failed", message=failure.sentence))
