"""The pages of a training run: `report.html`, one self-contained file, and the comparison of several runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import altair as alt
import numpy as np
import yaml
from markupsafe import Markup

from lehr.curves import charts, comparable
from lehr.curves.alternatives import in_a_line
from lehr.curves.answers import answer_sections
from lehr.curves.findings import Diagnosis, Finding
from lehr.curves.hardware import hardware_section
from lehr.curves.more_rows import advise_folds
from lehr.curves.record import Curves
from lehr.curves.typed import as_typed
from lehr.formatting import differing, flat, format_metric, format_seconds, large
from lehr.intervals import in_words
from lehr.reporting import drawing
from lehr.reporting.page import Section, chart, finding, page, paragraph, table, text
from lehr.runs import NetworkSurvey, Progress, RunFolder
from lehr.runs.columns import listed
from lehr.tasks.forms import spoken, spoken_in_full

_FATAL = ("diverged", "not_learning", "at_chance")
_TIME_COLORS = {
    "compute": drawing.TRAIN,
    "input": drawing.VALIDATION,
    "evaluation": drawing.RATE,
    "startup": drawing.GRADIENT,
    "checkpoints": "#c2a21b",
    "records": "#3aa6a0",
    "other": drawing.SPEED,
}


def report_page(run: RunFolder, curves: Curves, diagnosis: Diagnosis, drawn: alt.VConcatChart) -> str:
    """The report of a run as HTML: diagnosis, charts, where the time went, epochs, events, environment, job."""
    progress = run.progress()
    events = [(event["time"][:19].replace("T", " "), event["kind"], event["message"]) for event in run.events()]
    tables = [
        _epoch_table(curves),
        Section("Events", table(events), folded=False) if events else None,
        Section("To do it again", table(_again(run)), folded=True),
        Section("Environment", table(_environment(run.environment.to_json())), folded=True),
    ]
    sections = [
        Section("", _findings(diagnosis, run, probed=curves.by_class) + _few_rows(run, progress)),
        Section("", chart(drawn)),
        *answer_sections(run),
        _times(progress.seconds),
        hardware_section(curves),
        *tables,
        job_section(run),
    ]
    return page(run.name, subtitle(curves), [each for each in sections if each], _facts(curves, progress))


def _again(run: RunFolder) -> list[tuple[str, str]]:
    """What to type, and what has to be the same then."""
    environment = run.environment
    rows = [("Type", as_typed("lehr run JOB", run))]
    if environment.git:
        changed = ", and changes that were not committed" if environment.git.dirty else ""
        rows.append(("Code", f"commit {environment.git.commit[:12]}{changed}"))
    if environment.data and environment.data.fingerprint:
        rows.append(("Data", f"fingerprint {environment.data.fingerprint}"))
    return rows


def _few_rows(run: RunFolder, progress: Progress) -> Markup:
    advice = advise_folds(run, progress)
    return paragraph(advice) if advice else Markup()


def job_section(run: RunFolder) -> Section:
    """The job of a run as resolved, folded."""
    return Section("Job", text(yaml.safe_dump(dict(run.job), sort_keys=False, allow_unicode=True)), folded=True)


def compare_page(runs: Sequence[Curves], diagnoses: Sequence[Diagnosis], advice: Sequence[str] = ()) -> str:
    """Several runs as HTML: their curves on shared axes, their diagnoses, and what differs between their jobs.

    Args:
        advice: what would tell apart runs that their rows cannot, a sentence for each.
    """
    differing, groups = differences(runs), comparable.alike(runs)
    marks = {id(curves): letter for letter, group in zip(ascii_uppercase, groups, strict=False) for curves in group}
    marked = ["validated on"] if len(groups) > 1 else []
    head = ["run", f"best {_judged_by(runs)}", *marked, "epochs", "diagnosis", *differing]
    best = {
        curves.name: float(np.nanmax(curves.epoch_column(f"validation_{curves.score}"), initial=-math.inf))
        for curves in runs
    }
    rows = []
    for curves, diagnosis in zip(runs, diagnoses, strict=True):
        own = [f"rows {marks.get(id(curves), '…')}"] if marked else []
        reached = _reached(curves, best[curves.name])
        cells = [curves.name, reached, *own, f"{curves.last_epoch:.0f}", diagnosis.first.title]
        rows.append([*cells, *(_plain(curves.option(path, "")) for path in differing)])
    names = [curves.name for curves in runs]
    drawn = chart(charts.compare_chart(runs))
    body = table(rows, head)
    by_class = all(curves.by_class for curves in runs)  # only of accuracies it is known how sure they are
    measured = {name: value for name, value in best.items() if by_class and math.isfinite(value)}
    close = comparable.close(runs, measured)
    for said in filter(None, (comparable.not_comparable(runs), *close, *(advice if close else ()))):
        body += paragraph(said)
    sections = [Section("", drawn), Section("Runs", body, folded=False)]
    return page(" · ".join(names), comparison_title(runs), sections)


def _judged_by(runs: Sequence[Curves]) -> str:
    """What the column of best values holds: `validation accuracy`, or the scores of several tasks."""
    scores = {curves.score for curves in runs}
    return f"validation {spoken(scores.pop())}" if len(scores) == 1 else "score on validation rows"


def _reached(curves: Curves, best: float) -> str:
    if not math.isfinite(best):
        return ""
    return in_words(best, curves.validation_rows) if curves.by_class else f"{best:.4g}"


def comparison_title(runs: Sequence[Curves]) -> str:
    return f"Comparison of {len(runs)} runs"


def differences(runs: Sequence[Curves]) -> list[str]:
    """The dotted paths of the fields in which the jobs differ, except names, notes and storage."""
    return differing([curves.job for curves in runs])


def subtitle(curves: Curves) -> str:
    """What was trained, in half a line."""
    data = curves.option("data.source", "")
    data = os.path.basename(str(curves.option("data.path")).rstrip("/")) if data == "auto" else data
    parts = [
        f"{curves.option('model.name', '')} on {data}",
        f"{curves.option('optimizer.name', '')} with learning rate {curves.option('optimizer.lr', 0):g}",
        f"{curves.option('schedule.name', '')} schedule",
        f"batch size {curves.option('train.batch_size', '')}",
    ]
    return ", ".join(parts)


def _findings(diagnosis: Diagnosis, run: RunFolder, *, probed: bool) -> Markup:
    """The findings; `probed`: whether probes can tell what else each could be."""
    measured = diagnosis.measured
    ruled_out = measured.ruled_out if measured else ()
    shown = Markup().join(_finding(each, run, ruled_out, probed) for each in diagnosis.findings)
    return shown + paragraph(measured.sentence) if measured else shown


def _finding(found: Finding, run: RunFolder, ruled_out: Sequence[str], probed: bool) -> Markup:
    others = in_a_line(found.name, ruled_out=ruled_out) if probed else ""
    return finding(
        found.title,
        found.sentence,
        as_typed(found.advice, run),
        f"{others} To tell them apart: lehr diagnose {run.name} --probe." if others else "",
        tone="good" if found.good else "bad" if found.name in _FATAL else "warn",
        tag=f"{found.confidence} confidence",
        command=as_typed(found.rerun, run),
        footnote=f"Rule: {found.rule}.",
    )


def _facts(curves: Curves, progress: Progress) -> list[tuple[str, str]]:
    best, facts = progress.best, [("State", str(progress.status))]
    if best.value is not None:
        value = format_metric(best.value, best.metric, progress.measured_rows)
        facts.append((f"Best {spoken_in_full(best.metric)}", f"{value} (epoch {best.epoch})"))
    if (test := progress.metrics.get("test_accuracy")) is not None:
        value = format_metric(test, "test_accuracy", progress.measured_rows)
        facts.append(("Test accuracy of the best model", value))
    for name in listed(progress.metrics, "test"):
        measured = progress.metrics[name]
        facts.append((f"{name[:1].upper()}{name[1:].replace('_', ' ')}", "" if measured is None else f"{measured:.4f}"))
    if curves.network.parameters:
        facts.append(("Network", _size(curves.network)))
    facts.append(("Epochs", f"{curves.last_epoch:.3g} of {curves.option('train.epochs', '?')}"))
    facts.append(("Steps", f"{len(curves.steps['step']):,}"))
    if progress.seconds:
        facts.append(("Time", _duration(_total(progress.seconds))))
    return facts


def _size(network: NetworkSurvey) -> str:
    """`11.2 million parameters, 3.63 GFLOPs an image`: additions and multiplications of a forward pass."""
    parameters = f"{large(network.parameters)} parameters"
    if not network.flops:
        return parameters
    unit, name = (1e9, "GFLOPs") if network.flops >= 1e9 else (1e6, "MFLOPs")
    return f"{parameters}, {network.flops / unit:.3g} {name} an image"


def _total(seconds: Mapping[str, float]) -> float:
    return seconds.get("total", 0.0) + seconds.get("startup", 0.0)


def _times(seconds: Mapping[str, float]) -> Section | None:
    total = _total(seconds)
    parts = {name: value for name, value in seconds.items() if name != "total"}
    parts["other"] = max(0.0, total - sum(parts.values()))
    bars, legend = Markup(), Markup()
    for name, value in sorted(parts.items(), key=lambda item: -item[1]):
        if not total or value / total < 0.005:
            continue
        color, label = _TIME_COLORS.get(name, drawing.SPEED), "start-up" if name == "startup" else name
        bars += Markup('<div style="width:{:.2f}%;background:{}"></div>').format(100 * value / total, color)
        legend += Markup('<li><i style="background:{}"></i>{} <span class="soft">{} ({:.0%})</span></li>').format(
            color, label, _duration(value), value / total
        )
    if not bars:
        return None
    body = Markup('<div class="bar">{}</div><ul class="legend">{}</ul>').format(bars, legend)
    return Section("Where the time went", body)


def _epoch_table(curves: Curves) -> Section | None:
    names = [name for name, column in curves.epochs.items() if name != "step" and np.isfinite(column).any()]
    count = len(curves.epochs["epoch"])
    if not count:
        return None
    rows = range(count) if count <= 60 else [*range(20), *range(count - 40, count)]
    title = "Epochs" if count <= 60 else f"Epochs: the first 20 and the last 40 of {count:,}"
    cells = [[_number(curves.epochs[name][i]) for name in names] for i in rows]
    return Section(title, table(cells, [name.replace("_", " ") for name in names]), folded=True)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5g}"


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(path.replace("_", " ").replace(".", " · "), _plain(value)) for path, value in flat(environment).items()]


def _plain(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else format_seconds(seconds)
