"""Which run folder a job gets: a new one, or that of an earlier attempt at the same job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from lehr.driver.kind import FILES_OF_EVERY_RUN, FOLDERS_OF_EVERY_RUN, Kind
from lehr.durations import RunLength
from lehr.errors import JobError, RunError
from lehr.job import FoldsJob, Job, Training, TrainJob, changes_of_run, describe_changes, extends, from_dict, to_dict
from lehr.paths import state_folder
from lehr.runs import Claim, Environment, Folder, RunFolder, check_writable, saved, steps_per_epoch
from lehr.runs.attempts import newest_number
from lehr.runs.progress import outcome_name

STARTED_OVER = "started-over.txt"
"""In a run folder: the word with which it was last started over."""


def choose_run_folder(job: Job, *, fresh: bool) -> tuple[Folder, RunFolder | None]:
    """The job's run folder, and the run that it already holds if it belongs to the same job.

    If a run of another job has the name, a default name is changed (`train-2`) and an explicit one is refused.

    Raises:
        RunError: the explicit name belongs to a run of another job; the difference is in the sentence. Or the folder
            holds what is left of a run without its job.
    """
    storage = Folder.at(job.storage)
    for number in count(1):
        folder = storage.child(job.run_name if number == 1 else f"{job.run_name}-{number}")
        if not folder.exists("job.yaml"):
            if not fresh and (left := sorted({*FOLDERS_OF_EVERY_RUN, "attempts", "trials"} & {*folder.folders()})):
                raise RunError(
                    f"{folder.uri}: holds {', '.join(left)} of a run but no job.yaml, which says what they are of; put "
                    "that file back, or delete them and start over with --fresh"
                )
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
    """How the job differs from that of the run, in words; empty if the run can be resumed with it."""
    try:
        old = to_dict(from_dict(existing.job))
    except JobError:
        return "it was written by another version of lehr"
    job = as_recorded(job, existing)
    changed = changes_of_run(old, to_dict(job))
    if set(changed) == {"train.epochs"} and keeps_rate(existing, job):
        return ""
    return describe_changes(changed)


def as_recorded(job: Job, existing: RunFolder) -> Job:
    """The job with the learning rate that its earlier run recorded, where it says none: defaults may have changed."""
    base = job if isinstance(job, Training) else getattr(job, "base", None)
    recorded = existing.job if base is job else existing.job.get("base")
    old = recorded.get("optimizer") if isinstance(recorded, Mapping) else None
    if not isinstance(base, Training) or not isinstance(old, Mapping):
        return job
    section, rate = base.optimizer, old.get("lr")
    if "lr" in section.model_fields_set or section.name != old.get("name") or not isinstance(rate, float):
        return job
    found = base.model_copy(update={"optimizer": section.at_rate(rate)})
    return found if isinstance(found, Job) else job.model_copy(update={"base": found})


def keeps_rate(existing: RunFolder, job: Job) -> bool:
    """Whether all saved steps keep their learning rate under the new number of epochs."""
    from lehr.training.setup import learning_rate

    if isinstance(job, FoldsJob):  # its folds have the steps; another length is another run
        return False
    steps = saved(existing.folder)
    if not steps:  # nothing was saved, so every step is taken again
        return True
    old = from_dict(existing.job)
    if not isinstance(job, TrainJob) or not isinstance(old, TrainJob) or job.train.epochs < old.train.epochs:
        return False
    if job.finetune:  # when layers unfreeze may depend on the length of the run
        return False
    if (per_epoch := steps_per_epoch(existing)) is None:
        return False
    before, after = (learning_rate(each, RunLength(per_epoch, per_epoch * each.train.epochs)) for each in (old, job))
    return all(before(step) == after(step) for step in range(max(steps)))


def is_done(job: Job, existing: RunFolder) -> bool:
    """Whether nothing is left to do for this job."""
    outcome = existing.outcome()
    if outcome is None or outcome.status != "finished":
        return False
    return not extends(existing.job, to_dict(job))


def starts_over(job: Job, word: str) -> bool:
    """Whether a job's run has not been started over with this word yet: a retry of the same start goes on."""
    folder = Folder.at(job.storage).child(job.run_name)
    return bool(word) and not (folder.exists(STARTED_OVER) and folder.read(STARTED_OVER) == word.encode())


def open_run(
    kind: Kind, job: Job, folder: Folder, existing: RunFolder | None, claim: Claim, *, fresh: bool, once: str = ""
) -> RunFolder:
    """The run folder ready for an attempt: new, emptied, or as the last attempt left it; `once` as in `starts_over`."""
    if fresh:
        for name in (*FOLDERS_OF_EVERY_RUN, *kind.folders):
            folder.child(name).delete_all()
        for name in (*FILES_OF_EVERY_RUN, *kind.files, outcome_name(newest_number(folder))):
            folder.delete(name)
        if once:
            folder.write(STARTED_OVER, once.encode())
        existing = None
    folder.make()  # the log and the lease are in it already, but nobody has synced its name
    if existing is None:
        environment = Environment.collect(seed=job.seed, source=job.folder)
        environment = replace(environment, job_file=job.file, overrides=dict(job.overrides))
        environment = replace(environment, submitted_from=job.submitted_from)
        run = RunFolder.create(folder, to_dict(job), environment, claim)
    else:
        run = RunFolder.open(folder, claim)
        run.begin()
        run.clear_stop()
        run.clear_failure()
        if run.job != to_dict(job):
            run.write_job(to_dict(job))
    if not isinstance(job, TrainJob):  # the workers of a training begin its attempts
        run.begin_attempt(workers=0)
    return run


def log_file(folder: Folder) -> Path:
    """The log file: in a local run folder, else in a folder of this user's.

    Raises RunError, with what to type instead, where this user may not write the run.
    """
    check_writable(folder)
    if folder.is_local:
        return folder.local_path / "log.txt"
    return state_folder("logs") / f"{folder.name}.txt"
