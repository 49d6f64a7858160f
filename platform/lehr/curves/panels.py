"""The panels of one run: loss, accuracy, learning rate, gradient norm and throughput over its epochs.

Each function returns None where the run has not recorded what it would show.
"""

from __future__ import annotations

from collections import Counter

import altair as alt
import numpy as np

from lehr.curves.record import Curves
from lehr.job import MetricSection
from lehr.reporting import drawing as draw
from lehr.reporting.smoothing import Floats, moving_average, thin
from lehr.runs.columns import listed
from lehr.tasks.forms import in_full

SPAN = 1 / 30  # width of the moving average's window, as a share of the run
MOST_RESTART_LABELS = 5  # more would overlap
SMOOTH_CURVE_POINTS = 600  # of a curve without noise, such as the learning rate


def loss_panel(curves: Curves) -> alt.LayerChart | None:
    """Every step's training loss, its moving average, and validation; restarts and a loss of NaN are marked."""
    x, y = curves.steps["epoch"], curves.steps["loss"]
    if not len(x):
        return None
    evaluated = curves.epochs["epoch"], curves.epoch_column("validation_loss")
    axis = draw.scale_for(np.concatenate([y, evaluated[1]]))
    at, line = averaged(curves, "loss", axis)
    ends = draw.labels([("average", draw.TRAIN, at, line), ("validation", draw.VALIDATION, *evaluated)], axis)
    drawn = len(thin(x, y, draw.MOST_POINTS))
    note = "every step" if drawn == len(x) else f"{drawn:,} of {len(x):,} steps with all extremes"
    layers = [
        draw.scatter(x, y, axis, draw.TRAIN, "loss", ".4f", steps=curves.steps["step"]),
        draw.line(at, line, axis, draw.TRAIN, "moving average", ".4f", width=2.2),
        draw.line(*evaluated, axis, draw.VALIDATION, "validation loss", ".4f", points=True),
        *draw.end_labels(ends, axis),
        *_not_finite_rule(x, y),
        *_restart_rules(curves),
    ]
    return draw.panel(layers, f"Loss{draw.log_note(axis)}: {note}, moving average, and validation", 200)


def accuracy_panel(curves: Curves) -> alt.LayerChart | None:
    """Accuracy on clean training images and on the validation split, with the gap between them shaded."""
    x = curves.epochs["epoch"]
    train = 100 * curves.epoch_column("clean_train_accuracy", "train_accuracy")
    validation = 100 * curves.epoch_column("validation_accuracy")
    if not np.isfinite(validation).any():
        return None
    ringed, what = _ringed(curves, validation)
    scale = draw.accuracy_scale(np.concatenate([train, validation]))
    kept = thin(x, validation, draw.MOST_POINTS)
    band = [
        {"x": draw.short(e), "low": draw.short(low), "high": draw.short(high)}
        for e, low, high in zip(x[kept], validation[kept], train[kept], strict=True)
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
        draw.ring(x[ringed], validation[ringed], scale, what, ".2f"),
        *draw.end_labels(ends, scale),
    ]
    told = f"{what} ringed: {validation[ringed]:.1f} at epoch {x[ringed]:.0f}"
    return draw.panel(layers, f"Accuracy, %: clean training images and validation, the gap shaded, {told}", 190)


def _ringed(curves: Curves, validation: Floats) -> tuple[int, str]:
    """Which epoch to mark and what it is: that of the run's model, or else the highest."""
    kept = np.flatnonzero(curves.epochs["epoch"] == (curves.kept or 0))
    if len(kept) and np.isfinite(validation[kept[0]]):
        return int(kept[0]), "the model that was kept"
    return int(np.nanargmax(validation)), "the highest"


def metric_panels(curves: Curves) -> list[alt.LayerChart]:
    """One panel for each metric of the task, if these are not accuracy, and for each entry of the job's `metrics`:
    what it measures on validation rows, a line for each number."""
    entries = curves.option("metrics", [])
    labels = [name for each in entries if (name := _recorded_as(each))] if isinstance(entries, list) else []
    if not curves.by_class:
        names = [name.removeprefix("validation_") for name in listed(curves.epochs, "validation")]
        own = [name for name in names if not any(name.startswith(f"{label}_") for label in (*labels, *names))]
        first = Counter(name.partition("_")[0] for name in own)  # of each class: ap_cat, ap_dog
        own = [word if first[word := name.partition("_")[0]] > 1 else name for name in own]
        labels = list(dict.fromkeys([*own, *labels]))
    of_label: dict[str, list[str]] = {label: [] for label in labels}
    for name in listed(curves.epochs, "validation"):
        fitting = [label for label in labels if f"{name}_".startswith(f"validation_{label}_")]
        if fitting:
            of_label[max(fitting, key=len)].append(name)
    panels = (_metric_panel(curves, label, names) for label, names in of_label.items())
    return [panel for panel in panels if panel is not None]


def _recorded_as(entry: object) -> str:
    try:
        return MetricSection.model_validate(entry).recorded_as
    except ValueError:
        return ""


