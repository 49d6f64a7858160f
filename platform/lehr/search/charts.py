"""The charts of a search report, drawn with Altair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import numpy as np

from lehr.job.search import Dimension
from lehr.reporting import drawing as draw
from lehr.search.analysis import (
    SearchResults,
    SearchTrial,
    best_so_far,
    count_distinct,
    grid_points,
    groups,
    is_numeric,
)
from lehr.search.formats import format_value, is_accuracy, metric_name
from lehr.search.samplers import quasi_random_values
from lehr.search.space import Space, position_of

BEST, OTHER = draw.VALIDATION, draw.SPEED
COLORS = {"finished": draw.TRAIN, "ended": OTHER, "unfinished": OTHER, "failed": draw.ALARM}


class MetricScale:
    """The metric as charts show it: accuracies in percent.

    Attributes:
        title: the metric with its unit, for axes and tooltips.
        all, bests: axes that fit all scores, and the best score of every trial.
    """

    def __init__(self, found: SearchResults) -> None:
        self.percent = is_accuracy(found.metric)
        self.factor = 100.0 if self.percent else 1.0
        self.name, self.unit = metric_name(found.metric), ", %" if self.percent else ""
        self.title = self.name + self.unit
        self.form = ".2f" if self.percent else ".4f"
        known = [s for trial in found.trials for s in trial.scores if math.isfinite(s)]
        self.all = self.fit(known)
        self.bests = self.fit([cast(float, trial.best) for trial in found.ranked])

    def headline(self, what: str) -> str:
        """The metric, `what` is drawn of it, and its unit, as the title of a chart."""
        return f"{self.name[:1].upper()}{self.name[1:]} {what}{self.unit}"

    def fit(self, values: Sequence[float]) -> alt.Scale:
        """An axis for these values."""
        drawn = self.factor * np.array(values, float)
        return draw.accuracy_scale(drawn) if self.percent else draw.scale_for(drawn)

    def of(self, value: float) -> float:
        """A value as it is drawn."""
        return draw.short(self.factor * value)


def curves_chart(found: SearchResults, scale: MetricScale) -> alt.LayerChart:
    """Every trial's metric over epochs: the best trial thick, a dot where a trial was ended early."""
    best, rows, ends = found.ranked[0], [], []
    for trial in found.trials:
        for epoch, score in enumerate(trial.scores, 1):
            if math.isfinite(score):
                rows.append({"x": epoch, "y": scale.of(score), "trial": trial.number, "values": _tip(trial)})
        if trial.state == "ended" and trial.scores and math.isfinite(trial.scores[-1]):
            ends.append(rows[-1])
    where: dict[str, Any] = {"x": _x("epoch", tickMinStep=1), "y": draw.y_axis(scale.all)}
    tips = [
        alt.Tooltip("trial:Q"), alt.Tooltip("x:Q", title="epoch"),
        alt.Tooltip("y:Q", title=scale.title, format=scale.form), alt.Tooltip("values:N"),
    ]  # fmt: skip
    thin = _chart([row for row in rows if row["trial"] != best.number])
    thick = _chart([row for row in rows if row["trial"] == best.number])
    dots = {"size": 20, "filled": True, "color": OTHER, "opacity": 0.35}
    strong: dict[str, Any] = {"strokeWidth": 3.2, "color": BEST, "point": alt.OverlayMarkDef(size=36, color=BEST)}
    layers = [
        thin.mark_line(color=OTHER, strokeWidth=1, opacity=0.55, clip=True, point=dots)
        .encode(detail="trial:N", tooltip=tips, **where),
        _chart(ends).mark_point(color=OTHER, size=26, filled=True, opacity=0.9).encode(tooltip=tips, **where),
        thick.mark_line(**strong).encode(tooltip=tips, **where),
        *draw.end_labels(draw.labels([(f"trial {best.number}", BEST, *_curve(best, scale))], scale.all), scale.all),
    ]  # fmt: skip
    for layer in layers:
        layer.encoding.x = _x("epoch", tickMinStep=1)
    return draw.panel(layers, scale.headline("of every trial") + ": the best is thick, a dot marks an early end", 260)


def spent_chart(found: SearchResults, scale: MetricScale) -> alt.LayerChart:
    """The best value so far over the epochs spent."""
    points = [{"x": spent, "y": scale.of(value)} for spent, value in best_so_far(found)]
    axis = scale.fit([value for _, value in best_so_far(found)])
    tips = [alt.Tooltip("x:Q", title="epochs"), alt.Tooltip("y:Q", title=scale.title, format=scale.form)]
    steps = _chart(points).mark_line(color=BEST, interpolate="step-after", strokeWidth=2.4, point=True)
    layers = [steps.encode(x=_x("epochs spent, trials in order"), y=draw.y_axis(axis), tooltip=tips)]
    return draw.panel(layers, f"Best {scale.name} so far{scale.unit}", 150)


