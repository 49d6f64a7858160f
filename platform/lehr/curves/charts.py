"""The charts of a run, and of several: one Altair specification, drawn as PNG or by the browser in the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import altair as alt
import numpy as np

from lehr.curves import panels
from lehr.curves.record import Curves
from lehr.reporting import drawing as draw
from lehr.reporting.smoothing import Floats, thin
from lehr.runs.columns import listed

MOST_COMPARED = 4  # metrics of the jobs' own, besides loss and accuracy


def run_chart(curves: Curves) -> alt.VConcatChart:
    """Loss, accuracy, learning rate, gradient norm and throughput of one run over epochs, one below the other.

    The panels share the x axis. Steps beyond `MOST_POINTS` are thinned without losing extremes.
    """
    found = [
        panels.loss_panel(curves),
        panels.accuracy_panel(curves),
        *panels.metric_panels(curves),
        panels.learning_rate_panel(curves),
        panels.gradient_panel(curves),
        panels.throughput_panel(curves),
    ]
    return draw.stack([panel for panel in found if panel is not None])


def short_chart(curves: Curves) -> alt.VConcatChart:
    """Only loss and accuracy of one run."""
    found = panels.loss_panel(curves), panels.accuracy_panel(curves)
    return draw.stack([panel for panel in found if panel is not None])


def compare_chart(runs: Sequence[Curves]) -> alt.VConcatChart:
    """Several runs on the same axes, each in its own colour: loss, accuracy, learning rate and gradient norm."""
    found = [
        _comparison("Training loss", runs, "loss", 190),
        _comparison("Validation accuracy, %", runs, "validation_accuracy", 210, scale=100.0),
        *(_comparison(metric_title(name), runs, name, 150, smoothed=False) for name in _common_metrics(runs)),
        _comparison("Learning rate", runs, "learning_rate", 70, smoothed=False),
        _comparison("Gradient norm", runs, "gradient_norm", 80),
    ]
    return draw.stack([panel for panel in found if panel is not None])


def _common_metrics(runs: Sequence[Curves]) -> list[str]:
    """The metrics of the jobs' own lists that most runs have measured, a few of them."""
    times = Counter(name for curves in runs for name in listed(curves.epochs, "validation"))
    return [name for name, _ in times.most_common(MOST_COMPARED)]


def metric_title(name: str) -> str:
    """`Validation f1`."""
    return f"{name[:1].upper()}{name[1:].replace('_', ' ')}"


def short_names(names: Sequence[str]) -> list[str]:
    """The names of runs without the parts that they all begin or end with, for labels in a chart.

    One shared part stays before the first difference, so that a bare number keeps its meaning:
    `cifar-seed-0-lr-0.1` and `cifar-seed-1-lr-0.1` become `seed-0` and `seed-1`.
    """
    parts = [name.split("-") for name in names]
    if len(set(names)) < len(names):
        return list(names)
    shortest = min(map(len, parts))
    same = [len({tuple(each[:k]) for each in parts}) == 1 for k in range(1, shortest)]
    begin = max(0, same.count(True) - 1)
    end = next((k for k in range(shortest - begin - 1) if len({each[-1 - k] for each in parts}) > 1), 0)
    return ["-".join(each[begin : len(each) - end]) for each in parts]


def _comparison(
    title: str, runs: Sequence[Curves], column: str, height: int, *, scale: float = 1.0, smoothed: bool = True
) -> alt.LayerChart | None:
    lines: list[tuple[str, str, Floats, Floats]] = []
    names = short_names([curves.name for curves in runs])
    for number, (name, curves) in enumerate(zip(names, runs, strict=True)):
        color = draw.RUN_COLORS[number % len(draw.RUN_COLORS)]
        if column not in curves.steps:
            if column not in curves.epochs:
                continue
            x, y = curves.epochs["epoch"], curves.epochs[column] * scale
        elif smoothed:
            x, y = panels.averaged(curves, column, draw.scale_for(curves.steps[column]))
        else:
            keep = thin(curves.steps["epoch"], curves.steps[column], panels.SMOOTH_CURVE_POINTS)
            x, y = curves.steps["epoch"][keep], curves.steps[column][keep]
        if np.isfinite(y).any():
            lines.append((name, color, x, y))
    if not lines:
        return None
    values = np.concatenate([y for *_, y in lines])
    percent = scale == 100.0
    axis, note = draw.close_accuracy_scale(values) if percent else (draw.scale_for(values), "")
    layers: list[alt.Chart] = [draw.line(x, y, axis, color, name, ".4g", points=percent) for name, color, x, y in lines]
    if height > 100:
        layers += draw.end_labels(draw.labels(lines, axis, percent=percent), axis)
    how = ": moving average" if smoothed and not percent else ""
    return draw.panel(layers, f"{title}{draw.log_note(axis)}{note}{how}", height)
