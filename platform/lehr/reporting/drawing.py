"""The pieces that the charts are made of: scales, lines, clouds of points, labels, and how it all looks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import altair as alt
import numpy as np
from altair.utils import schemapi

from lehr.curves.record import Curves
from lehr.curves.smoothing import Floats, moving_average, thin

Rows = list[dict[str, Any]]

TRAIN, VALIDATION, RATE, GRADIENT, SPEED, ALARM = "#3f7fc1", "#dd7a26", "#4f9d69", "#8e6bbf", "#7d8a97", "#d64545"
RUN_COLORS = (TRAIN, VALIDATION, RATE, GRADIENT, ALARM, "#c2a21b", "#3aa6a0", SPEED)

WIDTH = 720
MOST_POINTS = 4000  # dots of one scatter; more are no longer seen, and the page would grow with the run
SPAN = 1 / 30  # width of the moving average's window, as a share of the run
LONGEST_LABEL = 22  # letters of a label at the end of a line
MOST_RESTART_LABELS = 5  # more would lie on each other
MOST_TICKS = 6  # labels of a logarithmic axis
MOST_DECADES = 4  # a loss on its way to infinity would press everything else into one line
LOG_RATIO = 20.0  # a positive curve whose values span more than this factor gets a logarithmic axis

# Each part of a chart is checked against Vega-Lite's schema again whenever it is put into another: that took half of
# the time of a report. Tests check whole charts once.
schemapi.disable_debug_mode()
alt.data_transformers.consolidate_datasets = False


class _Held:
    """Rows that Altair hands on as they are, where it would copy a list each time that a chart becomes part of one."""

    _schema: ClassVar = {"type": "array"}  # by this, and `to_dict`, Altair knows what it can write

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def to_dict(self) -> Rows:
        return self._rows


def inline(rows: Rows) -> alt.InlineData:
    """Many rows as the data of a chart."""
    return alt.InlineData(values=_Held(rows))


def average(curves: Curves, y: Floats, scale: alt.Scale) -> tuple[Floats, Floats]:
    """The moving average as the eye would take it: of the logarithms on a logarithmic axis."""
    x = curves.steps["epoch"]
    span, broken = max(SPAN * curves.bounds()[1], 5 / curves.steps_per_epoch), np.flatnonzero(~np.isfinite(y))
    if len(broken):  # beyond the first value that is no number a line would pretend to know
        y = np.where(np.arange(len(y)) < broken[0], y, np.nan)
    if scale.type != "log":
        return moving_average(x, y, span)
    at, line = moving_average(x, np.log(y, out=np.full_like(y, np.nan), where=y > 0), span)
    return (at, np.exp(line)) if not len(broken) else (at, np.where(at < x[broken[0]], np.exp(line), np.nan))


def x_axis() -> alt.X:
    return alt.X("x:Q", title=None, scale=alt.Scale(nice=False), axis=alt.Axis(labels=False))


def y_axis(scale: alt.Scale, field: str = "y:Q") -> alt.Y:
    if scale.type != "log":
        return alt.Y(field, scale=scale, title=None, stack=False)
    low, high = scale.domain
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    grids: list[list[float]] = [
        [float(f"{m}e{k}") for k in decades for m in steps] for steps in ((1, 2, 5), (1, 3), (1,))
    ]
    grids.append([10.0**k for k in decades if k % 2 == 0])
    inside = [[tick for tick in grid if low <= tick <= high] for grid in grids]
    ticks = next((grid for grid in inside if len(grid) <= MOST_TICKS), inside[-1])
    # Vega leaves out some of the values where it counts more than it would have placed, hence the count.
    axis = alt.Axis(values=ticks, tickCount=40, format="~g", labelOverlap=False)
    return alt.Y(field, scale=scale, title=None, axis=axis)


def dots(curves: Curves, x: Floats, y: Floats, scale: alt.Scale, color: str, name: str, form: str) -> alt.Chart:
    values = [
        {"x": short(x[i]), "y": short(y[i]), "step": int(curves.steps["step"][i])}
        for i in thin(x, y, MOST_POINTS)
        if _drawable(y[i], scale)
    ]
    size, opacity = (16, 0.35) if len(values) < 800 else (7, 0.22)
    tips = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("y:Q", title=name, format=form)]
    return (
        alt.Chart(inline(values))
        .mark_circle(size=size, opacity=opacity, color=color, clip=True)
        .encode(x=x_axis(), y=y_axis(scale), tooltip=tips)
    )


def line(
    x: Floats,
    y: Floats,
    scale: alt.Scale,
    color: str,
    name: str,
    form: str,
    *,
    width: float = 1.8,
    points: bool = False,
    fill: bool = False,
) -> alt.Chart:
    values = [{"x": short(a), "y": short(b) if _drawable(b, scale) else None} for a, b in zip(x, y, strict=True)]
    few = points and len(values) <= 120
    dots: Any = alt.OverlayMarkDef(size=22, color=color, filled=True) if few else False
    chart = alt.Chart(inline(values))
    if fill:
        mark = chart.mark_area(color=color, opacity=0.2, line={"color": color, "strokeWidth": width})
    else:
        mark = chart.mark_line(color=color, strokeWidth=width, point=dots, clip=True)
    tips = [alt.Tooltip("x:Q", title="epoch", format=".2f"), alt.Tooltip("y:Q", title=name, format=form)]
    return mark.encode(x=x_axis(), y=y_axis(scale), tooltip=tips)


def best_mark(x: Floats, y: Floats, scale: alt.Scale) -> list[alt.Chart]:
    best = int(np.nanargmax(y))
    data = alt.InlineData(values=[{"x": short(x[best]), "y": short(y[best]), "text": f"best {y[best]:.2f} %"}])
    low, high = scale.domain
    below = y[best] > low + 0.8 * (high - low)
    where = {"x": x_axis(), "y": y_axis(scale)}
    late = x[best] > 0.8 * x[-1]
    ring = alt.Chart(data).mark_point(size=90, color=VALIDATION, strokeWidth=1.6, opacity=1).encode(**where)
    text = (
        alt.Chart(data)
        .mark_text(color=VALIDATION, dy=20 if below else -16, align="right" if late else "center", fontSize=11)
        .encode(text="text:N", **where)
    )
    return [ring, text]


def broken_rule(x: Floats, y: Floats) -> list[alt.Chart]:
    """A line where the loss was first no longer a number, which no dot can show."""
    broken = np.flatnonzero(~np.isfinite(y))
    if not len(broken):
        return []
    data = alt.InlineData(values=[{"x": short(x[broken[0]]), "text": "loss no longer a number"}])
    rule = alt.Chart(data).mark_rule(color=ALARM, strokeDash=[4, 3]).encode(x=x_axis())
    side = "right" if x[broken[0]] > x[-1] / 2 else "left"
    offset = -6 if side == "right" else 6
    text = alt.Chart(data).mark_text(color=ALARM, align=side, dx=offset, baseline="top", fontSize=11)
    return [rule, text.encode(x=x_axis(), y=alt.value(90), text="text:N")]


def restart_rules(curves: Curves) -> list[alt.Chart]:
    """A thin line wherever the run was interrupted and went on; restarts at one place share theirs."""
    if not curves.restarts:
        return []
    times = Counter(curves.restarts)
    values = [
        {
            "x": short(step / curves.steps_per_epoch),
            "text": "restart" if times[step] == 1 else f"{times[step]} restarts",
        }
        for step in sorted(times)
    ]
    data = alt.InlineData(values=values)
    tips = [alt.Tooltip("text:N", title="what happened"), alt.Tooltip("x:Q", title="epoch", format=".2f")]
    rule = alt.Chart(data).mark_rule(color=SPEED, strokeDash=[2, 3], strokeWidth=1.3).encode(x=x_axis(), tooltip=tips)
    if len(values) > MOST_RESTART_LABELS:
        return [rule]
    text = alt.Chart(data).mark_text(color=SPEED, align="left", dx=4, baseline="top", fontSize=10)
    return [rule, text.encode(x=x_axis(), y=alt.value(4), text="text:N")]


def labels(lines: Sequence[tuple[str, str, Floats, Floats]], scale: alt.Scale, *, percent: bool = False) -> Rows:
    """Names at the right end of their lines, pushed apart where they would lie on each other."""
    log = scale.type == "log"
    ends: Rows = []
    for name, color, x, y in lines:
        name = name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"
        known = np.flatnonzero(np.isfinite(y) & (~np.array(log) | (y > 0)))
        if len(known):
            text = f"{name} {y[known[-1]]:.1f}" if percent else name
            ends.append({"x": float(x[known[-1]]), "y": float(y[known[-1]]), "text": text, "color": color})
    ends.sort(key=lambda end: end["y"])
    forward, back = (math.log, math.exp) if log else (float, float)
    low, high = (forward(end) for end in scale.domain)
    places = _apart([min(max(forward(end["y"]), low), high) for end in ends], 0.08 * (high - low), high)
    for end, place in zip(ends, places, strict=True):
        end["y"] = back(place)
    return ends


def _apart(places: list[float], gap: float, top: float) -> list[float]:
    """Ascending places moved to lie at least `gap` apart and, from the highest down, not above `top`."""
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top if i == len(places) - 1 else places[i + 1] - gap)
    return places


def end_labels(ends: Rows, scale: alt.Scale) -> list[alt.Chart]:
    where = {"x": x_axis(), "y": y_axis(scale)}
    return [
        alt.Chart(alt.InlineData(values=[{k: end[k] for k in ("x", "y", "text")}]))
        .mark_text(align="left", dx=8, color=end["color"], fontSize=11, fontWeight="bold")
        .encode(text="text:N", **where)
        for end in ends
    ]


def scale_for(y: Floats) -> alt.Scale:
    """Logarithmic where positive values span more than `LOG_RATIO`, up to `MOST_DECADES` off the middle."""
    known = y[np.isfinite(y)]
    positive = known[known > 0]
    if len(positive) and len(positive) == len(known) and positive.max() / positive.min() > LOG_RATIO:
        middle, low, high = (float(f(positive)) for f in (np.median, np.min, np.max))
        low, high = max(low, middle / 10**MOST_DECADES), min(high, middle * 10**MOST_DECADES)
        return alt.Scale(type="log", domain=[low * 0.9, high * 1.1], nice=False)
    if not len(known):
        return alt.Scale(type="linear", domain=[0, 1])
    low, high = float(known.min()), float(known.max())
    margin = 0.05 * (high - low) or 1.0
    return alt.Scale(
        type="linear", domain=[low - margin if low < 0 else max(0.0, low - margin), high + margin], nice=False
    )


def accuracy_scale(values: Floats) -> alt.Scale:
    """Percent: where the values are, but never so close that noise looks like news."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    margin = max(0.06 * (high - low), 2.0)
    return alt.Scale(domain=[max(0.0, low - margin), min(102.0, high + margin)], nice=False, clamp=True)


