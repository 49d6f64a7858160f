"""A run as the result of a cell: its state, its curves, its verdict, and where the rest is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lehr.curves import verdict
from lehr.curves.record import Curves
from lehr.errors import LehrError
from lehr.formatting import format_folder, format_metric, format_seconds
from lehr.notebooks import html, svg
from lehr.notebooks.live import form_of, overview_parts, spoken
from lehr.reporting.smoothing import Floats
from lehr.runs import ENDED, Progress, RunFolder


def run_html(run: RunFolder) -> str:
    """A run as HTML, from its record so far: of a training its curves, of other kinds their parts."""
    progress, state = run.progress(), run.status()
    parts = [html.text(f"{run.name}: {state}", "font-weight:600"), html.facts(_facts(progress))]
    if progress.overview:
        parts += overview_parts(progress.overview, "")
        parts += [html.text(sentence) for sentence in progress.overview.verdict]
    else:
        parts += _curves(run)
    if found := _verdict(run, progress):
        parts.append(html.text(f"Verdict: {found}"))
    if state in ENDED and progress.message:
        parts.append(html.text(progress.message))
    where = format_folder(run.folder)
    more = f"Report: {where}/report.html" if run.folder.exists("report.html") else f"Run folder: {where}"
    return f"<div>{''.join([*parts, html.text(more, html.FAINT)])}</div>"


def _facts(progress: Progress) -> Iterable[tuple[str, str]]:
    best, training = progress.best, progress.training
    told = progress.overview is not None and "best" in progress.overview.facts
    if best.value is not None and not told:
        value = format_metric(best.value, best.metric, progress.measured_rows)
        yield f"best {best.metric.replace('_', ' ')}", f"{value} (epoch {best.epoch})" if best.epoch else value
    if training:
        yield "epochs", f"{training.epochs_done} of {training.epochs}"
    for name, reached in progress.metrics.items():
        if name == "test_accuracy" and reached is not None:
            yield "test accuracy of the best model", format_metric(reached, name, progress.measured_rows)
    if total := progress.seconds.get("total"):
        yield "time", format_seconds(total)


def _verdict(run: RunFolder, progress: Progress) -> str:
    live = progress.training.diagnosis.sentence if progress.training else ""
    try:
        return verdict(run) or live
    except LehrError:
        return live


def _curves(run: RunFolder) -> list[str]:
    """Loss and score over epochs."""
    try:
        curves = Curves.read(run)
    except LehrError as error:
        return [html.text(str(error))]
    score = f"validation_{curves.score}"
    losses = [
        svg.Line("training", svg.TRAINING, _points(curves.epochs, "train_loss")),
        svg.Line("validation", svg.VALIDATION, _points(curves.epochs, "validation_loss")),
    ]
    scores = [
        svg.Line("training", svg.TRAINING, _points(curves.epochs, f"clean_train_{curves.score}")),
        svg.Line("validation", svg.VALIDATION, _points(curves.epochs, score)),
    ]
    last = curves.last_epoch
    judged = svg.panel(spoken(score), scores, last, form_of(score), dots=True)
    return [html.side_by_side([svg.panel("Loss", losses, last), judged])]


def _points(columns: Mapping[str, Floats], name: str) -> list[svg.Point]:
    """A column over epochs; none where it was not recorded."""
    return [*zip(columns["epoch"], columns[name], strict=True)] if name in columns else []
