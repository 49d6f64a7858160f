"""The report of an ensemble as one page: what it is worth, its members, how they differ, how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from lehr.curves.report import job_section
from lehr.ensembles.figures import Figures, Model
from lehr.formatting import format_seconds
from lehr.job import EnsembleJob
from lehr.reporting import drawing as draw
from lehr.reporting.page import Section, chart, finding, page, paragraph, table
from lehr.runs import RunFolder

HEIGHT = 230
TOGETHER, SINGLE, MEMBER = draw.TRAIN, draw.VALIDATION, draw.SPEED
CHOICE = {
    "equal": "all alike",
    "best": "the best one",
    "last": "the last ones",
    "greedy": "greedy selection",
    "fitted": "fitted weights",
}
WHAT = {"snapshot": "snapshots of one run", "independent": "independent networks", "average": "averages of the weights"}


def ensemble_page(run: RunFolder, job: EnsembleJob, found: Figures, said: Sequence[str]) -> str:
    """The page as HTML."""
    several = len(found.names) > 1
    sections = [
        Section("", finding(said[0].rstrip("."), *said[1:], tone=tone_of(found))),
        Section("Error", chart(error_chart(found), longest=0)),
        Section("", table(*_member_table(found))),
        Section(
            "Disagreement",
            paragraph(
                "The share of rows that two members put into different classes. Alike members gain nothing.", soft=True
            )
            + chart(disagreement_chart(found), longest=0),
        )
        if several
        else None,
        Section(
            "Calibration",
            paragraph(
                "How often it is right, against how sure it is; on the dashed line it is as sure as it should be. The "
                "size of a dot is the number of rows.",
                soft=True,
            )
            + chart(reliability_chart(found), longest=0),
        ),
        job_section(run),
    ]
    facts = [
        ("Error of the ensemble", f"{found.ensemble.error:.2%}"),
        *(
            [("Single cosine" if job.method != "average" else "Raw weights", f"{found.single.error:.2%}")]
            if found.single
            else []
        ),
        ("Best member", f"{found.members[found.best_member].error:.2%}"),
        ("Members used", f"{found.used} of {len(found.names)}"),
        ("Calibration error", f"{found.ensemble.calibration:.2%}"),
        ("Judged on", f"{found.rows:,} {found.split} rows"),
        ("Time", format_seconds(run.progress().get("seconds", {}).get("total", 0.0))),
    ]
    chosen = f"combined by the mean of {job.combine.by}; {CHOICE[job.selection]}, chosen on validation rows"
    lead = f"{len(found.names)} {WHAT[job.method]} of {job.base.model.name}, {chosen}"
    return page(run.name, lead, [section for section in sections if section], facts)


def tone_of(found: Figures) -> str:
    """The colour of the verdict: whether the ensemble was worth it."""
    if found.difference is None or not found.difference.clear:
        return ""
    return "good" if found.difference.mean < 0 else "bad"


def _member_table(found: Figures) -> tuple[list[list[str]], list[str]]:
    def row(name: str, weight: str, model: Model) -> list[str]:
        return [name, weight, f"{model.error:.2%}", f"{model.log_loss:.4f}", f"{model.calibration:.2%}"]

    weights = found.weights.tolist()
    rows = [row(n, f"{w:.3f}", m) for n, w, m in zip(found.names, weights, found.members, strict=True)]
    rows.append(row("together", "", found.ensemble))
    if found.single:
        rows.append(row("to compare with", "", found.single))
    return rows, ["member", "weight", "error", "log loss", "calibration error"]


# ── charts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def error_chart(found: Figures) -> alt.ConcatChart:
    """Two panels: the error of each member, and the error as members are added one after the other."""
    levels = [("together", TOGETHER, found.ensemble.error)]
    if found.single:
        levels.append(("single", SINGLE, found.single.error))
    errors = [model.error for model in found.members]
    values = [100 * e for e in [*errors, *found.added, *found.added_validation, *(level for *_, level in levels)]]
    spread = max(values) - min(values)
    domain = [max(0.0, min(values) - 0.15 * spread - 0.2), max(values) + 0.15 * spread + 0.2]
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    y = alt.Y("error:Q", scale=scale, title=None)
    names = list(found.names)
    members = [{"member": n, "error": draw.short(100 * e), "y2": domain[0]} for n, e in zip(names, errors, strict=True)]
    tips = [alt.Tooltip("member:N"), alt.Tooltip("error:Q", format=".2f", title="error, %")]
    x = alt.X("member:N", sort=names, title=None, axis=alt.Axis(labelAngle=0 if len(names) <= 12 else -60))
    bars = (
        alt.Chart(alt.InlineData(values=members))
        .mark_bar(color=MEMBER, opacity=0.55, width={"band": 0.6})
        .encode(x=x, y=y, y2="y2:Q", tooltip=tips)
    )
    left = alt.layer(bars, *_rules(levels, scale)).properties(height=HEIGHT, title="Each member alone, error in %")
    return alt.concat(left, _added_panel(found, levels, scale), columns=2, spacing=28)


def _added_panel(found: Figures, levels: list[tuple[str, str, float]], scale: alt.Scale) -> alt.LayerChart:
    rows = [
        {"members": k, "error": draw.short(100 * e), "rows": rows}
        for rows, errors in ((found.split, found.added), ("validation", found.added_validation))
        for k, e in enumerate(errors, 1)
    ]
    if found.split == "validation":
        rows = rows[: len(found.added)]
    count = len(found.names)
    x = alt.X("members:Q", title="members", scale=alt.Scale(domain=[0.8, count + 0.2], nice=False))
    x.axis = alt.Axis(values=list(range(1, count + 1)), format="d", tickCount=count)
    y = alt.Y("error:Q", scale=scale, title=None)
    tips = [alt.Tooltip("members:Q"), alt.Tooltip("error:Q", format=".2f", title="error, %"), alt.Tooltip("rows:N")]
    layers: list[alt.Chart] = []
    for split, dash in ((found.split, [1, 0]), ("validation", [4, 3])):
        mine = [row for row in rows if row["rows"] == split]
        base = alt.Chart(alt.InlineData(values=mine))
        point: Any = alt.OverlayMarkDef(size=40, color=TOGETHER, filled=True)
        layers.append(base.mark_line(color=TOGETHER, strokeDash=dash, point=point).encode(x=x, y=y, tooltip=tips))
        if split == "validation" == found.split:
            break
    order = "from the last one on" if found.order[0] > found.order[-1] else "in their order"
    dashed = "" if found.split == "validation" else "; dashed: on validation rows"
    title = f"As members are added {order}, error in %{dashed}"
    return alt.layer(*layers, *_rules(levels, scale)).properties(height=HEIGHT, title=title)


def _rules(levels: list[tuple[str, str, float]], scale: alt.Scale) -> list[alt.Chart]:
    """Lines across the panel, each with its name at the right end, clear of each other."""
    found: list[alt.Chart] = []
    low, high = scale.domain
    ordered = sorted(levels, key=lambda level: level[2])
    near = len(ordered) == 2 and 100 * (ordered[1][2] - ordered[0][2]) < 0.09 * (high - low)
    for name, color, error in levels:
        data = alt.InlineData(values=[{"error": draw.short(100 * error), "text": f"{name} {error:.2%}"}])
        y = alt.Y("error:Q", scale=scale, title=None)
        below = near and error == ordered[0][2] and name == ordered[0][0]
        found.append(alt.Chart(data).mark_rule(color=color, strokeWidth=1.6).encode(y=y))
        text = alt.Chart(data).mark_text(
            color=color, align="right", dx=-4, dy=10 if below else -8, fontSize=11, fontWeight="bold"
        )
        found.append(text.encode(y=y, x=alt.value("width"), text="text:N"))
    return found


def disagreement_chart(found: Figures) -> alt.ConcatChart:
    """One panel: members against members."""
    names = list(found.names)
    values = [
        {"one": a, "other": b, "share": draw.short(100 * found.disagreement[i, j])}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i != j
    ]
    base = alt.Chart(alt.InlineData(values=values))
    x = alt.X("one:N", sort=names, title=None, axis=alt.Axis(labelAngle=0 if len(names) <= 12 else -60))
    y = alt.Y("other:N", sort=names, title=None)
    tips = [alt.Tooltip("one:N"), alt.Tooltip("other:N"), alt.Tooltip("share:Q", format=".2f", title="%")]
    top = draw.short(100 * float(found.disagreement.max())) or 1.0
    color = alt.Color("share:Q", scale=alt.Scale(range=["#dbe7f3", "#1d5c9e"], domain=[0, top]), legend=None)
    layers = [base.mark_rect().encode(x=x, y=y, color=color, tooltip=tips)]
    if len(names) <= 12:
        ink = alt.condition(f"datum.share > {0.5 * top}", alt.value("white"), alt.value("#1d2733"))
        layers.append(base.mark_text(fontSize=11).encode(x=x, y=y, text=alt.Text("share:Q", format=".1f"), color=ink))
    height = min(420, max(90, 30 * len(names)))
    panel = alt.layer(*layers).properties(height=height, title="Rows put into different classes, %")
    return alt.concat(panel, columns=1)


def reliability_chart(found: Figures) -> alt.ConcatChart:
    """Two panels: the ensemble, and beside it the single network or the best member."""
    other = found.single or found.members[found.best_member]
    name = "the one to compare with" if found.single else f"the best member, {found.names[found.best_member]}"
    panels = [
        _reliability_panel(found.ensemble, "together", TOGETHER),
        _reliability_panel(other, name, SINGLE),
    ]
    return alt.concat(*panels, columns=2, spacing=28)


def _reliability_panel(model: Model, name: str, color: str) -> alt.LayerChart:
    values = [
        {"sure": draw.short(100 * each.confidence), "right": draw.short(100 * each.accuracy), "rows": each.rows}
        for each in model.bins
    ]
    scale = alt.Scale(domain=[0, 100], nice=False)
    where = {"x": alt.X("sure:Q", scale=scale, title="sure, %"), "y": alt.Y("right:Q", scale=scale, title=None)}
    diagonal = alt.Chart(alt.InlineData(values=[{"sure": 0, "right": 0}, {"sure": 100, "right": 100}]))
    base = alt.Chart(alt.InlineData(values=values))
    tips = [
        alt.Tooltip("sure:Q", format=".1f", title="sure, %"),
        alt.Tooltip("right:Q", format=".1f", title="right, %"),
        alt.Tooltip("rows:Q", format=",d"),
    ]
    size = alt.Size("rows:Q", scale=alt.Scale(range=[20, 260], domainMin=0), legend=None)
    layers = [
        diagonal.mark_line(color=MEMBER, strokeDash=[4, 3], strokeWidth=1.2).encode(**where),
        base.mark_line(color=color, strokeWidth=1.4).encode(**where),
        base.mark_circle(color=color, opacity=0.85).encode(**where, size=size, tooltip=tips),
    ]
    title = f"Right, %: {name}, calibration error {model.calibration:.2%}"
    return alt.layer(*layers).properties(height=HEIGHT, title=title)
