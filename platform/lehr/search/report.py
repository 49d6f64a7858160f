"""`report.html` of a search: what is best, what mattered, and what to try next."""

from __future__ import annotations

from collections import Counter
from typing import cast

import yaml
from markupsafe import Markup

from lehr.formatting import format_seconds
from lehr.reporting.page import Section, chart, finding, page, paragraph, table, text
from lehr.runs import RunFolder
from lehr.search import analysis, charts
from lehr.search.analysis import Found
from lehr.search.rungs import rungs
from lehr.search.space import label

MOST_ROWS = 40  # trials in the table of trials


def write_report(run: RunFolder) -> None:
    """Writes the search's `report.html` from what its trials have recorded so far."""
    found = analysis.read_search(run)
    run.folder.write("report.html", search_page(run, found).encode())


def search_page(run: RunFolder, found: Found) -> str:
    """The report as HTML: the best trial and warnings, the curves, and every picture of what mattered."""
    scale, shares = charts.Scale(found), analysis.importance(found)
    sections = [
        Section("", Markup().join([_winner(run, found), *_warnings(found)])),
        Section("", chart(charts.curves_chart(found, scale))),
        Section("What each value gave", _fields(found, scale)),
        _importance(found, shares),
        _schedules(found, scale),
        Section("All values at once", _parallel(found, scale)),
        Section("What it cost", chart(charts.spent_chart(found, scale), longest=0)),
        _distinct(found, shares),
        _trials(found),
        Section("Job", text(yaml.safe_dump(dict(run.job), sort_keys=False, allow_unicode=True)), folded=True),
    ]
    base = found.job.base
    method = found.job.method.replace("_", "-")
    lead = f"{method} search over {', '.join(found.space)}: {base.model.name}, {base.data.source} data"
    return page(run.name, lead, [section for section in sections if section], _facts(run, found))


def shown(found: Found, value: float | None) -> str:
    return "" if value is None else f"{value:.2%}" if "accuracy" in found.metric else f"{value:.4f}"


def _facts(run: RunFolder, found: Found) -> list[tuple[str, str]]:
    states = Counter(result.state for result in found.results)
    spent = sum(len(result.scores) for result in found.results)
    full = len(found.results) * found.job.base.train.epochs
    facts = [
        (f"Best {found.metric.replace('_', ' ')}", shown(found, found.ranked[0].best)),
        ("Trials", f"{len(found.results)}"),
        ("Ended early", f"{states['ended']}"),
        ("Failed", f"{states['failed']}"),
        ("Epochs", f"{spent} of {full}"),
    ]
    if seconds := run.progress().get("seconds", {}).get("total"):
        facts.append(("Time", format_seconds(seconds)))
    return facts


def _winner(run: RunFolder, found: Found) -> Markup:
    best = found.ranked[0]
    values = ", ".join(f"{path} {label(value)}" for path, value in best.values.items())
    said = f"{values}. {len(best.scores)} of {found.job.base.train.epochs} epochs."
    note = "" if best.state == "finished" else "It was ended early all the same: it has not shown yet what it can do."
    longer = 3 * found.job.base.train.epochs
    return finding(
        f"Trial {best.number} is best: {shown(found, best.best)}",
        said,
        note,
        tone="good",
        command=f"lehr best {run.name} best.yaml && lehr run best.yaml train.epochs={longer}",
    )


