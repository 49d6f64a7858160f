"""`kind: train` with `folds: 5`: cross-validation, a network for each fold, validated on rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from lehr.curves import diagnose_run, verdict
from lehr.curves.of_folds import FOLDER
from lehr.curves.typed import as_typed
from lehr.data.load import OpenedSources
from lehr.data.sources import returns_dataset
from lehr.driver import Kind, Running
from lehr.errors import LehrError, RunError
from lehr.folds.out_of_fold import FILE as OUT_OF_FOLD
from lehr.folds.out_of_fold import OfFold, all_answers, measured, read_fold, table_of, write
from lehr.folds.results import FILE as RESULT
from lehr.folds.results import Fold, FoldsResult, name_of
from lehr.formatting import format_folder, format_metric, format_seconds
from lehr.job import FoldsJob, fold_job, refuse_unused
from lehr.predict import EnsembleDescription, EnsembleMember
from lehr.predict.outputs import record_outputs
from lehr.predict.predictor import load_network
from lehr.runs import BestValue, Overview, Progress, RunFolder, Table
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job
from lehr.training.task import task_of
from lehr.trials import Outcome, StudyProgress, Trial, TrialCallbacks, run_trials, work_of

SCORES = "scores"  # trials that record what each network says of the rows that it has not seen
ROUGHLY = "Folds share rows to train on, so the standard error is a rough one; the report says more."
TRAINED = 0.97  # share of the work that is done once all folds are trained


def check(job: FoldsJob) -> None:
    """Raises JobError for what can be refused before any data are read."""
    refuse_unused(job)
    check_job(fold_job(job, 1))


def run(running: Running) -> None:
    """Trains the folds, side by side where there is room, and ends with their mean, the page and what to do next."""
    job, run = cast(FoldsJob, running.job), running.run
    name = _row_names(running, job)
    study = FoldsStudy(running, job)
    run_trials(running, study, at_most=job.folds)
    if failed := study.failed:
        (folder, why), *others = failed.items()
        more = f" (and {len(others)} more)" if others else ""
        raise LehrError(f"{len(failed)} of {job.folds} folds failed, so there is no mean: {folder}: {why}{more}")
    folds = run.children(FOLDER)
    found = [
        read_fold(run.folder.child(SCORES, each.name), load_network(each.folder, run.folder).task) for each in folds
    ]
    table = table_of(found, name)
    write(run.folder, table)
    if answers := all_answers([each.folder for each in folds]):
        answers.write(run.folder)
    result = replace(study.result(), measured=measured(found), rows=table.num_rows)
    result.write(run.folder)
    describe(job, run, folds, found)
    run.write_progress(_finished(run.progress(), result, study.table))
    report(run)
    _say(running, result)


def report(run: RunFolder) -> None:
    """Writes the run's page and diagnosis again. Raises RunError where not all folds have ended."""
    from lehr.folds.page import report_page  # the libraries that draw take a second to import

    result = FoldsResult.read(run.folder)
    folds = run.children(FOLDER)
    if len(folds) != len(result.folds):
        raise RunError(f"{run.folder.uri}/{FOLDER}: holds {len(folds)} of {len(result.folds)} folds; some are gone")
    diagnose_run(run).write(run.folder)
    run.folder.write("report.html", report_page(run, result, folds).encode())


def train_fold(plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks) -> None:
    """Trains one fold, as a training of its own: with what its model says of each row."""
    train(plan, run, group, callbacks.should_stop, callbacks.after_epoch, wants_answers=True)


def describe(job: FoldsJob, run: RunFolder, folds: list[RunFolder], found: list[OfFold]) -> None:
    """Makes the run one that predicts: the mean of its networks, if their outputs can be averaged.

    What a task chooses on validation rows, such as thresholds, is chosen on all rows, by networks that had not seen
    them.
    """
    task = found[0].task
    if task_of(job, job.error).refused_average:
        return
    chosen = {}
    if task.chooses:
        values, labels = (np.concatenate([getattr(each, name) for each in found]) for name in ("values", "labels"))
        chosen = task.choices(values, labels)
    members = tuple(EnsembleMember(f"{FOLDER}/{each.name}", 1 / len(folds)) for each in folds)
    EnsembleDescription("probabilities", members, "equal", chosen).write(run.folder)


