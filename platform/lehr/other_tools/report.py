"""The page of a log: its findings, its curves with the part that shows the first one shaded, and how it was read."""

from __future__ import annotations

import altair as alt
import numpy as np
from markupsafe import Markup

from lehr.other_tools.diagnosis import Verdict, others
from lehr.other_tools.log import BOUNDED, LEARNING_RATE, Curve, Log, Meaning
from lehr.other_tools.rules import Judged
from lehr.reporting import drawing as draw
from lehr.reporting.page import Section, chart, finding, page, paragraph, table

FATAL = ("diverged", "not_learning")
COLORS = {"train": draw.TRAIN, "validation": draw.VALIDATION, "": draw.RATE}
MOST_METRICS = 4
MANY = 120  # values from which on single ones are drawn as dots, with their moving average


def log_page(verdict: Verdict) -> str:
    """The page as HTML: self-contained, as every report."""
    log = verdict.log
    drawn = log_chart(log, verdict.judged[0])
    sections = [Section("", Markup().join(_finding(each) for each in verdict.judged)), Section("", chart(drawn))]
    if verdict.untold:
        sections.append(Section("What nobody can tell from this file", _list(verdict.untold)))
    read = [(str(meaning), curve.column, f"{len(curve):,}") for meaning, curve in log.curves.items()]
    sections.append(Section("Read as", table(read, ["what", "column", "values"]), folded=True))
    if log.unknown:
        sections.append(Section("Columns that were not understood", paragraph(", ".join(log.unknown)), folded=True))
    return page(log.name, lead(log), sections)


def lead(log: Log) -> str:
    """What was read, in half a line."""
    tool = f"in {log.tool}'s form, " if log.tool else ""
    epochs = f"{log.epochs:.3g} epochs" if np.isfinite(log.epochs) else ""
    steps = f"{log.end:,.0f} steps" if log.axis == "step" else ""
    return tool + ", ".join(each for each in (steps, epochs) if each)


def log_chart(log: Log, first: Judged) -> alt.VConcatChart:
    """A panel for the loss, one for each metric, and one for the learning rate, over epochs or steps."""
    metrics = dict.fromkeys(each.quantity for each in sorted(log.curves, key=lambda each: each != log.metric))
    others = [each for each in metrics if each not in ("loss", LEARNING_RATE.quantity)][:MOST_METRICS]
    quantities = ["loss", *others, LEARNING_RATE.quantity]
    return draw.stack([panel for each in quantities if (panel := _panel(log, each, first))], over=log.axis)


def _panel(log: Log, quantity: str, first: Judged) -> alt.LayerChart | None:
    percent, words = quantity in BOUNDED, Meaning("", quantity).called
    lines = [
        (each.split or "rate", COLORS[each.split], curve.x, curve.y * (100 if percent else 1))
        for each, curve in log.curves.items()
        if each.quantity == quantity and np.isfinite(curve.y).any()
    ]
    if not lines:
        return None
    values = np.concatenate([y for *_, y in lines])
    axis = draw.accuracy_scale(values) if percent else draw.scale_for(values)
    layers: list[alt.Chart] = [] if first.finding.good else [_shade(first)]
    for name, color, x, y in lines:
        layers += _line(Curve(f"{name} {words}", x, y), axis, color, log.axis)
    layers += draw.end_labels(draw.labels(lines, axis, percent=percent), axis) if lines[0][0] != "rate" else []
    title = (
        f"{words[:1].upper() if words.islower() else words[:1]}{words[1:]}{', %' if percent else draw.log_note(axis)}"
    )
    return draw.panel(layers, title, 90 if quantity == LEARNING_RATE.quantity else 190)


def _line(curve: Curve, axis: alt.Scale, color: str, over: str) -> list[alt.Chart]:
    """A curve; of one with many values also their moving average, since single steps are noise."""
    if len(curve) <= MANY:
        return [draw.line(curve.x, curve.y, axis, color, curve.column, ".4g", points=True, over=over)]
    at, line = draw.average(curve.x, curve.y, axis, float(curve.x[-1] - curve.x[0]) / 30)
    dots = draw.scatter(curve.x, curve.y, axis, color, curve.column, ".4g", steps=curve.x)
    return [dots, draw.line(at, line, axis, color, f"{curve.column}, moving average", ".4g", width=2.2, over=over)]


def _shade(first: Judged) -> alt.Chart:
    """The part of the curves that shows the finding."""
    data = alt.InlineData(values=[{"x": draw.short(first.begin), "to": draw.short(first.end)}])
    tips = [alt.Tooltip("title:N")]
    shaded: alt.Chart = (
        alt.Chart(data)
        .transform_calculate(title=repr(first.finding.title))
        .mark_rect(color=draw.ALARM, opacity=0.09)
        .encode(x=draw.x_axis(), x2=alt.X2("to:Q"), tooltip=tips)
    )
    return shaded


def _finding(judged: Judged) -> Markup:
    found = judged.finding
    return finding(
        found.title,
        found.sentence,
        found.advice,
        others(found),
        tone="good" if found.good else "bad" if found.name in FATAL else "warn",
        tag=f"{found.confidence} confidence",
        footnote=f"Rule: {found.rule}.",
    )


def _list(lines: tuple[str, ...]) -> Markup:
    items = Markup().join(Markup("<li>{}</li>").format(line) for line in lines)
    return Markup("<ul>{}</ul>").format(items)
