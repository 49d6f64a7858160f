"""`kind: ensemble`: several networks as one, chosen on validation rows, measured against the honest alternative."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np

from lehr.driver import Kind, Running
from lehr.durations import Clock
from lehr.ensembles import SELECTIONS
from lehr.ensembles.figures import Figures, figures, verdict
from lehr.ensembles.page import ensemble_page
from lehr.errors import LehrError
from lehr.formatting import format_folder, format_seconds
from lehr.job import EnsembleJob, TrainJob, from_dict
from lehr.kinds.ensemble_members import Made, Trained, made, settle, validation_rows
from lehr.predict import write_ensemble
from lehr.predict.predictor import read_ensemble
from lehr.predict.scores import read_outputs, score_work
from lehr.runs import RunFolder
from lehr.training.setup import check_job, cycle_ends
from lehr.trials import Outcome, Trial, run_trials


def check(job: EnsembleJob) -> None:
    """Raises JobError for trainings that cannot be, or that would validate on rows which another trains on."""
    plan = made(job)
    for trial in plan.trials:
        check_job(trial.job)
    rows = {validation_rows(member) for member in plan.jobs}
    if len(rows) > 1:
        what = "do not all hold out the same rows, so that their choice would be made on rows that some have trained on"
        raise job.error("members", f"they {what}; allowed: the same data and split seed for all")


def run(running: Running) -> None:
    """Trains what there is to train, measures, chooses, and ends with the report."""
    job = cast(EnsembleJob, running.job)
    study = Members(running, job, made(job))
    run_trials(running, study, at_most=len(study.plan.trials) or 1)
    validation, _ = read_outputs(running.run.folder.child("trials/scores"), len(study.members))
    weights = choose(job, validation.logits, validation.labels)
    chosen = list(zip((f"members/{name}" for name in study.members), weights.tolist(), strict=True))
    write_ensemble(running.run.folder, job.combine.by, job.selection, chosen)
    found = work_out(running.run, job)
    said = verdict(found, job.method, _cycle_epochs(running.run, job))
    progress = running.run.progress()
    running.run.write_progress(
        {**progress, "status": "finished", "message": said[0], "verdict": said, **_as_metrics(found)}
    )
    write_report(running.run, job, found, said)
    running.screen.close()
    for line in said:
        running.screen.say(line)
    running.screen.say(f"Time: {format_seconds(progress['seconds']['total'])}")
    running.screen.say(f"Report: {format_folder(running.run.folder)}/report.html")
    running.screen.say(f"Use it: lehr predict {running.run.name} DATA OUT")


def report(run: RunFolder) -> None:
    """Writes the page anew. Raises RunError where the members have not been measured yet."""
    job = from_dict(run.job)
    assert isinstance(job, EnsembleJob)
    found = work_out(run, job)
    write_report(run, job, found, verdict(found, job.method, _cycle_epochs(run, job)))


def choose(job: EnsembleJob, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [members]: the weights that the job's selection gives on validation rows."""
    if job.combine.last is not None:
        count = min(job.combine.last, len(logits))
        return np.r_[np.zeros(len(logits) - count), np.full(count, 1 / count)]
    return SELECTIONS[job.selection](logits, labels, job.combine.by)


def work_out(run: RunFolder, job: EnsembleJob) -> Figures:
    """The figures of a finished ensemble. Raises RunError where it is not finished."""
    about = read_ensemble(run.folder)
    names = [member["run"].rpartition("/")[2] for member in about["members"]]
    weights = np.array([member["weight"] for member in about["members"]])
    validation, judged = read_outputs(run.folder.child("trials/scores"), len(names))
    return figures(names, weights, job.combine.by, validation, judged, backwards=job.method == "snapshot")


def write_report(run: RunFolder, job: EnsembleJob, found: Figures, said: list[str]) -> None:
    run.folder.write("report.html", ensemble_page(run, job, found, said).encode())