def _row_names(running: Running, job: FoldsJob) -> Callable[[int], str]:
    """Where a person finds each row; says how the rows are dealt. Raises JobError for data that cannot be."""
    first = fold_job(job, 1)
    if returns_dataset(job.data):
        return lambda row: f"row {row} of the dataset"
    sizes, opened = [], OpenedSources(first)
    for number in range(1, job.folds + 1):
        opened.job = fold_job(job, number)
        _, held_out = opened.split_ids()
        assert held_out is not None, "folds hold rows out"
        sizes.append(len(held_out))
    each = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    running.say(f"{job.folds} folds: each is validated on {each} of {sum(sizes):,} rows, and trained on the others.")
    if few := _rare(opened, job.folds):
        running.say(few)
    return opened.main.name_of


def _rare(opened: OpenedSources, folds: int) -> str:
    """That a class has fewer rows, or groups, than there are folds; empty where none has."""
    if opened.main.kind != "class":
        return ""
    labels = np.asarray(opened.main.labels(), np.int64)
    units = labels
    if opened.main.groups is not None:
        units = np.unique(np.stack([labels, opened.main.groups]), axis=1)[0]
    counts = np.bincount(units[units >= 0], minlength=len(opened.main.classes))
    rare = [name for name, count in zip(opened.main.classes, counts, strict=True) if 0 < count < folds]
    what = "rows" if opened.main.groups is None else "groups"
    named = ", ".join(rare[:5]) + (", …" if len(rare) > 5 else "")
    return f"Fewer {what} than folds, so that some folds have none to validate on: {named}." if rare else ""


class FoldsStudy:
    """The trials of a cross-validation: the training of each fold, then one that records what it says of its rows.

    Attributes:
        outcomes: how the trials ended, by folder.
        failed: why trials failed, by folder.
    """

    def __init__(self, running: Running, job: FoldsJob) -> None:
        self.running, self.job = running, job
        jobs = [fold_job(job, number) for number in range(1, job.folds + 1)]
        self.trials = tuple(Trial(f"{FOLDER}/{n:02}", each, train_fold) for n, each in enumerate(jobs, 1))
        self.outcomes: dict[str, Outcome] = {}
        self.failed: dict[str, str] = {}
        self._metric = jobs[0].train.metric
        self._better = min if jobs[0].lower_is_better(self._metric) else max
        self._waiting = list(reversed(self.trials))
        self._to_score: list[Trial] = []
        self._epochs: dict[str, int] = {}
        self._best: dict[str, float] = {}

    def ask(self) -> Trial | None:
        if self._waiting:
            return self._waiting.pop()
        if self.failed or not self._to_score:
            return None
        trained = self._to_score.pop(0)
        folder = self.running.run.folder.child(trained.folder)
        scores = f"{SCORES}/{trained.folder.rpartition('/')[2]}"
        return Trial(scores, trained.job, record_outputs([folder], None, decided=True))

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self._epochs[trial.folder] = int(row["epoch"])
        value = row.get(self._metric)
        if value is not None and np.isfinite(value):
            self._best[trial.folder] = self._better(value, self._best.get(trial.folder, value))
        return None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.folder] = outcome
        if outcome.status == "failed":
            self.failed[trial.folder] = outcome.message
        elif trial.folder.startswith(f"{FOLDER}/"):
            if outcome.best is None:
                self.failed[trial.folder] = f"{name_of(self._metric)} was not a number after any epoch"
                return
            self._best[trial.folder] = outcome.best
            training = outcome.run.progress().training
            self._epochs[trial.folder] = training.epochs_done if training else trial.job.train.epochs
            self._to_score.append(trial)

    def result(self) -> FoldsResult:
        """What the folds measured, once all have ended."""
        return FoldsResult(self._metric, tuple(map(self._fold, self.trials)))

    def _fold(self, trial: Trial) -> Fold:
        outcome = self.outcomes[trial.folder]
        ended = outcome.run.outcome()
        assert ended is not None, "it has ended"
        assert ended.best.value is not None, "a fold without a value has failed"
        rows = ended.measured_rows.get("validation", 0)
        test = {name: value for name, value in ended.metrics.items() if name.startswith("test_")}
        return Fold(trial.folder, ended.best.value, ended.best.epoch, self._epochs[trial.folder], rows, test)

    def progress(self) -> StudyProgress:
        total = sum(trial.job.train.epochs for trial in self.trials)
        ended = [trial for trial in self.trials if trial.folder in self.outcomes]
        spent = sum(self._epochs.get(trial.folder, 0) for trial in self.trials)
        shares = (
            1.0 if trial in ended else self._epochs.get(trial.folder, 0) / trial.job.train.epochs
            for trial in self.trials
        )
        overview = Overview(
            headline=f"{len(ended)} of {len(self.trials)} folds"
            if len(ended) < len(self.trials)
            else "scoring the folds",
            done=TRAINED * sum(shares) / len(self.trials),
            facts={"epochs": f"{spent} of {total}"},
            table=self.table,
            epochs_spent=spent,
        )
        return StudyProgress(overview, work=work_of(self.trials, self._waiting, self.outcomes, self._epochs))

    @property
    def table(self) -> Table:
        """A line for each fold."""
        return Table(("fold", "epochs", name_of(self._metric), ""), tuple(map(self._row, self.trials)))

    def _row(self, trial: Trial) -> tuple[str, ...]:
        folder, outcome = trial.folder, self.outcomes.get(trial.folder)
        ended = outcome.run.outcome() if outcome else None
        best = self._best.get(folder)
        return (
            str(int(folder.rpartition("/")[2])),
            f"{self._epochs.get(folder, 0)}/{trial.job.train.epochs}",
            "" if best is None else format_metric(best, self._metric, ended.measured_rows if ended else None),
            outcome.status if outcome else "",
        )