def _metric_panel(curves: Curves, label: str, names: list[str]) -> alt.LayerChart | None:
    x = curves.epochs["epoch"]
    named = [name for name in names if np.isfinite(curves.epochs[name]).any()]
    drawn = named[: len(draw.RUN_COLORS) - 1]  # one is of the training rows
    if not drawn:
        return None
    colors = (draw.VALIDATION, *(color for color in draw.RUN_COLORS if color not in (draw.VALIDATION, draw.TRAIN)))
    lines = [
        (name.removeprefix(f"validation_{label}").lstrip("_") or "validation", color, x, curves.epochs[name])
        for name, color in zip(drawn, colors, strict=False)
    ]
    training = curves.epochs.get(f"clean_train_{label}")
    if not curves.by_class and training is not None and np.isfinite(training).any():
        lines.append(("training", draw.TRAIN, x, training))
    axis = draw.scale_for(np.concatenate([y for *_, y in lines]))
    layers: list[alt.Chart] = [draw.line(x, y, axis, color, name, ".4g", points=True) for name, color, _, y in lines]
    layers += draw.end_labels(draw.labels(lines, axis), axis)
    shown = "validation rows"
    if len(drawn) > 1:
        shown += f", {len(drawn)} of {len(named)} numbers" if len(named) > len(drawn) else ", together and each alone"
    shown += ", and training rows" if lines[-1][0] == "training" else ""
    title = in_full(label)
    return draw.panel(layers, f"{title[:1].upper()}{title[1:]}{draw.log_note(axis)}: {shown}", 150)


def learning_rate_panel(curves: Curves) -> alt.LayerChart | None:
    x, y = curves.steps["epoch"], curves.steps["learning_rate"]
    if not len(x):
        return None
    keep = thin(x, y, SMOOTH_CURVE_POINTS)
    scale = alt.Scale(domain=[0, float(np.nanmax(y)) * 1.08 or 1.0], nice=False)
    line = draw.line(x[keep], y[keep], scale, draw.RATE, "learning rate", ".4g", width=2, fill=True)
    return draw.panel([line], "Learning rate", 64)


def gradient_panel(curves: Curves) -> alt.LayerChart | None:
    x, y = curves.steps["epoch"], curves.steps["gradient_norm"]
    if not np.isfinite(y).any():
        return None
    axis = draw.scale_for(y)
    at, line = averaged(curves, "gradient_norm", axis)
    layers = [
        draw.scatter(x, y, axis, draw.GRADIENT, "gradient norm", ".4g", steps=curves.steps["step"]),
        draw.line(at, line, axis, draw.GRADIENT, "moving average", ".4g", width=2.2),
    ]
    return draw.panel(layers, f"Gradient norm{draw.log_note(axis)}: before clipping", 84)


def throughput_panel(curves: Curves) -> alt.LayerChart | None:
    x, seconds = curves.steps["epoch"], curves.steps["seconds"]
    if not np.isfinite(seconds).any() or not (seconds > 0).any():
        return None
    span = _window(curves, least_steps=10)
    at, time = moving_average(x, seconds, span)
    _, examples = moving_average(x, curves.steps["examples"], span)
    speed = np.divide(examples, time, out=np.full_like(time, np.nan), where=time > 0)
    scale = alt.Scale(domain=[0, float(np.nanmax(speed)) * 1.08], nice=False)
    line = draw.line(at, speed, scale, draw.SPEED, "examples per second", ",.0f", width=2)
    return draw.panel([line], "Examples per second", 64)


def averaged(curves: Curves, column: str, scale: alt.Scale) -> tuple[Floats, Floats]:
    """The moving average of a step column: epochs and values."""
    return draw.average(curves.steps["epoch"], curves.steps[column], scale, _window(curves, least_steps=5))


def _window(curves: Curves, *, least_steps: int) -> float:
    """The width of the moving average's window, in epochs."""
    return max(SPAN * curves.last_epoch, least_steps / curves.steps_per_epoch)


def _not_finite_rule(x: Floats, y: Floats) -> list[alt.Chart]:
    """A vertical line where the loss first became NaN or infinite, which no point can show."""
    not_finite = np.flatnonzero(~np.isfinite(y))
    if not len(not_finite):
        return []
    at = float(x[not_finite[0]])
    data = alt.InlineData(values=[{"x": draw.short(at), "text": "loss is NaN or infinite"}])
    rule = alt.Chart(data).mark_rule(color=draw.ALARM, strokeDash=[4, 3]).encode(x=draw.x_axis())
    late = at > x[-1] / 2
    text = alt.Chart(data).mark_text(
        color=draw.ALARM, align="right" if late else "left", dx=-6 if late else 6, baseline="top", fontSize=11
    )
    return [rule, text.encode(x=draw.x_axis(), y=alt.value(90), text="text:N")]


def _restart_rules(curves: Curves) -> list[alt.Chart]:
    """A thin vertical line wherever an interrupted run was resumed; restarts at the same step share one."""
    if not curves.restarts:
        return []
    times = Counter(curves.restarts)
    values = [
        {
            "x": draw.short(step / curves.steps_per_epoch),
            "text": "restart" if times[step] == 1 else f"{times[step]} restarts",
        }
        for step in sorted(times)
    ]
    data = alt.InlineData(values=values)
    tips = [alt.Tooltip("text:N", title="event"), alt.Tooltip("x:Q", title="epoch", format=".2f")]
    mark = alt.Chart(data).mark_rule(color=draw.SPEED, strokeDash=[2, 3], strokeWidth=1.3)
    rule = mark.encode(x=draw.x_axis(), tooltip=tips)
    if len(values) > MOST_RESTART_LABELS:
        return [rule]
    text = alt.Chart(data).mark_text(color=draw.SPEED, align="left", dx=4, baseline="top", fontSize=10)
    return [rule, text.encode(x=draw.x_axis(), y=alt.value(4), text="text:N")]