def fields_chart(found: SearchResults, scale: MetricScale) -> alt.ConcatChart:
    """For each searched field, the best value of every trial over the trial's value of the field."""
    return alt.concat(*(_field_panel(found, scale, path) for path in found.space), columns=3, spacing=22)


def _field_panel(found: SearchResults, scale: MetricScale, path: str) -> alt.LayerChart:
    dimension = found.space[path]
    rows = [
        {
            "x": trial.values[path] if is_numeric(dimension) else format_value(trial.values[path]),
            "y": scale.of(cast(float, trial.best)),
            "trial": trial.number,
            "state": trial.state,
            "epochs": len(trial.scores),
        }
        for trial in found.ranked
        if path in trial.values
    ]
    tips = [
        alt.Tooltip("trial:Q"),
        alt.Tooltip("x:Q" if is_numeric(dimension) else "x:N", title=path),
        alt.Tooltip("y:Q", title=scale.title, format=scale.form),
    ]
    where: dict[str, Any] = {"x": _field_axis(dimension), "y": draw.y_axis(scale.bests)}
    color = alt.Color("state:N", scale=alt.Scale(domain=list(COLORS), range=list(COLORS.values())), legend=None)
    dots = (
        _chart(rows)
        .mark_circle(size=46, opacity=0.7, clip=True)
        .encode(color=color, tooltip=[*tips, "epochs:Q"], **where)
    )
    ring = _chart(rows[:1]).mark_point(size=130, color=BEST, strokeWidth=2).encode(**where)
    return draw.layer(dots, ring).properties(height=150, title=path)


def _field_axis(dimension: Dimension) -> alt.X:
    if not is_numeric(dimension):
        order = [format_value(value) for value in dimension.values or ()]
        return alt.X(
            "x:N", sort=order, title=None, scale=alt.Scale(domain=order), axis=alt.Axis(labelAngle=-30, labelLimit=90)
        )
    log, low, high = _ends(dimension)
    if log:
        scale = alt.Scale(type="log", domain=[low / 1.15, high * 1.15], nice=False)
        decades = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        ticks = [tick for tick in decades if low / 1.15 <= tick <= high * 1.15]
        axis = alt.Axis(values=ticks, format="~g") if len(ticks) > 1 else alt.Axis(tickCount=4, format="~g")
        return alt.X("x:Q", scale=scale, title=None, axis=axis)
    room = 0.04 * (high - low)
    return alt.X(
        "x:Q", scale=alt.Scale(domain=[low - room, high + room], nice=False), title=None, axis=alt.Axis(tickCount=4)
    )


def _ends(dimension: Dimension) -> tuple[bool, float, float]:
    """Whether a numeric field gets a logarithmic axis, and its ends."""
    if dimension.values is None:
        return dimension.form == "log_uniform", *dimension.ends
    low, high = float(min(dimension.values)), float(max(dimension.values))
    return low > 0 and high / low > 20, low, high


def parallel_chart(found: SearchResults, scale: MetricScale) -> alt.LayerChart:
    """Parallel coordinates: a line per trial through its values; better trials have more colour, the best is thick."""
    axes = [*found.space, found.metric]
    ranked, top = found.ranked, len(found.ranked)
    low, high = (scale.factor * extreme(cast(float, r.best) for r in ranked) for extreme in (min, max))
    rows = []
    for rank, trial in enumerate(ranked):
        for number, path in enumerate(axes):
            if path == found.metric:
                position = (scale.factor * cast(float, trial.best) - low) / ((high - low) or 1.0)
                text = f"{trial.best:.4g}"
            elif path in trial.values:
                position = position_of(found.space[path], trial.values[path])
                text = format_value(trial.values[path])
            else:
                continue
            rows.append({"x": number, "y": draw.short(position), "trial": trial.number, "value": text, "field": path,
                         "rank": 1 - rank / max(1, top - 1)})  # fmt: skip
    x = alt.X("x:Q", title=None, scale=alt.Scale(domain=[-0.15, len(axes) - 0.85], nice=False), axis=None)
    y = alt.Y("y:Q", title=None, scale=alt.Scale(domain=[-0.14, 1.14], nice=False), axis=None)
    color = alt.Color("rank:Q", scale=alt.Scale(range=["#c9cfd6", draw.TRAIN]), legend=None)
    tips = ["trial:Q", "field:N", "value:N"]
    best = [row for row in rows if row["trial"] == ranked[0].number]
    posts, names = [], []
    for number, path in enumerate(axes):
        bottom, above = (f"{low:.4g}", f"{high:.4g}") if path == found.metric else _end_labels(found.space[path])
        posts.append({"x": number, "y": 0, "y2": 1})
        names += [{"x": number, "y": -0.08, "text": bottom}, {"x": number, "y": 1.06, "text": above}]
    titles = [{"x": i, "text": path.rpartition(".")[2].replace("_", " ")} for i, path in enumerate(axes)]
    layers = [
        _chart(posts).mark_rule(color=OTHER, opacity=0.5).encode(x=x, y=y, y2="y2:Q"),
        _chart(rows)
        .mark_line(strokeWidth=1.2, opacity=0.6)
        .encode(x=x, y=y, color=color, detail="trial:N", tooltip=tips),
        _chart(best)
        .mark_line(strokeWidth=3, color=BEST, point=alt.OverlayMarkDef(color=BEST))
        .encode(x=x, y=y, tooltip=tips),
        _chart(names).mark_text(fontSize=10, color=OTHER).encode(x=x, y=y, text="text:N"),
        _chart(titles)
        .mark_text(fontSize=11, fontWeight="bold", color=OTHER)
        .encode(x=x, y=alt.value(-8), text="text:N"),
    ]
    return draw.layer(*layers).properties(width=draw.WIDTH, height=240)


