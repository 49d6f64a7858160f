"""`report.html` of a search: the best trial, which fields mattered, and what to try next."""

from __future__ import annotations

import os
from collections import Counter
from typing import cast

import yaml
from markupsafe import Markup

from lehr.curves.typed import as_typed
from lehr.errors import RunError
from lehr.formatting import format_seconds
from lehr.reporting.page import Section, chart, finding, page, paragraph, table, text
from lehr.runs import RunFolder
from lehr.search import analysis, charts
from lehr.search.analysis import SearchResults, SearchTrial
from lehr.search.formats import close_to_best, format_metric, format_value, format_values, metric_name
from lehr.search.rungs import rungs

MOST_ROWS = 40  # of the table of trials


def write_report(run: RunFolder) -> None:
    """Writes `report.html` from what the trials have recorded so far.

    Raises:
        RunError: no trial has finished an epoch yet.
    """
    found = analysis.read_search(run)
    if not found.ranked:
        raise RunError(f"{run.name} has no trial that has finished an epoch yet; there is nothing to report")
    run.folder.write("report.html", search_page(run, found).encode())


def search_page(run: RunFolder, found: SearchResults) -> str:
    """The report as HTML: the best trial and warnings, the learning curves, then a chart for each question."""
    scale, shares = charts.MetricScale(found), analysis.importance(found)
    sections = [
        Section("", Markup().join([_winner(run, found), *_warnings(run, found)])),
        Section("", chart(charts.curves_chart(found, scale))),
        Section("Best value of every trial, by field", _fields(found, scale)),
        _importance(found, shares),
        _schedules(found, scale),
        Section("All fields at once", _parallel(found, scale)),
        Section("Cost", chart(charts.spent_chart(found, scale))),
        _distinct(found, shares),
        _trials(found),
        Section("Job", text(yaml.safe_dump(dict(run.job), sort_keys=False, allow_unicode=True)), folded=True),
    ]
    base = found.job.base
    method = found.job.method.replace("_", "-")
    data = os.path.basename((base.data.path or "").rstrip("/")) if base.data.source == "auto" else base.data.source
    lead = f"{method} search over {', '.join(found.space)}: {base.model.name}, {data} data"
    return page(run.name, lead, [section for section in sections if section], _facts(run, found))


def _facts(run: RunFolder, found: SearchResults) -> list[tuple[str, str]]:
    states = Counter(trial.state for trial in found.trials)
    spent = sum(len(trial.scores) for trial in found.trials)
    full = len(found.trials) * found.job.base.train.epochs
    facts = [
        (f"Best {metric_name(found.metric)}", format_metric(found.ranked[0].best, found.metric, found.measured_rows)),
        ("Trials", f"{len(found.trials)}"),
        ("Ended early", f"{states['ended']}"),
        ("Failed", f"{states['failed']}"),
        ("Epochs", f"{spent} of {full}"),
    ]
    progress = run.progress()
    if seconds := progress.seconds.get("total"):
        facts.append(("Time", format_seconds(seconds)))
    if progress.overview and (why := progress.overview.facts.get("ended")):
        facts.append(("Ended", why))
    return facts


def _winner(run: RunFolder, found: SearchResults) -> Markup:
    best, epochs = found.ranked[0], found.job.base.train.epochs
    ranking = [(f"trial {each.number}", cast(float, each.best)) for each in found.ranked]
    notes = {
        "ended": "The search ended this trial early, so it may still improve with more epochs.",
        "unfinished": "This trial has not finished yet.",
    }
    return finding(
        f"Trial {best.number} is best: {format_metric(best.best, found.metric, found.measured_rows)}",
        f"{format_values(best.values)}; trained for {len(best.scores)} of {epochs} epochs.",
        notes.get(best.state, ""),
        close_to_best(found.metric, ranking, found.measured_rows),
        tone="good",
        command=f"lehr best {run.name} best.yaml && lehr run best.yaml train.epochs={3 * epochs}",
    )


