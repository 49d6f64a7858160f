"""The parts of every chart: scales, lines, scatter plots, labels, the theme, and a chart as a PNG file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import altair as alt
import numpy as np
from altair.utils import schemapi

from lehr.output import marked
from lehr.printing import printable_tree
from lehr.reporting.smoothing import Floats, moving_average, thin

Rows = list[dict[str, Any]]

TRAIN, VALIDATION, RATE, GRADIENT, SPEED, ALARM = "#3f7fc1", "#dd7a26", "#4f9d69", "#8e6bbf", "#7d8a97", "#d64545"
RUN_COLORS = (TRAIN, VALIDATION, RATE, GRADIENT, ALARM, "#c2a21b", "#3aa6a0", SPEED)

WIDTH = 720
MOST_POINTS = 4000  # of one scatter plot: the eye cannot tell more apart, and the page would grow with the run
LONGEST_LABEL = 22  # characters of a label at the end of a line
MOST_TICKS = 6  # labels of a logarithmic axis
MOST_DECADES = 4  # of a logarithmic axis: a diverging loss would squeeze everything else into one line
LOG_RATIO = 20.0  # a positive curve whose values span more than this factor gets a logarithmic axis

# Altair validates every part of a chart again each time it becomes part of another one, which took half the time of a
# report. Tests validate whole charts once.
schemapi.disable_debug_mode()
alt.data_transformers.consolidate_datasets = False


class _Rows:
    """Rows that Altair passes on unchanged; it would copy a plain list each time a chart becomes part of another."""

    _schema: ClassVar = {"type": "array"}  # with this and `to_dict` Altair treats it as a value of its own

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def to_dict(self) -> Rows:
        return self._rows


def inline(rows: Rows) -> alt.InlineData:
    """Many rows as the data of a chart."""
    return alt.InlineData(values=cast(Any, _Rows(rows)))


def average(x: Floats, y: Floats, scale: alt.Scale, span: float) -> tuple[Floats, Floats]:
    """The moving average as the eye sees it: of the logarithms on a logarithmic axis.

    It ends at the first value that is not finite, since beyond it there is nothing to average.

    Args:
        span: width of its window, in units of x.

    Returns:
        Positions and values of the line.
    """
    not_finite = np.flatnonzero(~np.isfinite(y))
    if len(not_finite):
        y = np.where(np.arange(len(y)) < not_finite[0], y, np.nan)
    if scale.type != "log":
        return moving_average(x, y, span)
    at, line = moving_average(x, np.log(y, out=np.full_like(y, np.nan), where=y > 0), span)
    return at, np.where(at < x[not_finite[0]], np.exp(line), np.nan) if len(not_finite) else np.exp(line)


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
    # Vega drops some of the values if there are more than `tickCount`, hence the high count.
    axis = alt.Axis(values=ticks, tickCount=40, format="~g", labelOverlap=False)
    return alt.Y(field, scale=scale, title=None, axis=axis)


def scatter(
    x: Floats, y: Floats, scale: alt.Scale, color: str, name: str, form: str, *, steps: Sequence[float] | Floats
) -> alt.Chart:
    """Points, at most `MOST_POINTS` of them; the tooltip shows the optimizer step and the value."""
    rows = [
        {"x": short(x[i]), "y": short(y[i]), "step": int(steps[i])}
        for i in thin(x, y, MOST_POINTS)
        if _drawable(y[i], scale)
    ]
    size, opacity = (16, 0.35) if len(rows) < 800 else (7, 0.22)
    tips = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("y:Q", title=name, format=form)]
    mark = alt.Chart(inline(rows)).mark_circle(size=size, opacity=opacity, color=color, clip=True)
    points: alt.Chart = mark.encode(x=x_axis(), y=y_axis(scale), tooltip=tips)
    return points


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
    over: str = "epoch",
) -> alt.Chart:
    """A line through the points, at most `MOST_POINTS` of them.

    `points` also marks each of them where they are few, `fill` shades the area below, `over` says what x counts.
    """
    kept = thin(x, y, MOST_POINTS)
    values = [
        {"x": short(a), "y": short(b) if _drawable(b, scale) else None} for a, b in zip(x[kept], y[kept], strict=True)
    ]
    marked = points and len(values) <= 120
    dots: Any = alt.OverlayMarkDef(size=22, color=color, filled=True) if marked else False
    chart = alt.Chart(inline(values))
    if fill:
        mark = chart.mark_area(color=color, opacity=0.2, line={"color": color, "strokeWidth": width})
    else:
        mark = chart.mark_line(color=color, strokeWidth=width, point=dots, clip=True)
    at = alt.Tooltip("x:Q", title=over, format=".2f" if over == "epoch" else ",.0f")
    tips = [at, alt.Tooltip("y:Q", title=name, format=form)]
    drawn: alt.Chart = mark.encode(x=x_axis(), y=y_axis(scale), tooltip=tips)
    return drawn


def ring(x: float, y: float, scale: alt.Scale, name: str, form: str) -> alt.Chart:
    """A ring around one point, whose tooltip says what it is: words beside it would lie across a curve."""
    data = alt.InlineData(values=[{"x": short(x), "y": short(y), "what": name}])
    tips = [alt.Tooltip("what:N", title=" "), alt.Tooltip("x:Q", title="epoch"), alt.Tooltip("y:Q", format=form)]
    mark = alt.Chart(data).mark_point(size=90, color=VALIDATION, strokeWidth=1.6, opacity=1)
    drawn: alt.Chart = mark.encode(x=x_axis(), y=y_axis(scale), tooltip=tips)
    return drawn


def labels(lines: Sequence[tuple[str, str, Floats, Floats]], scale: alt.Scale, *, percent: bool = False) -> Rows:
    """Names for the right end of each line, moved apart where they would overlap: rows for `end_labels`."""
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
    places = _spread([min(max(forward(end["y"]), low), high) for end in ends], 0.08 * (high - low), high)
    for end, place in zip(ends, places, strict=True):
        end["y"] = back(place)
    return ends


def _spread(places: list[float], gap: float, top: float) -> list[float]:
    """Ascending places, moved so that they are at least `gap` apart and none is above `top`."""
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top if i == len(places) - 1 else places[i + 1] - gap)
    return places


def end_labels(ends: Rows, scale: alt.Scale) -> list[alt.Chart]:
    """The texts that `labels` placed."""
    where = {"x": x_axis(), "y": y_axis(scale)}
    return [
        alt.Chart(alt.InlineData(values=[{k: end[k] for k in ("x", "y", "text")}]))
        .mark_text(align="left", dx=8, color=end["color"], fontSize=11, fontWeight="bold")
        .encode(text="text:N", **where)
        for end in ends
    ]


def scale_for(y: Floats) -> alt.Scale:
    """Logarithmic where positive values span more than `LOG_RATIO`, up to `MOST_DECADES` away from their median."""
    known = y[np.isfinite(y)]
    positive = known[known > 0]
    if len(positive) and len(positive) == len(known) and positive.max() / positive.min() > LOG_RATIO:
        middle, low, high = (float(f(positive)) for f in (np.median, np.min, np.max))
        low, high = max(low, middle / 10**MOST_DECADES), min(high, middle * 10**MOST_DECADES)
        return alt.Scale(type="log", domain=[low * 0.9, high * 1.1], nice=False)
    if not len(known):
        return alt.Scale(type="linear", domain=[0, 1])
    low, high = float(known.min()), float(known.max())
    margin = 0.05 * (high - low) or 0.5 * abs(low) or 1.0  # around a constant, an axis of its own size
    return alt.Scale(
        type="linear", domain=[low - margin if low < 0 else max(0.0, low - margin), high + margin], nice=False
    )


def accuracy_scale(values: Floats) -> alt.Scale:
    """A scale of percentages: around the values, but never so close that noise looks like a difference."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    margin = max(0.06 * (high - low), 2.0)
    return alt.Scale(domain=[max(0.0, low - margin), min(102.0, high + margin)], nice=False, clamp=True)


