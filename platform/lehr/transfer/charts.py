"""The charts of a transfer's report: accuracy against training time, and against the number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from lehr.job.transfer import Strategy
from lehr.reporting import drawing
from lehr.transfer.results import STRATEGY_NAMES, StrategyTrial

COLORS: dict[Strategy, str] = {
    "features": drawing.RATE,
    "finetune": drawing.TRAIN,
    "scratch": drawing.VALIDATION,
}
Line = tuple[list[float], list[float]]  # x, y


def time_chart(trials: Sequence[StrategyTrial]) -> alt.LayerChart:
    """Accuracy in percent of the best model so far over seconds of training, one line per strategy."""
    return _lines({each.strategy: each.curve() for each in trials}, "seconds of training", log=False)


def images_chart(trials: Sequence[StrategyTrial], all_images: float) -> alt.LayerChart:
    """Best accuracy in percent over training images per class, one line per strategy.

    Args:
        all_images: images per class where all of them were used.
    """
    lines: dict[Strategy, Line] = {}
    for strategy in STRATEGY_NAMES:
        points = sorted(
            (each.per_class or all_images, 100 * each.accuracy)
            for each in trials
            if each.strategy == strategy and each.accuracy is not None
        )
        if points:
            lines[strategy] = ([x for x, _ in points], [y for _, y in points])
    return _lines(lines, "training images per class, log scale", log=True)


def _lines(lines: Mapping[Strategy, Line], title: str, log: bool) -> alt.LayerChart:
    scale = drawing.accuracy_scale(np.array([value for _, ys in lines.values() for value in ys]))
    x_scale = alt.Scale(type="log", nice=False) if log else alt.Scale(nice=False, zero=True)
    ticks = sorted({x for xs, _ in lines.values() for x in xs}) if log else None
    axis = alt.Axis(values=[float(round(tick)) for tick in ticks], format="d") if ticks else alt.Axis(tickCount=8)
    x = alt.X("x:Q", title=title, scale=x_scale, axis=axis)
    y = alt.Y("y:Q", scale=scale, title=None)
    layers: list[alt.Chart] = []
    for strategy, (xs, ys) in lines.items():
        name, color, few = STRATEGY_NAMES[strategy], COLORS[strategy], log or len(xs) == 1
        values = [{"x": drawing.short(a), "y": drawing.short(b)} for a, b in zip(xs, ys, strict=True)]
        tips = [alt.Tooltip("x:Q", title=title, format=".3~g"), alt.Tooltip("y:Q", title=name, format=".2f")]
        point = alt.OverlayMarkDef(size=60 if few else 16, color=color)
        mark = alt.Chart(alt.InlineData(values=values)).mark_line(color=color, strokeWidth=1.8, point=point)
        layers.append(mark.encode(x=x, y=y, tooltip=tips))
    ends = [(STRATEGY_NAMES[each], COLORS[each], np.array(xs), np.array(ys)) for each, (xs, ys) in lines.items()]
    for end in drawing.labels(ends, scale, percent=True):
        data = alt.InlineData(values=[{key: end[key] for key in ("x", "y", "text")}])
        label = alt.Chart(data).mark_text(align="left", dx=8, color=end["color"], fontSize=11, fontWeight="bold")
        layers.append(label.encode(x=x, y=y, text="text:N"))
    return drawing.layer(*layers).properties(width=drawing.WIDTH, height=260, title="Validation accuracy, %")