def _warnings(run: RunFolder, found: SearchResults) -> list[Markup]:
    warnings = [
        finding(
            f"The best {edge.path} is at the {edge.side} edge of the values tried",
            f"It is {format_value(edge.value)}; a better value may lie beyond it.",
            "Widen the range:" if edge.paste else "The job does not accept values beyond it.",
            tone="warn",
            command=edge.paste,
        )
        for edge in analysis.edges(found)
    ]
    stopping, epochs = found.job.stopping, found.job.base.train.epochs
    if analysis.schedule_path(found) and stopping.name != "none":
        at = rungs(stopping, epochs)
        when = f"at epoch {', '.join(map(str, at))}" if at else f"from epoch {stopping.first} on,"
        warnings.append(
            finding(
                "Schedules of different shapes were compared before the end of their trials",
                f"Trials were compared {when} of {epochs}. At that point, a decaying schedule has not decayed yet "
                "and looks worse than it will be; a schedule that starts low looks better.",
                "Compare schedules with stopping: none, or with a later first rung:",
                tone="warn",
                command=as_typed(f"lehr run JOB stopping.first={max(1, epochs // 2)}", run),
            )
        )
    failed = Counter(trial.message for trial in found.trials if trial.state == "failed")
    for why, times in failed.most_common(3):
        warnings.append(finding(f"{times} trial{'s' if times > 1 else ''} failed", f"{why}.", tone="bad"))
    return warnings


def _fields(found: SearchResults, scale: charts.MetricScale) -> Markup:
    note = "One dot per trial. Blue: trained to its last epoch; grey: ended early; the ring marks the best trial."
    return chart(charts.fields_chart(found, scale)) + paragraph(note, soft=True)


def _importance(found: SearchResults, shares: dict[str, float]) -> Section | None:
    if not shares:
        return None
    note = (
        f"How much each field decides whether a trial is among the better ones (PED-ANOVA, {len(found.ranked)} "
        "trials). With few trials this is a hint, not a measurement."
    )
    if len(shares) < len(found.space):
        note += " Fields that apply only under a condition are left out."
    body = chart(charts.importance_chart(shares), longest=16) + paragraph(note, soft=True)
    return Section("Which fields mattered", body)


def _schedules(found: SearchResults, scale: charts.MetricScale) -> Section | None:
    if not (path := analysis.schedule_path(found)) or not (groups := analysis.compare(found, path)):
        return None
    head = ["schedule", "trials", "ended early", "best", "median"]
    rows = [
        [
            group.value,
            str(group.trials),
            str(group.ended_early),
            format_metric(group.best, found.metric, found.measured_rows),
            format_metric(group.median, found.metric, found.measured_rows),
        ]
        for group in groups
    ]
    longest = max(len(group.value) for group in groups) + 5
    body = chart(charts.groups_chart(found, scale, path), longest=longest) + table(rows, head)
    if close := close_to_best(found.metric, [(each.value, each.best) for each in groups], found.measured_rows):
        body += paragraph(close)
    return Section("Schedules compared", body)


def _parallel(found: SearchResults, scale: charts.MetricScale) -> Markup:
    note = (
        "Parallel coordinates: each line is a trial, from its values on the left to its result on the right. The bluer "
        "the line, the better the trial; the thick line is the best one."
    )
    return chart(charts.parallel_chart(found, scale)) + paragraph(note, soft=True)


def _distinct(found: SearchResults, shares: dict[str, float]) -> Section | None:
    """As in Bergstra and Bengio (2012): a grid tries only few values of the field that matters."""
    numeric = [path for path, dimension in found.space.items() if analysis.is_numeric(dimension)]
    paths = [path for path in shares if path in numeric] or numeric
    if not paths or len(found.space) < 2:
        return None
    path, count = paths[0], len(found.trials)
    tried = analysis.count_distinct([trial.values[path] for trial in found.trials if path in trial.values])
    said = f"{path} is the numeric field that mattered most. " if path in shares else ""
    said += f"This search tried {tried} different values of it in {count} trials"
    if found.job.method == "grid":
        said += "; a random search would have tried a new value in every trial, at the same cost."
    else:
        points = analysis.grid_points(count, len(found.space))
        said += f"; a full grid over all {len(found.space)} fields would have tried {points}."
    body = chart(charts.distinct_chart(found, path), longest=16) + paragraph(said)
    return Section("How many different values were tried", body)


def _trials(found: SearchResults) -> Section:
    head = ["trial", metric_name(found.metric), "epochs", "state", *found.space]
    ranked = found.ranked
    order = [*ranked, *(trial for trial in found.trials if trial not in ranked)]
    rows = [_row(found, trial, trial in ranked) for trial in order[:MOST_ROWS]]
    title = "Trials, best first" if len(order) <= MOST_ROWS else f"Trials: the best {MOST_ROWS} of {len(order)}"
    return Section(title, table(rows, head), folded=True)


def _row(found: SearchResults, trial: SearchTrial, ranked: bool) -> list[str]:
    return [
        str(trial.number),
        format_metric(cast(float, trial.best), found.metric, found.measured_rows) if ranked else "",
        str(len(trial.scores)),
        "ended early" if trial.state == "ended" else trial.state,
        *(format_value(trial.values[path]) if path in trial.values else "" for path in found.space),
    ]