MOSTLY_ABOVE = 0.75
"""Share of a range that the lowest quarter of its values must take for an axis to leave them out."""


def close_accuracy_scale(values: Floats) -> tuple[alt.Scale, str]:
    """A scale of percentages that shows apart what lies close together at the top, and a note for the title.

    Where the lowest quarter of the values, such as those of the first epochs, takes most of the range, the axis begins
    above them: they lie at its edge, which the note says.
    """
    known = values[np.isfinite(values)]
    low, quarter, high = float(known.min()), float(np.quantile(known, 0.25)), float(known.max())
    if quarter - low <= MOSTLY_ABOVE * (high - low) or high - low < 10:
        return accuracy_scale(values), ""
    scale = accuracy_scale(known[known >= quarter])
    below = int((known < scale["domain"][0]).sum())
    note = f", from {scale['domain'][0]:.0f}: {below} lower value{'s lie' if below != 1 else ' lies'} at the edge"
    return scale, note if below else ""


def layer(*charts: alt.Chart | alt.LayerChart) -> alt.LayerChart:
    """Charts on top of each other. (Altair's own function is typed as if it might return facets.)"""
    return cast(alt.LayerChart, alt.layer(*charts))


def panel(layers: Sequence[alt.Chart], title: str, height: int) -> alt.LayerChart:
    """Layers as one panel of the usual width."""
    return layer(*layers).properties(width=WIDTH, height=height, title=title)


