"""A job that runs in a notebook: one output that changes in place, with curves that move."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from lehr.formatting import format_left
from lehr.notebooks import html, svg
from lehr.runs import ENDED, Overview, Progress, TrainingProgress
from lehr.screen import facts_of

EVERY = 0.5  # seconds between two pictures
MOST_ROWS = 10

Bundle = Mapping[str, str]


class Shown(Protocol):
    """An output that was shown and can be replaced."""

    def update(self, content: Bundle, *, raw: bool) -> None: ...


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. It imports nothing."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive and hasattr(interactive, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


def _display(content: Bundle) -> Shown:
    from IPython.display import display

    shown: Shown = display(content, raw=True, display_id=True)
    return shown


class NotebookScreen:
    """A `Screen` in the output of a cell: what was said, and below it how far the job is."""

    def __init__(self, show: Callable[[Bundle], Shown] = _display, clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._shown: Shown | None = None
        self._drawn = -math.inf
        self._said: list[str] = []
        self._waiting = ""
        self._progress: Progress | None = None
        self._losses: list[svg.Point] = []
        self._scores: dict[str, dict[int, svg.Point]] = {}

    def status(self, text: str) -> None:
        self._waiting = text
        self._draw()

    def progress(self, progress: Progress) -> None:
        self._waiting, self._progress = "", progress
        if training := progress.training:
            self._note(training, progress)
        if self._clock() - self._drawn >= EVERY:
            self._draw()

    def say(self, text: str) -> None:
        self._said.append(text)
        self._draw()

    def close(self) -> None:
        self._waiting = ""
        if self._progress:  # its estimate is over
            self._progress = self._progress.without_estimate()
        self._draw()

    def _note(self, training: TrainingProgress, progress: Progress) -> None:
        """Keeps a point of each curve."""
        if self._losses and training.epoch < self._losses[-1][0]:  # it resumed from a checkpoint
            self._losses = [point for point in self._losses if point[0] < training.epoch]
        if training.loss is not None and (not self._losses or training.epoch > self._losses[-1][0]):
            self._losses.append((training.epoch, training.loss))
        for name, value in progress.metrics.items():
            if name.startswith("validation_") and value is not None and training.epochs_done:
                points = self._scores.setdefault(name, {})
                points[training.epochs_done] = (float(training.epochs_done), value)

    def _draw(self) -> None:
        self._drawn = self._clock()
        parts = [html.text(line) for line in self._said]
        if self._progress:
            parts += self._picture(self._progress)
        if self._waiting:
            parts.append(html.text(f"{self._waiting} …", html.FAINT))
        content = html.bundle(parts, [*self._said, *([f"{self._waiting} …"] if self._waiting else [])])
        if self._shown is None:
            self._shown = self._show(content)
        else:
            self._shown.update(content, raw=True)

    def _picture(self, progress: Progress) -> list[str]:
        least, most = progress.seconds_left_least, progress.seconds_left_most
        after = "" if progress.status in ENDED else format_left(progress.seconds_left, least, most)
        if progress.overview:
            return overview_parts(progress.overview, after)
        training = progress.training or TrainingProgress()
        epoch = min(int(training.epoch) + 1, training.epochs)
        parts = [
            html.bar(progress.share_done, f"epoch {epoch}/{training.epochs}", after),
            html.facts(facts_of(progress)),
            html.side_by_side(self._charts(training, progress.best.metric)),
        ]
        found = training.diagnosis.sentence
        return [*parts, html.text(found, "color:#dd7a26")] if found else parts

    def _charts(self, training: TrainingProgress, judged: str) -> list[str]:
        score = judged or "validation_accuracy"
        losses = [svg.Line("training", svg.TRAINING, self._losses), self._line("validation_loss")]
        charts = [svg.panel("Loss", losses, training.epochs)]
        if score != "validation_loss":
            charts.append(svg.panel(spoken(score), [self._line(score)], training.epochs, form_of(score), dots=True))
        return charts

    def _line(self, metric: str) -> svg.Line:
        return svg.Line("validation", svg.VALIDATION, list(self._scores.get(metric, {}).values()))


def overview_parts(told: Overview, after: str) -> list[str]:
    """How far a job without steps of its own is: a bar, its figures, a table of its parts."""
    parts = [html.bar(told.done, told.headline, after)]
    if told.facts:
        parts.append(html.facts(told.facts.items()))
    if told.table.rows:
        parts.append(html.table(told.table.columns, told.table.rows[:MOST_ROWS]))
    return parts


def form_of(metric: str) -> str:
    """How the numbers of a metric are written beside its curve."""
    return ".1%" if "accuracy" in metric else ".3g"


def spoken(metric: str) -> str:
    """`Validation accuracy`."""
    return f"{metric[:1].upper()}{metric[1:].replace('_', ' ')}"
