"""The charts of an ensemble's report: errors, disagreement between members, and calibration."""

from __future__ import annotations

import altair as alt

from lehr.ensembles.evaluation import EnsembleEvaluation, ModelMetrics
from lehr.reporting import drawing as draw
from lehr.reporting.reliability import reliability_panel

HEIGHT = 230
ENSEMBLE, BASELINE, MEMBER = draw.TRAIN, draw.VALIDATION, draw.SPEED  # colours
Level = tuple[str, str, float]  # name, colour, error from 0 to 1


def error_chart(found: EnsembleEvaluation, baseline: str) -> alt.ConcatChart:
    """Two panels: the error of each member, and the error as members are added one after the other.

    Args:
        baseline: what the network to compare with is called.
    """
    levels = [("ensemble", ENSEMBLE, found.ensemble.error)]
    if found.baseline:
        levels.append((baseline, BASELINE, found.baseline.error))
    errors = [model.error for model in found.members]
    shown = [*errors, *found.cumulative, *found.cumulative_validation, *(level for *_, level in levels)]
    low, high = 100 * min(shown), 100 * max(shown)
    margin = 0.15 * (high - low) + 0.2
    domain = [max(0.0, low - margin), high + margin]
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    from_zero = alt.Scale(domain=[0.0, domain[1]], nice=False)  # the length of a bar is what is compared
    y = alt.Y("error:Q", scale=from_zero, title=None)
    names = list(found.names)
    members = [{"member": n, "error": draw.short(100 * e), "y2": 0.0} for n, e in zip(names, errors, strict=True)]
    tips = [alt.Tooltip("member:N"), alt.Tooltip("error:Q", format=".2f", title="error, %")]
    x = alt.X("member:N", sort=names, title=None, axis=_names_axis(names))
    bars = (
        alt.Chart(alt.InlineData(values=members))
        .mark_bar(color=MEMBER, opacity=0.55, width={"band": 0.6})
        .encode(x=x, y=y, y2="y2:Q", tooltip=tips)
    )
    left = draw.layer(bars, *_rules(levels, from_zero)).properties(height=HEIGHT, title="Error of each member, %")
    return alt.concat(left, _cumulative_panel(found, levels, scale), columns=2, spacing=28)


def _cumulative_panel(found: EnsembleEvaluation, levels: list[Level], scale: alt.Scale) -> alt.LayerChart:
    count = len(found.names)
    axis = alt.Axis(values=list(range(1, count + 1)), format="d", tickCount=count)
    x = alt.X("members:Q", title="members", scale=alt.Scale(domain=[0.8, count + 0.2], nice=False), axis=axis)
    y = alt.Y("error:Q", scale=scale, title=None)
    tips = [alt.Tooltip("members:Q"), alt.Tooltip("error:Q", format=".2f", title="error, %"), alt.Tooltip("rows:N")]
    lines = [(found.split, [1, 0], found.cumulative)]
    if found.split != "validation":
        lines.append(("validation", [4, 3], found.cumulative_validation))
    layers: list[alt.Chart] = []
    for split, dash, errors in lines:
        values = [{"members": k, "error": draw.short(100 * e), "rows": split} for k, e in enumerate(errors, 1)]
        point = alt.OverlayMarkDef(size=40, color=ENSEMBLE, filled=True)
        line = alt.Chart(alt.InlineData(values=values)).mark_line(color=ENSEMBLE, strokeDash=dash, point=point)
        layers.append(line.encode(x=x, y=y, tooltip=tips))
    order = "last first" if found.order[0] > found.order[-1] else "in order"
    dashed = "" if found.split == "validation" else "; dashed: validation rows"
    title = f"Error as members are added, {order}, %{dashed}"
    return draw.layer(*layers, *_rules(levels, scale)).properties(height=HEIGHT, title=title)


def _rules(levels: list[Level], scale: alt.Scale) -> list[alt.Chart]:
    """Lines across the panel, each labelled at its right end; labels of close lines do not overlap."""
    charts: list[alt.Chart] = []
    low, high = scale.domain
    ordered = sorted(levels, key=lambda level: level[2])
    close = len(ordered) == 2 and 100 * (ordered[1][2] - ordered[0][2]) < 0.09 * (high - low)
    for name, color, error in levels:
        data = alt.InlineData(values=[{"error": draw.short(100 * error), "text": f"{name} {error:.2%}"}])
        y = alt.Y("error:Q", scale=scale, title=None)
        below = close and name == ordered[0][0]
        charts.append(alt.Chart(data).mark_rule(color=color, strokeWidth=1.6).encode(y=y))
        text = alt.Chart(data).mark_text(
            color=color, align="right", dx=-4, dy=10 if below else -8, fontSize=11, fontWeight="bold"
        )
        charts.append(text.encode(y=y, x=alt.value("width"), text="text:N"))
    return charts


def disagreement_chart(found: EnsembleEvaluation) -> alt.ConcatChart:
    """One panel: the disagreement of every pair of members."""
    names = list(found.names)
    values = [
        {"one": a, "other": b, "share": draw.short(100 * found.disagreement[i, j])}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i != j
    ]
    base = alt.Chart(alt.InlineData(values=values))
    x = alt.X("one:N", sort=names, title=None, axis=_names_axis(names))
    y = alt.Y("other:N", sort=names, title=None)
    tips = [alt.Tooltip("one:N"), alt.Tooltip("other:N"), alt.Tooltip("share:Q", format=".2f", title="%")]
    top = draw.short(100 * float(found.disagreement.max())) or 1.0
    color = alt.Color("share:Q", scale=alt.Scale(range=["#dbe7f3", "#1d5c9e"], domain=[0, top]), legend=None)
    layers = [base.mark_rect().encode(x=x, y=y, color=color, tooltip=tips)]
    if len(names) <= 12:
        ink = alt.condition(f"datum.share > {0.5 * top}", alt.value("white"), alt.value("#1d2733"))
        layers.append(base.mark_text(fontSize=11).encode(x=x, y=y, text=alt.Text("share:Q", format=".1f"), color=ink))
    height = min(420, max(90, 30 * len(names)))
    panel = draw.layer(*layers).properties(height=height, title="Rows classified differently, %")
    return alt.concat(panel, columns=1)


def reliability_chart(found: EnsembleEvaluation, baseline: str) -> alt.ConcatChart:
    """Two reliability diagrams: the ensemble, and beside it the baseline or else the best member.

    Args:
        baseline: what the network to compare with is called.
    """
    other = found.baseline or found.members[found.best_member]
    name = baseline if found.baseline else f"best member, {found.names[found.best_member]}"
    models = [(found.ensemble, "ensemble", ENSEMBLE), (other, name, BASELINE)]
    panels = [reliability_panel(model.bins, _calibrated(model, of), color, HEIGHT) for model, of, color in models]
    return alt.concat(*panels, columns=2, spacing=28)


def _calibrated(model: ModelMetrics, name: str) -> str:
    return f"Accuracy of the {name}, %; calibration error {model.calibration:.2%}"


def _names_axis(names: list[str]) -> alt.Axis:
    return alt.Axis(labelAngle=0 if len(names) <= 12 else -60)