def _finished(progress: Progress, found: FoldsResult, table: Table) -> Progress:
    """The last progress: what `lehr show` and others find."""
    rows = {"validation": found.rows}
    facts = {"standard error": f"{found.error:.4g}", "epochs": f"{found.epochs:,}"}
    if "accuracy" in found.measured:
        facts["of all rows right"] = format_metric(found.measured["accuracy"], "validation_accuracy", rows)
    overview = replace(
        progress.overview or Overview(),
        headline=found.headline,
        done=1.0,
        facts=facts,
        table=table,
        verdict=tuple(found.sentences()),
    )
    metrics: dict[str, float | None] = {f"mean_{found.metric}": found.mean, "standard_error": found.error}
    metrics |= {f"out_of_fold_{name}": value for name, value in found.measured.items()}
    best = BestValue(found.metric, found.mean)
    sentence = found.sentences()[0]
    return replace(
        progress, status="finished", message=sentence, best=best, metrics=metrics, measured_rows=rows, overview=overview
    )


def _say(running: Running, found: FoldsResult) -> None:
    run, screen = running.run, running.screen
    screen.close()
    for line in (*found.sentences(), ROUGHLY):
        screen.say(line)
    screen.say(f"Time: {format_seconds(run.progress().seconds['total'])}, for {found.epochs:,} epochs")
    where = format_folder(run.folder)
    screen.say(f"What was said of each row: {where}/{OUT_OF_FOLD}")
    screen.say(f"Report: {where}/report.html")
    if EnsembleDescription.exists(run.folder):
        screen.say(f"Predict with the mean of its networks: lehr predict {run.name} DATA OUT")
    screen.say(one_network(run, found))
    screen.say(f"Verdict: {verdict(run)}")


def one_network(run: RunFolder, found: FoldsResult) -> str:
    """What to type for one network, trained for as long as the folds were good."""
    epochs = found.best_epochs or run.job["train"]["epochs"]
    line = as_typed(f"lehr run JOB folds= train.epochs={epochs}", run)
    return f"One network, for as many epochs as the folds took to their best: {line}"


KIND = Kind(
    check=check,
    run=run,
    report=report,
    files=(RESULT, OUT_OF_FOLD, "ensemble.json"),
    folders=(FOLDER, SCORES),
)
