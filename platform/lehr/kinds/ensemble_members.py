"""The members of an ensemble: which trainings a job needs, and how their results become members."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast

from torch import Tensor

from lehr import trust
from lehr.durations import RunLength
from lehr.errors import LehrError, RunError
from lehr.formatting import format_folder
from lehr.job import EnsembleJob, TrainJob, derive, from_dict, to_dict
from lehr.job.ensemble import AVERAGES, CYCLES, MEMBERS
from lehr.models.description import ModelDescription
from lehr.result import find
from lehr.runs import (
    BestValue,
    DamagedCheckpoint,
    Folder,
    Overview,
    Progress,
    RunFolder,
    has_model,
    read_model,
    steps_per_epoch,
)
from lehr.runs.checkpoints import load, newest_valid, saved
from lehr.training.setup import cycle_ends
from lehr.trials import Outcome, Trial

SNAPSHOTS, SINGLE = "trials/snapshots", "trials/single"
FULL_LENGTH = {"train.early_stopping": None, "train.stop_on": None}  # equal budgets must be spent in full

Collected: TypeAlias = tuple[list[str], list[str]]
"""The names of the members, and warnings for people."""


@dataclass(frozen=True)
class EnsemblePlan:
    """What an ensemble job needs.

    Attributes:
        trials: the trainings.
        jobs: the members' jobs; the ensemble is evaluated on the validation and test rows of the first.
        single: the folder of the trial that is only compared with; None for none.
        finished_runs: finished runs that become members without training.
    """

    trials: tuple[Trial, ...]
    jobs: tuple[TrainJob, ...]
    single: str | None = None
    finished_runs: tuple[RunFolder, ...] = ()


@dataclass(frozen=True)
class TrainedEnsemble:
    """An ensemble whose trainings have all ended."""

    run: RunFolder
    job: EnsembleJob
    plan: EnsemblePlan
    outcomes: Mapping[str, Outcome]

    @property
    def baseline(self) -> Folder | None:
        """The run folder of the model to compare with: the single network or, for averages, the raw weights."""
        single = self.outcomes.get(self.plan.single or "")
        if single and single.status == "finished":
            return single.run.folder
        return self.run.folder.child("members/raw") if self.job.method == "average" and self.job.compare else None


def plan_ensemble(job: EnsembleJob) -> EnsemblePlan:
    """The trainings of a job. Raises JobError if one of them is impossible, or a run that it names cannot be used."""
    if job.method == "snapshot":
        return _plan_snapshots(job)
    if job.method == "average":
        return _plan_averages(job)
    if isinstance(job.members, dict) or (isinstance(job.members, list) and isinstance(job.members[0], str)):
        return _plan_finished_runs(job)
    return _plan_independent(job)


def collect_members(trained: TrainedEnsemble) -> Collected:
    """Writes `members/`: each member is a run folder with a model. Members that exist already are kept.

    Raises:
        LehrError: there are no members.
    """
    collectors = {"snapshot": _collect_snapshots, "average": _collect_averages, "independent": _collect_independent}
    members, warnings = collectors[trained.job.method](trained)
    if not members:
        reasons = [outcome.message for outcome in trained.outcomes.values() if outcome.status == "failed"]
        raise LehrError(f"no member finished: {reasons[0] if reasons else 'nothing was trained'}")
    if trained.plan.single and trained.outcomes[trained.plan.single].status == "failed":
        warnings.append("The single network failed, so there is nothing to compare with.")
    return members, warnings


def held_out_rows(job: TrainJob) -> str:
    """A key that two jobs share exactly if they hold out the same rows for validation and test."""
    data = to_dict(job.data)
    decides = ("source", "path", "validation", "test", "image_size", "split", "group", "stratify", "fold")
    parts: dict[str, Any] = {name: data[name] for name in decides}
    if not isinstance(parts["validation"], str) or parts["validation"] == "auto":
        parts["seed"] = job.seed if job.data.split_seed is None else job.data.split_seed
    return json.dumps(parts, sort_keys=True)


# ── snapshots of one run ────────────────────────────────────────────────────────────────────────────────────────────


def _plan_snapshots(job: EnsembleJob) -> EnsemblePlan:
    schedule = job.base.schedule
    changes: dict[str, Any] = {**FULL_LENGTH, "train.checkpoint.snapshots": True}
    if schedule.name != "cyclic":
        cycles = job.cycles or CYCLES
        changes["schedule"] = {"name": "cyclic", "cycles": cycles, "warmup": str(schedule.warmup)}
    if job.restart_rate is not None:
        changes["optimizer.lr"] = job.restart_rate
    trial = Trial(SNAPSHOTS, derive(job.base, changes, parent=job, name=SNAPSHOTS))
    return _with_single(job, (trial,), job.base.train.epochs)


def _collect_snapshots(trained: TrainedEnsemble) -> Collected:
    outcome = trained.outcomes[SNAPSHOTS]
    if outcome.status == "failed":
        return [], []
    source, length = outcome.run, run_length(outcome.run, trained.plan.jobs[0])
    ends, there = cycle_ends(trained.plan.jobs[0], length), saved(source.folder)
    members: list[str] = []
    lost: list[str] = []
    for number, step in enumerate(ends, 1):
        if step in there:
            what = f"snapshot {number} of {len(ends)}, after epoch {step / length.steps_per_epoch:g}"
            member = f"{number:02}"
            try:
                _write_member(trained.run, member, source, partial(_snapshot_weights, source, there[step]), what)
            except DamagedCheckpoint as error:
                lost.append(f"{what[:1].upper()}{what[1:]}, is left out: {error}")
            else:
                members.append(member)
    missing = len(ends) - len(members) - len(lost)
    warnings = [f"{missing} of {len(ends)} cycles were not finished: {outcome.message}"] if missing else []
    return members, [*warnings, *lost]


def _snapshot_weights(run: RunFolder, name: str) -> dict[str, Tensor]:
    return load(run.folder, name).model


def run_length(run: RunFolder, job: TrainJob) -> RunLength:
    """The length of the training that the snapshots are taken from, in optimizer steps."""
    per_epoch = steps_per_epoch(run)
    assert per_epoch is not None, "a finished training has counted its steps"
    return RunLength(per_epoch, per_epoch * job.train.epochs)


# ── independent networks ────────────────────────────────────────────────────────────────────────────────────────────


def _plan_independent(job: EnsembleJob) -> EnsemblePlan:
    members = job.members or MEMBERS
    changes: list[dict[str, Any]] = (
        [{"seed": job.base.seed + number} for number in range(members)]
        if isinstance(members, int)
        else [dict(change) for change in members if isinstance(change, dict)]
    )
    split = job.base.seed if job.base.data.split_seed is None else job.base.data.split_seed
    trials = []
    for number, change in enumerate(changes, 1):
        folder = f"members/{number:02}"
        trials.append(Trial(folder, derive(job.base, {"data.split_seed": split, **change}, parent=job, name=folder)))
    return _with_single(job, tuple(trials), sum(trial.job.train.epochs for trial in trials))


def _collect_independent(trained: TrainedEnsemble) -> Collected:
    copied = []
    for number, run in enumerate(trained.plan.finished_runs, 1):
        copied.append(f"{number:02}")
        _write_member(trained.run, copied[-1], run, partial(_model_weights, run), f"model of {run.name}")
    members = [
        trial.folder.rpartition("/")[2]
        for trial in trained.plan.trials
        if trial.folder.startswith("members/") and trained.outcomes[trial.folder].status == "finished"
    ]
    return [*copied, *members], []


def _model_weights(run: RunFolder) -> dict[str, Tensor]:
    return read_model(run.folder)[0]


def _plan_finished_runs(job: EnsembleJob) -> EnsemblePlan:
    if isinstance(job.members, dict):
        runs = _best_trials(job, **job.members)
    else:
        assert isinstance(job.members, list)
        runs = [_find_run(job, str(name)) for name in job.members]
    jobs = []
    for run in runs:
        described = ModelDescription.from_json(read_model(run.folder)[1])
        member = from_dict(run.job)
        trust.check([*trust.calls_of(to_dict(member)), *described.calls], format_folder(run.folder))
        if not isinstance(member, TrainJob):
            raise job.error("members", f"{run.name} is a run of kind {member.kind}; allowed: runs of kind train")
        jobs.append(member)
    return EnsemblePlan((), tuple(jobs), finished_runs=tuple(runs))


def _best_trials(job: EnsembleJob, top: int, of: str) -> list[RunFolder]:
    """The best `top` trials of the search `of`."""
    parent = _find_run(job, of)
    trials = [run for run in parent.children("trials") if has_model(run.folder)]
    outcomes = [(run, outcome.best) for run in trials if (outcome := run.outcome())]
    ranked = [(best, run) for run, best in outcomes if best.value is not None]
    if not ranked:
        raise job.error("members.of", f"{parent.name} has no finished trials; allowed: a search")
    trial = from_dict(outcomes[0][0].job)
    assert isinstance(trial, TrainJob)
    sign = 1 if trial.lower_is_better(outcomes[0][1].metric) else -1

    def rank(best: BestValue) -> tuple[float, float]:
        return sign * cast(float, best.value), math.inf if best.loss is None else best.loss

    return [run for _, run in sorted(ranked, key=lambda pair: rank(pair[0]))[:top]]


def _find_run(job: EnsembleJob, name: str) -> RunFolder:
    try:
        return find(name, job.storage).record
    except RunError as error:
        raise job.error("members", str(error)) from None


# ── averages of one run's weights ───────────────────────────────────────────────────────────────────────────────────


def _plan_averages(job: EnsembleJob) -> EnsemblePlan:
    trials = []
    for number, section in enumerate(job.averages or AVERAGES, 1):
        folder = f"trials/average-{number}"
        changes = {**FULL_LENGTH, "train.averaging": section.model_dump(mode="json", exclude_none=True)}
        trials.append(Trial(folder, derive(job.base, changes, parent=job, name=folder)))
    return EnsemblePlan(tuple(trials), tuple(trial.job for trial in trials))


def _collect_averages(trained: TrainedEnsemble) -> Collected:
    """The raw weights, which are the same in all these runs, and each average."""
    members: list[str] = []
    for trial in trained.plan.trials:
        outcome, averaging = trained.outcomes[trial.folder], trial.job.train.averaging
        if outcome.status == "failed" or averaging is None:
            continue
        newest, _ = newest_valid(outcome.run.folder)
        assert newest is not None
        if not members:
            members.append("raw")
            _write_member(trained.run, "raw", outcome.run, partial(dict, newest.model), "raw weights")
        name = f"{averaging.kind}-{trial.folder.rpartition('-')[2]}" if averaging.kind in members else averaging.kind
        what = f"{averaging.kind} average of the weights"
        _write_member(trained.run, name, outcome.run, partial(dict, newest.average or {}), what)
        members.append(name)
    return members, []


# ── shared by all methods ───────────────────────────────────────────────────────────────────────────────────────────


def _with_single(job: EnsembleJob, trials: tuple[Trial, ...], epochs: int) -> EnsemblePlan:
    """The trials and, if the job compares, one network that is trained for `epochs` with a single cosine schedule."""
    jobs = tuple(trial.job for trial in trials)
    if not job.compare:
        return EnsemblePlan(trials, jobs)
    schedule = {"name": "cosine", "warmup": str(job.base.schedule.warmup)}
    changes: dict[str, Any] = {**FULL_LENGTH, "train.epochs": epochs, "schedule": schedule}
    single = Trial(SINGLE, derive(job.base, changes, parent=job, name=SINGLE))
    return EnsemblePlan((*trials, single), jobs, single.folder)


def _write_member(
    parent: RunFolder, name: str, source: RunFolder, weights: Callable[[], dict[str, Tensor]], what: str
) -> None:
    """Makes `members/NAME` a run folder, with the job of `source` and a model with these weights.

    Args:
        weights: called only if the member does not exist yet.
        what: where the weights come from, for people.
    """
    folder = parent.folder.child(f"members/{name}")
    if has_model(folder):
        return
    if folder.exists("job.yaml"):
        member = RunFolder(folder, parent.claim)
    else:
        member = RunFolder.create(folder, source.job, source.environment, parent.claim)
    described = ModelDescription.from_json(read_model(source.folder)[1])
    description = replace(described, origin={"run": source.name, "what": what}, metrics={})
    member.write_model(weights(), description.to_json())
    member.write_progress(Progress("finished", what, overview=Overview(headline=what, done=1.0)))