def panel(layers: Sequence[alt.Chart], title: str, height: int) -> alt.LayerChart:
    return alt.layer(*layers).properties(width=WIDTH, height=height, title=title)


def stack(panels: Sequence[alt.LayerChart]) -> alt.VConcatChart:
    """The panels above each other on one x axis, whose name stands under the last."""
    if not panels:
        return alt.vconcat(
            panel([line(np.empty(0), np.empty(0), scale_for(np.empty(0)), SPEED, "", "")], "No steps yet", 60)
        )
    for layer in panels[-1].layer:
        layer.encoding.x.title, layer.encoding.x.axis = "epoch", alt.Axis(labels=True)
    return alt.vconcat(*panels, spacing=16).resolve_scale(x="shared", y="independent")


def log_note(scale: alt.Scale) -> str:
    return ", log scale" if scale.type == "log" else ""


def _drawable(value: float, scale: alt.Scale) -> bool:
    return bool(np.isfinite(value)) and (scale.type != "log" or value > 0)


def short(value: float) -> float:
    """Five digits are more than a screen shows, and a third of the bytes."""
    return float(f"{value:.5g}")


# ── looks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def theme(ink: str, faint: str, grid: str) -> dict[str, Any]:
    """A Vega-Lite config: little ink, and all of it in the colours given."""
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
    axis = {
        "labelColor": faint,
        "titleColor": faint,
        "gridColor": grid,
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    }
    return {
        "font": font,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"tickCount": 10},
        "axisY": {"tickCount": 4, "minExtent": 44, "maxExtent": 44},
        "legend": {"labelColor": faint, "titleColor": faint, "symbolType": "circle"},
        "title": {
            "color": ink,
            "subtitleColor": faint,
            "anchor": "start",
            "fontSize": 12,
            "fontWeight": 600,
            "offset": 8,
        },
    }


LIGHT = theme(ink="#1d2733", faint="#667380", grid="#e8ebee")
DARK = theme(ink="#e6eaee", faint="#97a3af", grid="#2b333c")