def _warnings(found: Found) -> list[Markup]:
    warnings = [
        finding(
            f"The best {edge.path} lies at the {edge.side} edge of what was tried",
            f"It is {label(edge.value)}; a better value may lie beyond.",
            "Widen the space there:" if edge.paste else "The job takes no values beyond.",
            tone="warn",
            command=edge.paste,
        )
        for edge in analysis.edges(found)
    ]
    stopping = found.job.stopping
    if analysis.schedule_path(found) and stopping.name != "none":
        at = rungs(stopping, found.job.base.train.epochs)
        when = f"at epochs {', '.join(map(str, at))}" if at else f"from epoch {stopping.first} on"
        warnings.append(
            finding(
                "Schedules of different shapes were compared before their end",
                f"Trials were compared {when} of {found.job.base.train.epochs}. A schedule that decays has not decayed "
                "yet there, and looks worse than it will be; one that stays low from the start looks better.",
                "Compare schedules with stopping: none, or with a later first rung.",
                tone="warn",
                command=f"lehr run JOB stopping.first={max(1, found.job.base.train.epochs // 2)}",
            )
        )
    failed = Counter(result.message for result in found.results if result.state == "failed")
    for why, times in failed.most_common(3):
        warnings.append(finding(f"{times} trial{'s' if times > 1 else ''} failed", f"{why}.", tone="bad"))
    return warnings


def _fields(found: Found, scale: charts.Scale) -> Markup:
    note = "One dot per trial: blue ran to its end, grey was ended early, the ring is the best."
    return chart(charts.fields_chart(found, scale), longest=0) + paragraph(note, soft=True)


def _importance(found: Found, shares: dict[str, float]) -> Section | None:
    if not shares:
        return None
    note = (
        f"How much each field decided whether a trial was among the better ones, from {len(found.ranked)} trials "
        "(PED-ANOVA). With few trials this is a hint, no measurement."
    )
    return Section("What mattered", chart(charts.importance_chart(shares), longest=16) + paragraph(note, soft=True))


def _schedules(found: Found, scale: charts.Scale) -> Section | None:
    if not (path := analysis.schedule_path(found)) or not analysis.groups(found, path):
        return None
    head = ["schedule", "trials", "ended early", "best", "median"]
    rows = [
        [name, str(trials), str(ended), shown(found, best), shown(found, middle)]
        for name, trials, ended, best, middle in analysis.compared(found, path)
    ]
    longest = max(len(row[0]) for row in rows) + 5
    body = chart(charts.groups_chart(found, scale, path), longest=longest) + table(rows, head)
    return Section("Schedules compared", body)


def _parallel(found: Found, scale: charts.Scale) -> Markup:
    note = "A line is a trial, from its values to what it reached; the bluer the better, the thick one is the best."
    return chart(charts.parallel_chart(found, scale), longest=0) + paragraph(note, soft=True)


def _distinct(found: Found, shares: dict[str, float]) -> Section | None:
    """The picture of Bergstra and Bengio (2012): of the field that matters, a grid tries few values."""
    numeric = [path for path, dimension in found.space.items() if analysis.numeric(dimension)]
    paths = [path for path in shares if path in numeric] or numeric
    if not paths or len(found.space) < 2:
        return None
    path = paths[0]
    tried = analysis.distinct([result.values[path] for result in found.results if path in result.values])
    said = f"{path} is the number that mattered most here. " if path in shares else ""
    said += f"This search tried {tried} different values of it in {len(found.results)} trials"
    if found.job.method == "grid":
        said += "; random search would have tried a new one in every trial, at the same cost."
    else:
        points = analysis.grid_points(len(found.results), len(found.space))
        said += f"; a full grid over all {len(found.space)} fields would have tried {points}."
    return Section(
        "How many values were tried", chart(charts.distinct_chart(found, path), longest=16) + paragraph(said)
    )


def _trials(found: Found) -> Section:
    head = ["trial", found.metric.replace("_", " "), "epochs", "state", *found.space]
    order = [*found.ranked, *(result for result in found.results if result not in found.ranked)]
    rows = [
        [
            str(result.number),
            shown(found, cast(float, result.best)) if result in found.ranked else "",
            str(len(result.scores)),
            "ended early" if result.state == "ended" else result.state,
            *(label(result.values[path]) if path in result.values else "" for path in found.space),
        ]
        for result in order[:MOST_ROWS]
    ]
    title = "Trials" if len(order) <= MOST_ROWS else f"Trials: the best {MOST_ROWS} of {len(order)}"
    return Section(title, table(rows, head), folded=True)