def _end_labels(dimension: Dimension) -> tuple[str, str]:
    values = dimension.values or list(dimension.ends)
    return format_value(values[0])[:16], format_value(values[-1])[:16]


def importance_chart(shares: dict[str, float]) -> alt.LayerChart:
    """How much each field matters, as bars."""
    rows = [{"field": path, "share": round(share, 4)} for path, share in shares.items()]
    y = alt.Y("field:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, minExtent=150, maxExtent=150))
    x = alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=4))
    bars = (
        _chart(rows)
        .mark_bar(color=draw.TRAIN, height=14)
        .encode(x=x, y=y, tooltip=["field:N", alt.Tooltip("share:Q", format=".0%")])
    )
    return draw.layer(bars).properties(height=26 * len(rows))


def groups_chart(found: SearchResults, scale: MetricScale, path: str) -> alt.LayerChart:
    """The trials over epochs, coloured by the value of one field; the best trial of each value is thick."""
    layers: list[alt.Chart] = []
    lines = []
    for number, (name, trials) in enumerate(groups(found, path)):
        color = draw.RUN_COLORS[number % len(draw.RUN_COLORS)]
        for trial in trials[1:]:
            layers.append(
                draw.line(*_curve(trial, scale), scale.all, color, name, ".4g", width=0.8).encode(
                    opacity=alt.value(0.35)
                )
            )
        lines.append((name, color, *_curve(trials[0], scale)))
    layers += [draw.line(x, y, scale.all, color, name, ".4g", width=2.6, points=True) for name, color, x, y in lines]
    layers += draw.end_labels(draw.labels(lines, scale.all, percent=scale.percent), scale.all)
    for layer in layers:
        layer.encoding.x = _x("epoch", tickMinStep=1)
    return draw.panel(layers, scale.headline("by value") + ": the best trial of each value is thick", 260)


def distinct_chart(found: SearchResults, path: str) -> alt.LayerChart:
    """The values of one field that the search tried, and those that a grid (or random search) would try."""
    dimension = found.space[path]
    values = [trial.values[path] for trial in found.trials if path in trial.values]
    rows = [{"x": value, "row": f"this search: {_count(values)}"} for value in values]
    if found.job.method == "grid":
        space = Space(found.job.model_copy(update={"space": {path: _as_range(dimension)}}))
        other = [quasi_random_values(space, found.job.seed, number)[path] for number in range(len(values))]
        rows += [{"x": value, "row": f"random: {_count(other)}"} for value in other]
    else:
        points = grid_points(len(values), len(found.space))
        other = [_value(dimension, i / max(1, points - 1)) for i in range(points)]
        rows += [{"x": value, "row": f"a full grid: {_count(other)}"} for value in other]
    ticks = _chart(rows).mark_tick(thickness=2, size=24, color=draw.TRAIN)
    y = alt.Y("row:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, minExtent=150, maxExtent=150))
    return draw.layer(ticks.encode(x=_field_axis(dimension), y=y)).properties(height=90, title=path)


def _count(values: Sequence[Any]) -> str:
    return f"{count_distinct(values)} value{'' if count_distinct(values) == 1 else 's'}"


def _as_range(dimension: Dimension) -> Dimension:
    """A numeric dimension as a range from its lowest to its highest value."""
    log, low, high = _ends(dimension)
    return Dimension(log_uniform=(low, high)) if log else Dimension(uniform=(low, high))


def _value(dimension: Dimension, share: float) -> float:
    log, low, high = _ends(dimension)
    return float(low * (high / low) ** share if log else low + share * (high - low))


def _curve(trial: SearchTrial, scale: MetricScale) -> tuple[np.ndarray, np.ndarray]:
    scores = np.array(trial.scores, float)
    return np.arange(1.0, len(scores) + 1), np.where(np.isfinite(scores), scale.factor * scores, np.nan)


def _tip(trial: SearchTrial) -> str:
    """The values of a trial by the last part of their paths: `lr 0.1, schedule cosine`."""
    return ", ".join(f"{path.rpartition('.')[2]} {format_value(value)}" for path, value in trial.values.items())


def _x(title: str, **axis: Any) -> alt.X:
    return alt.X("x:Q", title=title, scale=alt.Scale(nice=False), axis=alt.Axis(**axis))


def _chart(rows: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=rows))
