"""`kind: ensemble`: trains several networks, combines them, and compares them with one network of the same budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np

from lehr.driver import Kind, Running
from lehr.ensembles import SELECTIONS
from lehr.ensembles.combine import Floats, Labels
from lehr.ensembles.evaluation import EnsembleEvaluation, evaluate_ensemble
from lehr.ensembles.report import report_page
from lehr.ensembles.verdict import BASELINE_NAME, verdict
from lehr.errors import LehrError
from lehr.formatting import format_folder, format_metric, format_seconds
from lehr.intervals import in_words
from lehr.job import EnsembleJob, Training, TrainJob, from_dict, refuse_unused
from lehr.job.training import measured
from lehr.kinds import ensemble_values
from lehr.kinds.ensemble_members import (
    SNAPSHOTS,
    EnsemblePlan,
    TrainedEnsemble,
    collect_members,
    held_out_rows,
    plan_ensemble,
    run_length,
)
from lehr.predict import EnsembleDescription, EnsembleMember
from lehr.predict.outputs import read_outputs, record_outputs
from lehr.runs import Overview, Progress, RunFolder, Table
from lehr.tasks.forms import USUAL, form_of
from lehr.training.setup import check_job, complete_base, cycle_ends
from lehr.trials import Outcome, StudyProgress, Trial, run_trials, work_of

SCORES = "trials/scores"  # the trial that records the members' outputs


def check(job: EnsembleJob) -> None:
    """Raises JobError for impossible trainings, and for members that validate on rows which others are trained on."""
    refuse_unused(job)
    complete_base(job, job.base)
    plan = plan_ensemble(job)
    names = {each.task.name for each in plan.jobs}
    if len(names) > 1:
        raise job.error("members", f"they have different tasks, {', '.join(sorted(names))}; allowed: the same for all")
    if not by_class(plan.jobs[0]):
        ensemble_values.refuse(job, plan.jobs[0])
    for trial in plan.trials:
        check_job(trial.job)
    if len({held_out_rows(member) for member in plan.jobs}) > 1:
        what = "they do not all hold out the same rows, so some would validate on rows that others were trained on"
        raise job.error("members", f"{what}; allowed: the same data and split seed for all")


def run(running: Running) -> None:
    """Trains and evaluates the members, chooses their weights, and ends with the report."""
    job, run = cast(EnsembleJob, running.job), running.run
    study = EnsembleStudy(running, job, plan_ensemble(job))
    if study.plan.finished_runs and job.base != Training(seed=job.base.seed):
        running.screen.say("The members are finished runs, so nothing of base is used.")
    run_trials(running, study, at_most=len(study.plan.trials) or 1)
    validation, evaluated = read_outputs(run.folder.child(SCORES), len(study.members))
    if not by_class(study.plan.jobs[0]):
        metric = metric_of(study.plan.jobs[0])
        ensemble_values.describe(job, run, study.members, validation)
        values = ensemble_values.evaluate_run(run, evaluated)
        ensemble_values.keep(run, values)
        sentences = ensemble_values.verdict(values, job, metric)
        run.write_progress(ensemble_values.finished(run.progress(), values, sentences, metric))
        report(run)
        _say(running, sentences)
        return
    weights = choose_weights(job, validation.logits, validation.labels).tolist()
    members = (EnsembleMember(f"members/{name}", w) for name, w in zip(study.members, weights, strict=True))
    EnsembleDescription(job.combine.by, tuple(members), job.selection).write(run.folder)
    found = evaluate_run(run, job)
    sentences = verdict(found, job.method, _cycle_epochs(run, job))
    progress = _finished(run.progress(), job.method, found, sentences)
    run.write_progress(progress)
    _write_report(run, job, found, sentences)
    _say(running, sentences)


def by_class(member: TrainJob) -> bool:
    """Whether each row of a member's training has one class."""
    return member.task.name == USUAL


