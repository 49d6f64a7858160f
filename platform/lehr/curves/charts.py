"""The charts of a run: one Altair specification, drawn as PNG here or by the browser in the report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import altair as alt
import numpy as np

from lehr.curves.record import Curves
from lehr.curves.smoothing import Floats, moving_average, thin
from lehr.reporting import drawing as draw


def run_chart(curves: Curves) -> alt.VConcatChart:
    """Loss, accuracy, learning rate, gradient norm and throughput of one run over epochs, one above the other.

    The panels share the x axis. Steps beyond `MOST_POINTS` are thinned, keeping the extremes of every stretch.
    """
    panels = [
        _loss_panel(curves),
        _accuracy_panel(curves),
        _rate_panel(curves),
        _gradient_panel(curves),
        _speed_panel(curves),
    ]
    return draw.stack([panel for panel in panels if panel is not None])


def short_chart(curves: Curves) -> alt.VConcatChart:
    """Only loss and accuracy of one run."""
    return draw.stack([panel for panel in (_loss_panel(curves), _accuracy_panel(curves)) if panel is not None])


def compare_chart(runs: Sequence[Curves]) -> alt.VConcatChart:
    """The same panels with one line per run, each in its own colour: smoothed loss, accuracy, rate, gradient norm."""
    panels = [
        _runs_panel("Training loss", runs, "loss", 190),
        _runs_panel("Validation accuracy, %", runs, "validation_accuracy", 210, scale=100.0),
        _runs_panel("Learning rate", runs, "learning_rate", 70, smooth_it=False),
        _runs_panel("Gradient norm", runs, "gradient_norm", 80),
    ]
    return draw.stack([panel for panel in panels if panel is not None])


def told_apart(names: Sequence[str]) -> list[str]:
    """Names of runs without the words that all begin or end with, but for the last before they differ: for labels.

    `cifar-seed-0-lr-0.1` and `cifar-seed-1-lr-0.1` become `seed-0` and `seed-1`.
    """
    words = [name.split("-") for name in names]
    if len(set(names)) < len(names):
        return list(names)
    shortest = min(map(len, words))
    same = [len({tuple(each[:k]) for each in words}) == 1 for k in range(1, shortest)]
    begin = max(0, same.count(True) - 1)
    end = next((k for k in range(shortest - begin - 1) if len({each[-1 - k] for each in words}) > 1), 0)
    return ["-".join(each[begin : len(each) - end]) for each in words]


def png(chart: alt.VConcatChart, title: str, subtitle: Sequence[str]) -> bytes:
    """The chart as a PNG file at twice the screen's resolution, with a title above it. No browser is involved."""
    import vl_convert

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
    spec = titled.to_dict(validate=False) | {"config": draw.LIGHT, "background": "white", "padding": 20}
    return vl_convert.vegalite_to_png(spec, scale=2)


# ── panels of one run ─────────────────────────────────────────────────────────────────────────────────────────────


def _loss_panel(curves: Curves) -> alt.LayerChart | None:
    x, y = curves.steps["epoch"], curves.steps["loss"]
    if not len(x):
        return None
    evaluated = curves.epochs["epoch"], curves.epoch_column("validation_loss")
    axis = draw.scale_for(np.concatenate([y, evaluated[1]]))
    at, line = draw.average(curves, y, axis)
    ends = draw.labels([("average", draw.TRAIN, at, line), ("validation", draw.VALIDATION, *evaluated)], axis)
    drawn = len(thin(x, y, draw.MOST_POINTS))
    note = "every step" if drawn == len(x) else f"{drawn:,} of {len(x):,} steps, extremes kept"
    layers = [
        draw.dots(curves, x, y, axis, draw.TRAIN, "loss", ".4f"),
        draw.line(at, line, axis, draw.TRAIN, "moving average", ".4f", width=2.2),
        draw.line(*evaluated, axis, draw.VALIDATION, "validation loss", ".4f", points=True),
        *draw.end_labels(ends, axis),
        *draw.broken_rule(x, y),
        *draw.restart_rules(curves),
    ]
    return draw.panel(layers, f"Loss{draw.log_note(axis)}: {note}, their moving average, and validation", 200)