class Members:
    """The study of an ensemble: first all trainings, then one trial that measures what came of them."""

    def __init__(self, running: Running, job: EnsembleJob, plan: Made) -> None:
        self.running, self.job, self.plan = running, job, plan
        self.members: list[str] = []  # once the trainings are done: the names in members/
        self.outcomes: dict[str, Outcome] = {}
        self._epochs: dict[str, int] = {}
        self._accuracy: dict[str, float] = {}
        self._waiting = list(reversed(plan.trials))
        self._measured = False

    def ask(self) -> Trial | None:
        if self._waiting:
            return self._waiting.pop()
        if self._measured or len(self.outcomes) < len(self.plan.trials):
            return None
        self._measured = True
        trained = Trained(self.running.run, self.job, self.plan, self.outcomes)
        self.members, warnings = settle(trained)
        for warning in warnings:
            self.running.screen.say(warning)
        folder = self.running.run.folder
        single = self.outcomes.get(self.plan.single or "")
        compare = single.run.folder if single and single.status == "finished" else trained.raw
        places = [folder.child(f"members/{name}") for name in self.members]
        return Trial("trials/scores", self.plan.jobs[0], score_work(places, compare))

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self._epochs[trial.folder] = int(row["epoch"])
        if "validation_accuracy" in row:
            self._accuracy[trial.folder] = row["validation_accuracy"]
        return None

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.folder] = outcome
        if outcome.status == "failed":
            if trial.folder == "trials/scores":
                raise LehrError(f"the members could not be measured: {outcome.message}")
            if trial.folder == "trials/snapshots":
                raise LehrError(f"no member came to an end: {outcome.message}")
            self.running.screen.say(f"{trial.folder} failed and is left out: {outcome.message}")
        else:
            self._epochs[trial.folder] = trial.job.train.epochs
            if outcome.best is not None and "accuracy" in trial.job.train.metric:
                self._accuracy[trial.folder] = outcome.best

    def progress(self) -> dict[str, Any]:
        trials = self.plan.trials
        total = sum(trial.job.train.epochs for trial in trials)
        spent = sum(min(self._epochs.get(trial.folder, 0), trial.job.train.epochs) for trial in trials)
        over = [trial for trial in trials if trial.folder in self.outcomes]
        rows = [
            [
                trial.folder.rpartition("/")[2],
                f"{self._epochs.get(trial.folder, 0)}/{trial.job.train.epochs}",
                f"{self._accuracy[trial.folder]:.2%}" if trial.folder in self._accuracy else "",
                self.outcomes[trial.folder].status if trial in over else "",
            ]
            for trial in trials
        ]
        headline = f"{len(over)} of {len(trials)} trainings" if len(over) < len(trials) else "measuring the members"
        return {
            "done": 0.98 * spent / total if total else 0.98,
            "headline": headline,
            "facts": {"method": self.job.method, "epochs": f"{spent} of {total}"},
            "table": {"columns": ["training", "epochs", "validation accuracy", ""], "rows": rows},
            "epochs_spent": spent,
        }


def _as_metrics(found: Figures) -> dict[str, Any]:
    """What `lehr show` and others find in progress.json."""
    single = {} if found.single is None else {"single": f"{found.single.error:.2%}"}
    used = f"{found.used} of {len(found.names)}"
    return {
        "done": 1.0,
        "headline": f"{found.ensemble.error:.2%} error on {found.split} rows",
        "facts": {"members": used, **single, "calibration error": f"{found.ensemble.calibration:.2%}"},
        "table": {
            "columns": ["member", "error", "weight"],
            "rows": [
                [name, f"{model.error:.2%}", f"{weight:.2f}"]
                for name, model, weight in zip(found.names, found.members, found.weights.tolist(), strict=True)
            ],
        },
        "metrics": {
            f"{found.split}_error": found.ensemble.error,
            f"{found.split}_calibration_error": found.ensemble.calibration,
            **({f"{found.split}_single_error": found.single.error} if found.single else {}),
        },
    }


def _cycle_epochs(run: RunFolder, job: EnsembleJob) -> float | None:
    """Epochs of the shortest cycle of a snapshot run."""
    if job.method != "snapshot":
        return None
    trained = RunFolder.open(run.folder.child("trials/snapshots"))
    about, progress = from_dict(trained.job), trained.progress()
    assert isinstance(about, TrainJob)
    per_epoch = progress["total_steps"] // progress["epochs"]
    ends = [0, *cycle_ends(about, Clock(per_epoch, progress["total_steps"]))]
    return min(end - start for start, end in pairwise(ends)) / per_epoch


KIND = Kind(check=check, run=run, report=report, files=("ensemble.json",), folders=("members", "trials"))