def metric_of(member: TrainJob) -> str:
    """What members are told by, where a row has no one class: what their metric measures, if the task does."""
    named = measured(member.train.metric)
    return form_of(member.task.name).metric if named.endswith("loss") or member.metric_entry(named) else named


def _first_member(run: RunFolder) -> TrainJob | None:
    """The training of the first member; None before there is one."""
    members = run.children("members")
    found = from_dict(members[0].job) if members else None
    return found if isinstance(found, TrainJob) else None


def _say(running: Running, sentences: Sequence[str]) -> None:
    run = running.run
    running.screen.close()
    for line in sentences:
        running.screen.say(line)
    running.screen.say(f"Time: {format_seconds(run.progress().seconds['total'])}")
    running.screen.say(f"Report: {format_folder(run.folder)}/report.html")
    running.screen.say(f"Predict with it: lehr predict {run.name} DATA OUT")


def report(run: RunFolder) -> None:
    """Writes the run's page again. Raises RunError if the members have not been evaluated yet."""
    job = from_dict(run.job)
    assert isinstance(job, EnsembleJob)
    first = _first_member(run)
    if first and run.folder.exists(ensemble_values.FILE):
        values, metric = ensemble_values.kept(run), metric_of(first)
        sentences = ensemble_values.verdict(values, job, metric)
        page = ensemble_values.report_page(run, job, values, sentences, metric)
        run.folder.write("report.html", page.encode())
        return
    found = evaluate_run(run, job)
    _write_report(run, job, found, verdict(found, job.method, _cycle_epochs(run, job)))


def choose_weights(job: EnsembleJob, logits: Floats, labels: Labels) -> Floats:
    """The members' weights, float64 [members], by the job's selection method on validation rows."""
    if job.combine.last is not None:
        count = min(job.combine.last, len(logits))
        return np.r_[np.zeros(len(logits) - count), np.full(count, 1 / count)]
    return SELECTIONS[job.selection](logits, labels, job.combine.by)


def evaluate_run(run: RunFolder, job: EnsembleJob) -> EnsembleEvaluation:
    """The evaluation of a finished ensemble. Raises RunError if it is not finished."""
    ensemble = EnsembleDescription.read(run.folder)
    names = [member.name for member in ensemble.members]
    weights = np.array([member.weight for member in ensemble.members])
    validation, evaluated = read_outputs(run.folder.child(SCORES), len(names))
    last_first = job.method == "snapshot"
    return evaluate_ensemble(names, weights, job.combine.by, validation, evaluated, last_first=last_first)


def _write_report(run: RunFolder, job: EnsembleJob, found: EnsembleEvaluation, sentences: Sequence[str]) -> None:
    run.folder.write("report.html", report_page(run, job, found, sentences).encode())


