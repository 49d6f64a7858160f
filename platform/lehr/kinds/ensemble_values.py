"""The end of an ensemble whose rows have no one class: its weights, its evaluation, its page, and what is said of
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lehr.curves.report import job_section
from lehr.ensembles.evaluation import Outputs
from lehr.ensembles.of_values import ValuesEvaluation, combined, evaluate_values, weights_of
from lehr.ensembles.report import MEMBERS, SELECTION
from lehr.ensembles.verdict import BASELINE_NAME
from lehr.errors import RunError
from lehr.formatting import format_seconds
from lehr.job import EnsembleJob, TrainJob
from lehr.predict import EnsembleDescription, EnsembleMember
from lehr.predict.predictor import load_network
from lehr.reporting.page import Section, finding, page, paragraph, table
from lehr.runs import Overview, Progress, RunFolder, Table
from lehr.tasks.base import Task
from lehr.tasks.forms import spoken
from lehr.training.task import task_of as task_of_job


def refuse(job: EnsembleJob, member: TrainJob) -> None:
    """Raises JobError for what only classes can be combined by, and for a task whose outputs cannot be averaged."""
    name = member.task.name
    if why := task_of_job(member, job.error).refused_average:
        raise job.error("method", f"the outputs of {name} cannot be averaged: {why}")
    if job.combine.by == "logits":
        raise job.error("combine.by", f"logits are of one class a row, and the task is {name}; allowed: probabilities")
    if job.selection == "fitted":
        what = f"fits the log loss of one class a row, and the task is {name}"
        raise job.error("combine.select", f"fitted {what}; allowed: equal, best, last, greedy")


def describe(job: EnsembleJob, run: RunFolder, members: Sequence[str], validation: Outputs) -> None:
    """Chooses the weights on validation rows, and what the task keeps, and writes what makes the run an ensemble."""
    task = task_of(run, members)
    distance = partial(_distance, task, validation.labels)
    weights = weights_of(validation.logits, distance, job.selection, job.combine.last)
    learned = task.choices(combined(validation.logits, weights), validation.labels) if task.chooses else {}
    named = tuple(EnsembleMember(f"members/{name}", w) for name, w in zip(members, weights.tolist(), strict=True))
    EnsembleDescription(job.combine.by, named, job.selection, learned).write(run.folder)


def task_of(run: RunFolder, members: Sequence[str]) -> Task[Any]:
    """The task of the members, as the first of them has it."""
    return load_network(run.folder.child(f"members/{members[0]}"), run.folder).task


def evaluate_run(run: RunFolder, evaluated: Outputs) -> ValuesEvaluation:
    """The evaluation of a finished ensemble. Raises RunError if it is not finished."""
    ensemble = EnsembleDescription.read(run.folder)
    names = [member.name for member in ensemble.members]
    weights = np.array([member.weight for member in ensemble.members])
    task = task_of(run, names)
    alone = partial(_measured, task, evaluated.labels)
    found = evaluate_values(
        names,
        weights,
        evaluated.split,
        evaluated.logits,
        evaluated.baseline,
        alone,
        partial(_distance, task, evaluated.labels),
    )
    if not ensemble.learned:
        return found
    task = task.with_choices(ensemble.learned)
    return replace(found, ensemble=task.measure(combined(evaluated.logits, weights), evaluated.labels))


FILE, FORMAT = "evaluation.json", 1


def keep(run: RunFolder, found: ValuesEvaluation) -> None:
    """Writes what was measured, so that the page needs no code of a task to be written again."""
    run.folder.write_json(FILE, {"format": FORMAT, **found.to_json()})


def kept(run: RunFolder) -> ValuesEvaluation:
    """What was measured. Raises RunError if the ensemble is not finished, or the file is damaged."""
    try:
        value = run.folder.read_json(FILE)
    except FileNotFoundError as error:
        what = "the members have not been evaluated yet; there is nothing to report"
        raise RunError(f"{run.folder.uri}: {what}") from error
    try:
        return ValuesEvaluation.from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{run.folder.uri}/{FILE}: damaged: it is no evaluation of an ensemble") from error


def _measured(task: Task[Any], labels: np.ndarray, values: np.ndarray) -> Mapping[str, float]:
    return task.measure(values, labels)


def _distance(task: Task[Any], labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    return task.distances(values, labels)


def verdict(found: ValuesEvaluation, job: EnsembleJob, metric: str) -> list[str]:
    """The evaluation in sentences; the first is the short answer."""
    metric = metric if metric in found.ensemble else next(iter(found.ensemble))
    of = f"{found.used} of {len(found.names)} members" if found.used < len(found.names) else f"{found.used} members"
    result = f"{of}: {spoken(metric)} {found.ensemble[metric]:.4g} on {found.rows:,} {found.split} rows"
    if found.baseline is None:
        return [f"{result}."]
    name = BASELINE_NAME[job.method]
    sentences = [f"{result}; {name}: {found.baseline[metric]:.4g}."]
    if not found.clear:
        return [*sentences, f"These rows do not tell it from the {name}: chance explains such a difference."]
    better = "closer to the truth" if found.gain > 0 else "farther from the truth"
    return [*sentences, f"Row by row it is {better} than the {name}, by more than chance explains."]


def report_page(
    run: RunFolder, job: EnsembleJob, found: ValuesEvaluation, sentences: Sequence[str], metric: str
) -> str:
    """The page as HTML."""
    metric = metric if metric in found.ensemble else next(iter(found.ensemble))
    selection = "the last ones" if job.combine.last else SELECTION[job.selection]
    lead = f"{len(found.names)} {MEMBERS[job.method]} ({job.base.model.name}), averaged; {selection}"
    shown = [name for name in found.ensemble if "_" not in name]
    head = ["member", "weight", *(spoken(name) for name in shown)]
    tone = ("good" if found.gain > 0 else "bad") if found.clear else ""

    def row(name: str, weight: str, measured: Mapping[str, float]) -> list[str]:
        return [name, weight, *(f"{measured[each]:.4g}" for each in shown)]

    rows = [row(n, f"{w:.3f}", m) for n, w, m in zip(found.names, found.weights.tolist(), found.members, strict=True)]
    rows.append(row("ensemble", "", found.ensemble))
    rows += [row(BASELINE_NAME[job.method], "", found.baseline)] if found.baseline else []
    facts = [
        (f"{spoken(metric)} of the ensemble", f"{found.ensemble[metric]:.4g}"),
        ("Members used", f"{found.used} of {len(found.names)}"),
        ("Evaluated on", f"{found.rows:,} {found.split} rows"),
        ("Time", format_seconds(run.progress().seconds.get("total", 0.0))),
    ]
    each = [(spoken(name), f"{value:.4g}") for name, value in found.ensemble.items()]
    sections = [
        Section("", finding(sentences[0].rstrip("."), *sentences[1:], tone=tone)),
        Section("Members", paragraph("Each alone, and all together.", soft=True) + table(rows, head)),
        Section("The ensemble in figures", table(each), folded=True),
        job_section(run),
    ]
    return page(run.name, lead, sections, facts)


def finished(progress: Progress, found: ValuesEvaluation, sentences: Sequence[str], metric: str) -> Progress:
    """The last progress of an ensemble: what `lehr show` and others find."""
    rows = [
        (name, f"{measured[metric]:.4g}", f"{weight:.2f}")
        for name, measured, weight in zip(found.names, found.members, found.weights.tolist(), strict=True)
    ]
    overview = replace(
        progress.overview or Overview(),
        headline=f"{spoken(metric)} {found.ensemble[metric]:.4g} on {found.split} rows",
        done=1.0,
        facts={"members": f"{found.used} of {len(found.names)}"},
        table=Table(("member", spoken(metric), "weight"), tuple(rows)),
        verdict=tuple(sentences),
    )
    metrics: dict[str, float | None] = {f"{found.split}_{name}": value for name, value in found.ensemble.items()}
    return replace(progress, status="finished", message=sentences[0], metrics=metrics, overview=overview)