def _accuracy_panel(curves: Curves) -> alt.LayerChart | None:
    x = curves.epochs["epoch"]
    train = 100 * curves.epoch_column("clean_train_accuracy", "train_accuracy")
    validation = 100 * curves.epoch_column("validation_accuracy")
    if not np.isfinite(validation).any():
        return None
    scale = draw.accuracy_scale(np.concatenate([train, validation]))
    band = [
        {"x": draw.short(e), "low": draw.short(low), "high": draw.short(high)}
        for e, low, high in zip(x, validation, train, strict=True)
        if np.isfinite(low) and np.isfinite(high)
    ]
    gap = (
        alt.Chart(draw.inline(band))
        .mark_area(color=draw.TRAIN, opacity=0.13)
        .encode(x=draw.x_axis(), y=draw.y_axis(scale, "low:Q"), y2=alt.Y2("high:Q"))
    )
    ends = draw.labels(
        [("training", draw.TRAIN, x, train), ("validation", draw.VALIDATION, x, validation)], scale, percent=True
    )
    layers = [
        gap,
        draw.line(x, train, scale, draw.TRAIN, "training accuracy, %", ".2f", points=True),
        draw.line(x, validation, scale, draw.VALIDATION, "validation accuracy, %", ".2f", points=True),
        *draw.best_mark(x, validation, scale),
        *draw.end_labels(ends, scale),
    ]
    return draw.panel(layers, "Accuracy, %: on clean training images and on validation, the gap shaded", 190)


def _rate_panel(curves: Curves) -> alt.LayerChart | None:
    x, y = curves.steps["epoch"], curves.steps["learning_rate"]
    if not len(x):
        return None
    keep = thin(x, y, 600)
    scale = alt.Scale(domain=[0, float(np.nanmax(y)) * 1.08 or 1.0], nice=False)
    return draw.panel(
        [draw.line(x[keep], y[keep], scale, draw.RATE, "learning rate", ".4g", width=2, fill=True)], "Learning rate", 64
    )


def _gradient_panel(curves: Curves) -> alt.LayerChart | None:
    x, y = curves.steps["epoch"], curves.steps["gradient_norm"]
    if not np.isfinite(y).any():
        return None
    axis = draw.scale_for(y)
    at, line = draw.average(curves, y, axis)
    layers = [
        draw.dots(curves, x, y, axis, draw.GRADIENT, "gradient norm", ".4g"),
        draw.line(at, line, axis, draw.GRADIENT, "moving average", ".4g", width=2.2),
    ]
    return draw.panel(layers, f"Gradient norm{draw.log_note(axis)}: before clipping", 84)


def _speed_panel(curves: Curves) -> alt.LayerChart | None:
    x, seconds = curves.steps["epoch"], curves.steps["seconds"]
    if not np.isfinite(seconds).any() or not (seconds > 0).any():
        return None
    span = max(draw.SPAN * curves.bounds()[1], 10 / curves.steps_per_epoch)
    at, time = moving_average(x, seconds, span)
    _, examples = moving_average(x, curves.steps["examples"], span)
    speed = np.divide(examples, time, out=np.full_like(time, np.nan), where=time > 0)
    scale = alt.Scale(domain=[0, float(np.nanmax(speed)) * 1.08], nice=False)
    line = draw.line(at, speed, scale, draw.SPEED, "examples per second", ",.0f", width=2)
    return draw.panel([line], "Examples per second", 64)


def _runs_panel(
    title: str, runs: Sequence[Curves], column: str, height: int, *, scale: float = 1.0, smooth_it: bool = True
) -> alt.LayerChart | None:
    lines: list[tuple[str, str, Floats, Floats]] = []
    names = told_apart([curves.name for curves in runs])
    for number, (name, curves) in enumerate(zip(names, runs, strict=True)):
        color = draw.RUN_COLORS[number % len(draw.RUN_COLORS)]
        if column in curves.epochs and column not in curves.steps:
            x, y = curves.epochs["epoch"], curves.epochs[column] * scale
        elif smooth_it:
            x, y = draw.average(curves, curves.steps[column], draw.scale_for(curves.steps[column]))
        else:
            keep = thin(curves.steps["epoch"], curves.steps[column], 600)
            x, y = curves.steps["epoch"][keep], curves.steps[column][keep]
        if np.isfinite(y).any():
            lines.append((name, color, x, y))
    if not lines:
        return None
    values = np.concatenate([y for *_, y in lines])
    percent = scale == 100.0
    axis = draw.accuracy_scale(values) if percent else draw.scale_for(values)
    layers: list[alt.Chart] = [draw.line(x, y, axis, color, name, ".4g", points=percent) for name, color, x, y in lines]
    if height > 100:
        layers += draw.end_labels(draw.labels(lines, axis, percent=percent), axis)
    how = ": moving average" if smooth_it and not percent else ""
    return draw.panel(layers, f"{title}{draw.log_note(axis)}{how}", height)