class EnsembleStudy:
    """The trials of an ensemble: first all trainings, then one trial that records the members' outputs.

    Attributes:
        members: once the trainings have ended, the names of the run folders in `members/`.
        outcomes: how the trials ended, by folder.
    """

    def __init__(self, running: Running, job: EnsembleJob, plan: EnsemblePlan) -> None:
        self.running, self.job, self.plan = running, job, plan
        self.members: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        self._epochs: dict[str, int] = {}
        self._accuracy: dict[str, float] = {}
        first = plan.jobs[0]
        self._shown = "validation_accuracy" if by_class(first) else f"validation_{metric_of(first)}"
        self._waiting = list(reversed(plan.trials))
        self._recording = False

    def ask(self) -> Trial | None:
        if self._waiting:
            return self._waiting.pop()
        if self._recording or len(self.outcomes) < len(self.plan.trials):
            return None
        self._recording = True
        trained = TrainedEnsemble(self.running.run, self.job, self.plan, self.outcomes)
        self.members, warnings = collect_members(trained)
        for warning in warnings:
            self.running.screen.say(warning)
        folders = [self.running.run.folder.child(f"members/{name}") for name in self.members]
        return Trial(SCORES, self.plan.jobs[0], record_outputs(folders, trained.baseline))

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self._epochs[trial.folder] = int(row["epoch"])
        if (value := row.get(self._shown)) is not None:
            self._accuracy[trial.folder] = value
        return None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.folder] = outcome
        if outcome.status == "failed":
            if trial.folder == SCORES:
                raise LehrError(f"the members could not be evaluated: {outcome.message}")
            if trial.folder == SNAPSHOTS:
                raise LehrError(f"no member finished: {outcome.message}")
            self.running.screen.say(f"{trial.folder} failed and is left out: {outcome.message}")
        else:
            self._epochs[trial.folder] = trial.job.train.epochs
            if outcome.best is not None and (
                trial.job.train.metric == self._shown or "accuracy" in trial.job.train.metric
            ):
                self._accuracy[trial.folder] = outcome.best

    def progress(self) -> StudyProgress:
        trials = self.plan.trials
        total = sum(trial.job.train.epochs for trial in trials)
        spent = sum(min(self._epochs.get(trial.folder, 0), trial.job.train.epochs) for trial in trials)
        ended = sum(trial.folder in self.outcomes for trial in trials)
        columns = ("training", "epochs", self._shown.replace("_", " "), "")
        overview = Overview(
            headline=f"{ended} of {len(trials)} trainings" if ended < len(trials) else "evaluating the members",
            done=0.98 * spent / total if total else 0.98,
            facts={"method": self.job.method, "epochs": f"{spent} of {total}"},
            table=Table(columns, tuple(map(self._table_row, trials))),
            epochs_spent=spent,
        )
        return StudyProgress(overview, work=work_of(trials, self._waiting, self.outcomes, self._epochs))

    def _table_row(self, trial: Trial) -> tuple[str, ...]:
        folder = trial.folder
        return (
            folder.rpartition("/")[2],
            f"{self._epochs.get(folder, 0)}/{trial.job.train.epochs}",
            format_metric(self._accuracy[folder], self._shown) if folder in self._accuracy else "",
            self.outcomes[folder].status if folder in self.outcomes else "",
        )


def _finished(progress: Progress, method: str, found: EnsembleEvaluation, sentences: Sequence[str]) -> Progress:
    """The last progress of an ensemble: what `lehr show` and others find."""
    facts = {"members": f"{found.used} of {len(found.names)}"}
    metrics: dict[str, float | None] = {
        f"{found.split}_error": found.ensemble.error,
        f"{found.split}_calibration_error": found.ensemble.calibration,
    }
    if found.baseline:
        facts[BASELINE_NAME[method]] = in_words(found.baseline.error, found.rows)
        metrics[f"{found.split}_single_error"] = found.baseline.error
    facts["calibration error"] = f"{found.ensemble.calibration:.2%}"
    rows = (
        (name, in_words(model.error, found.rows), f"{weight:.2f}")
        for name, model, weight in zip(found.names, found.members, found.weights.tolist(), strict=True)
    )
    overview = replace(
        progress.overview or Overview(),
        headline=f"{in_words(found.ensemble.error, found.rows)} error on {found.split} rows",
        done=1.0,
        facts=facts,
        table=Table(("member", "error", "weight"), tuple(rows)),
        verdict=tuple(sentences),
    )
    return replace(progress, status="finished", message=sentences[0], metrics=metrics, overview=overview)


def _cycle_epochs(run: RunFolder, job: EnsembleJob) -> float | None:
    """Epochs of the shortest cycle of a snapshot run."""
    if job.method != "snapshot":
        return None
    trained = RunFolder.open(run.folder.child(SNAPSHOTS))
    train_job = from_dict(trained.job)
    assert isinstance(train_job, TrainJob)
    length = run_length(trained, train_job)
    ends = [0, *cycle_ends(train_job, length)]
    return min(end - start for start, end in pairwise(ends)) / length.steps_per_epoch


KIND = Kind(
    check=check, run=run, report=report, files=("ensemble.json", ensemble_values.FILE), folders=("members", "trials")
)
