"""What the members of an ensemble are made of: the trainings, and what becomes a member once these are done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lehr.durations import Clock
from lehr.errors import LehrError, RunError
from lehr.job import EnsembleJob, TrainJob, derive, from_dict, to_dict
from lehr.job.ensemble import AVERAGES, CYCLES, MEMBERS
from lehr.result import find
from lehr.runs import Folder, RunFolder, read_model, write_model
from lehr.runs.checkpoints import load, name_of, names, newest_valid
from lehr.training.setup import cycle_ends
from lehr.trials import Outcome, Trial

WHOLE = {"train.early_stopping": None, "train.stop_on": None}  # equal budgets are budgets that are spent


@dataclass(frozen=True)
class Made:
    """What an ensemble job comes to.

    Attributes:
        trials: what is trained.
        jobs: the jobs of the members; the first one's validation and test rows are those that they are judged by.
        single: the trial that is only compared with, by its folder; None for none.
        copies: finished runs that are members as they are.
    """

    trials: tuple[Trial, ...]
    jobs: tuple[TrainJob, ...]
    single: str | None = None
    copies: tuple[RunFolder, ...] = ()


@dataclass(frozen=True)
class Trained:
    """The trainings of an ensemble, all ended."""

    run: RunFolder
    job: EnsembleJob
    plan: Made
    outcomes: Mapping[str, Outcome]

    @property
    def raw(self) -> Folder | None:
        """Of averages: the raw weights, which are what they are compared with."""
        return self.run.folder.child("members/raw") if self.job.method == "average" and self.job.compare else None


def made(job: EnsembleJob) -> Made:
    """The trainings of a job. Raises JobError where one of them cannot be, and RunError where a run is missing."""
    if job.method == "snapshot":
        return _snapshots(job)
    if job.method == "average":
        return _averages(job)
    if isinstance(job.members, dict) or (isinstance(job.members, list) and isinstance(job.members[0], str)):
        return _finished_runs(job)
    return _independent(job)


def settle(trained: Trained) -> tuple[list[str], list[str]]:
    """Makes the members in `members/`, each a run folder with a model; what is there already stays.

    Returns:
        (the names of the members, warnings for people).

    Raises:
        LehrError: there is no member at all.
    """
    makers = {"snapshot": _settle_snapshots, "average": _settle_averages, "independent": _settle_independent}
    members, warnings = makers[trained.job.method](trained)
    if not members:
        reasons = [outcome.message for outcome in trained.outcomes.values() if outcome.status == "failed"]
        raise LehrError(f"no member came to an end: {reasons[0] if reasons else 'nothing was trained'}")
    if trained.plan.single and trained.outcomes[trained.plan.single].status == "failed":
        warnings.append("The network to compare with failed; there is no comparison.")
    return members, warnings


def validation_rows(job: TrainJob) -> str:
    """A key that jobs share exactly when they hold out the same rows for validation and for the test."""
    data = to_dict(job.data)
    about: dict[str, Any] = {name: data[name] for name in ("source", "path", "validation", "test", "image_size")}
    if not isinstance(about["validation"], str) or about["validation"] == "auto":
        about["seed"] = job.seed if job.data.split_seed is None else job.data.split_seed
    return json.dumps(about, sort_keys=True)


# ── snapshots of one run ────────────────────────────────────────────────────────────────────────────────────────────


def _snapshots(job: EnsembleJob) -> Made:
    schedule = job.base.schedule
    changes: dict[str, Any] = {**WHOLE, "train.checkpoint.snapshots": True}
    if schedule.name != "cyclic":
        cycles = job.cycles or CYCLES
        changes["schedule"] = {"name": "cyclic", "cycles": cycles, "warmup": str(schedule.warmup)}
    if job.restart_rate is not None:
        changes["optimizer.lr"] = job.restart_rate
    trial = Trial("trials/snapshots", derive(job.base, changes, parent=job, name="trials/snapshots"))
    return _compared(job, (trial,), job.base.train.epochs)


def _settle_snapshots(trained: Trained) -> tuple[list[str], list[str]]:
    outcome = trained.outcomes["trials/snapshots"]
    if outcome.status == "failed":
        return [], []
    source, job = outcome.run, trained.plan.jobs[0]
    progress, there = outcome.run.progress(), set(names(source.folder))
    per_epoch = progress["total_steps"] // progress["epochs"]
    ends = cycle_ends(job, Clock(per_epoch, progress["total_steps"]))
    members = []
    for number, step in enumerate(ends, 1):
        if name_of(step) in there:
            said = f"snapshot {number} of {len(ends)}, after epoch {step / per_epoch:g}"
            member = f"{number:02}"
            _keep(trained.run, member, source, lambda step=step: load(source.folder, name_of(step)).model, said)
            members.append(member)
    missing = len(ends) - len(members)
    warnings = [f"{missing} of {len(ends)} cycles did not come to their end: {outcome.message}"] if missing else []
    return members, warnings


# ── independent networks ────────────────────────────────────────────────────────────────────────────────────────────


def _independent(job: EnsembleJob) -> Made:
    said = job.members or MEMBERS
    changes: list[dict[str, Any]] = (
        [{"seed": job.base.seed + number} for number in range(said)]
        if isinstance(said, int)
        else [dict(change) for change in said if isinstance(change, dict)]
    )
    split = job.base.seed if job.base.data.split_seed is None else job.base.data.split_seed
    trials = []
    for number, change in enumerate(changes, 1):
        folder = f"members/{number:02}"
        trials.append(Trial(folder, derive(job.base, {"data.split_seed": split, **change}, parent=job, name=folder)))
    return _compared(job, tuple(trials), sum(trial.job.train.epochs for trial in trials))


def _settle_independent(trained: Trained) -> tuple[list[str], list[str]]:
    for number, run in enumerate(trained.plan.copies, 1):
        _keep(trained.run, f"{number:02}", run, lambda run=run: read_model(run.folder)[0], f"the model of {run.name}")
    copied = [f"{number:02}" for number in range(1, len(trained.plan.copies) + 1)]
    members = [
        trial.folder.rpartition("/")[2]
        for trial in trained.plan.trials
        if trial.folder.startswith("members/") and trained.outcomes[trial.folder].status == "finished"
    ]
    return [*copied, *members], []


def _finished_runs(job: EnsembleJob) -> Made:
    if isinstance(job.members, dict):
        runs = _best_of(job, **job.members)
    else:
        assert isinstance(job.members, list)
        runs = [_run(job, str(name)) for name in job.members]
    jobs = []
    for run in runs:
        read_model(run.folder)
        member = from_dict(run.job)
        if not isinstance(member, TrainJob):
            raise job.error("members", f"{run.name} is a run of kind {member.kind}; allowed: runs of kind train")
        jobs.append(member)
    return Made((), tuple(jobs), None, tuple(runs))


def _best_of(job: EnsembleJob, top: int, of: str) -> list[RunFolder]:
    parent = _run(job, of)
    trials = [run for run in parent.children("trials") if run.folder.exists("model/model.json")]
    best = [(run, run.progress().get("best", {})) for run in trials]
    judged = [(run, about) for run, about in best if about.get("value") is not None]
    if not judged:
        raise job.error("members.of", f"{parent.name} has no finished trials; allowed: a search")
    sign = 1 if judged[0][1]["metric"].endswith("_loss") else -1
    return [run for run, about in sorted(judged, key=lambda pair: sign * pair[1]["value"])[:top]]


def _run(job: EnsembleJob, name: str) -> RunFolder:
    try:
        return find(name, job.storage).folder
    except RunError as error:
        raise job.error("members", str(error)) from None


# ── averages of one run's weights ───────────────────────────────────────────────────────────────────────────────────


def _averages(job: EnsembleJob) -> Made:
    trials = []
    for number, section in enumerate(job.averages or AVERAGES, 1):
        folder = f"trials/average-{number}"
        changes = {**WHOLE, "train.averaging": section.model_dump(mode="json", exclude_none=True)}
        trials.append(Trial(folder, derive(job.base, changes, parent=job, name=folder)))
    return Made(tuple(trials), tuple(trial.job for trial in trials))


def _settle_averages(trained: Trained) -> tuple[list[str], list[str]]:
    """The last weights as they are, and each average. The raw weights of all these runs are the same."""
    members: list[str] = []
    for trial in trained.plan.trials:
        outcome, averaging = trained.outcomes[trial.folder], trial.job.train.averaging
        if outcome.status == "failed" or averaging is None:
            continue
        newest, _ = newest_valid(outcome.run.folder)
        assert newest is not None
        if not members:
            members.append("raw")
            _keep(trained.run, "raw", outcome.run, lambda newest=newest: newest.model, "the last weights")
        name = f"{averaging.kind}-{trial.folder.rpartition('-')[2]}" if averaging.kind in members else averaging.kind
        said = f"{averaging.kind} average of the weights"
        _keep(trained.run, name, outcome.run, lambda newest=newest: newest.average or {}, said)
        members.append(name)
    return members, []


# ── what they share ─────────────────────────────────────────────────────────────────────────────────────────────────


def _compared(job: EnsembleJob, trials: tuple[Trial, ...], epochs: int) -> Made:
    """With one network beside them, if it is asked for, that is trained for `epochs` with a single cosine."""
    jobs = tuple(trial.job for trial in trials)
    if not job.compare:
        return Made(trials, jobs)
    schedule = job.base.schedule
    changes: dict[str, Any] = {**WHOLE, "train.epochs": epochs}
    changes["schedule"] = {"name": "cosine", "warmup": str(schedule.warmup)}
    single = Trial("trials/single", derive(job.base, changes, parent=job, name="trials/single"))
    return Made((*trials, single), jobs, single.folder)


def _keep(parent: RunFolder, name: str, source: RunFolder, weights: Any, said: str) -> None:
    """Makes `members/NAME` a run folder of its own: the job of `source`, and a model with these weights."""
    folder = parent.folder.child(f"members/{name}")
    if folder.exists("model/model.json"):
        return
    found: dict[str, Tensor] = weights()
    member = (
        RunFolder(folder) if folder.exists("job.yaml") else RunFolder.create(folder, source.job, source.environment)
    )
    _, description = read_model(source.folder)
    write_model(folder, found, {**description, "from": {"run": source.name, "what": said}, "metrics": {}})
    empty: dict[str, Any] = {"facts": {}, "table": {"columns": [], "rows": []}}
    member.write_progress({"status": "finished", "message": said, "done": 1.0, "headline": said, **empty})