def stack(panels: Sequence[alt.LayerChart], over: str = "epoch") -> alt.VConcatChart:
    """The panels one below the other on a shared x axis; only the last one shows its title, `over`, and labels."""
    if not panels:
        return alt.vconcat(
            panel([line(np.empty(0), np.empty(0), scale_for(np.empty(0)), SPEED, "", "")], "No steps recorded yet", 60)
        )
    for part in panels[-1].layer:
        part.encoding.x.title, part.encoding.x.axis = over, alt.Axis(labels=True)
    stacked: alt.VConcatChart = alt.vconcat(*panels, spacing=16).resolve_scale(x="shared", y="independent")
    return stacked


def log_note(scale: alt.Scale) -> str:
    """What the title of a panel adds for a logarithmic axis."""
    return ", log scale" if scale.type == "log" else ""


def _drawable(value: float, scale: alt.Scale) -> bool:
    return bool(np.isfinite(value)) and (scale.type != "log" or value > 0)


def short(value: float) -> float:
    """The value with five significant digits: more than a screen shows, in a third of the bytes."""
    return float(f"{value:.5g}")


def png(chart: alt.VConcatChart, title: str, subtitle: Sequence[str]) -> bytes:
    """The chart as a PNG file at twice the screen's resolution, with a title above it. No browser is involved."""
    titled = chart.properties(
        title=alt.TitleParams(
            title,
            subtitle=[line for text in subtitle for line in textwrap.wrap(text, 120)],
            anchor="start",
            fontSize=18,
            subtitleFontSize=12,
            offset=14,
            subtitlePadding=5,
        )
    )
    return picture(titled.to_dict(validate=False))


def picture(spec: Mapping[str, Any]) -> bytes:
    """A chart's specification as a PNG file. Its texts may hold anything: control characters are shown as escapes."""
    import vl_convert

    looks = {"config": LIGHT, "background": "white", "padding": 20}
    return marked(vl_convert.vegalite_to_png(printable_tree({**spec, **looks}), scale=2))


# ── the theme ─────────────────────────────────────────────────────────────────────────────────────────────────────


def theme(ink: str, faint: str, grid: str) -> dict[str, Any]:
    """A Vega-Lite config with little ink, all of it in the given colours: text, less important text, grid lines."""
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
