"""A job in a notebook: one output that changes in place, which shows what was said and the curves so far."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from lehr.notebooks import NotebookScreen
from lehr.notebooks.svg import Line, panel
from lehr.runs import BestValue, Overview, Progress, Table, TrainingProgress


class Cell:
    """The output of a cell: what it shows now, and how often it was replaced."""

    def __init__(self) -> None:
        self.outputs: list[Mapping[str, str]] = []
        self.updates = 0

    def show(self, content: Mapping[str, str]) -> Cell:
        self.outputs.append(content)
        return self

    def update(self, content: Mapping[str, str], *, raw: bool) -> None:
        assert raw
        self.outputs[-1] = content
        self.updates += 1

    @property
    def html(self) -> str:
        return self.outputs[-1]["text/html"]


def screen_in(cell: Cell, now: list[float]) -> NotebookScreen:
    return NotebookScreen(cell.show, lambda: now[0])


def at(epoch: float, loss: float, accuracy: float | None = None, of: int = 4) -> Progress:
    training = TrainingProgress(epoch=epoch, epochs=of, epochs_done=int(epoch), loss=loss, step=int(epoch * 10))
    metrics = {} if accuracy is None else {"validation_accuracy": accuracy, "validation_loss": loss + 0.1}
    best = BestValue("validation_accuracy", accuracy)
    return Progress(training=replace(training, total_steps=of * 10), metrics=metrics, best=best, seconds_left=75.0)


def test_a_job_has_one_output_with_its_lines_its_curves_and_its_time() -> None:
    cell, now = Cell(), [0.0]
    screen = screen_in(cell, now)
    screen.status("starting Ray")
    assert "starting Ray …" in cell.html
    screen.say("train digits")
    for epoch in (1, 2, 3):
        now[0] += 1
        screen.progress(at(epoch, 1 / epoch, 0.5 + epoch / 10))
    assert len(cell.outputs) == 1
    assert "train digits" in cell.html
    assert "starting Ray" not in cell.html
    assert "1 min 15 s left" in cell.html
    assert cell.html.count("<svg") == 2
    assert "80.0%" in cell.html
    assert cell.html.count("<circle") == 3
    assert cell.outputs[-1]["text/plain"] == "train digits"


def test_pictures_are_drawn_at_most_twice_a_second_and_once_more_at_the_end() -> None:
    cell, now = Cell(), [0.0]
    screen = screen_in(cell, now)
    screen.say("train digits")
    for step in range(100):
        now[0] += 0.05
        screen.progress(at(1 + step / 50, 1.0, 0.5))
    assert 9 <= cell.updates <= 11
    screen.progress(at(3, 0.25, 0.9))
    screen.close()
    assert "90.0%" in cell.html
    assert "left" not in cell.html.replace("text-align:left", "")


def test_a_run_that_resumes_from_a_checkpoint_draws_no_curve_backwards() -> None:
    cell, now = Cell(), [0.0]
    screen = screen_in(cell, now)
    for epoch in (1.0, 1.5, 2.0, 1.25, 1.75):
        now[0] += 1
        screen.progress(at(epoch, 1.0 + epoch))
    path = re.search(r'<path d="M([^"H]*)" fill="none"', cell.html)
    assert path
    places = [float(point.split()[0]) for point in path[1].split("L")]
    assert places == sorted(places)
    assert len(places) == 3


def test_a_search_shows_its_trials() -> None:
    cell, now = Cell(), [0.0]
    told = Overview(headline="1 of 2 trials", done=0.5, table=Table(("trial", "lr"), (("0", "0.1"),)))
    screen_in(cell, now).progress(Progress(overview=told))
    assert "1 of 2 trials" in cell.html
    assert "<td" in cell.html
    assert 'value="50"' in cell.html


def test_what_a_name_holds_is_shown_and_never_obeyed() -> None:
    hostile = "<img src=x onerror=alert(1)>\x1b[2J"
    cell, now = Cell(), [0.0]
    screen = screen_in(cell, now)
    screen.say(hostile)
    screen.status(hostile)
    table, now[0] = Table((hostile,), ((hostile,),)), 1.0
    screen.progress(Progress(overview=Overview(headline=hostile, facts={hostile: hostile}, table=table)))
    shown = cell.html + panel(hostile, [Line(hostile, "red", [(0, 1), (1, 2)])], 1)
    assert "<img" not in shown
    assert "\x1b" not in shown + cell.outputs[-1]["text/plain"]
    assert shown.count("&lt;img") == 9


def test_a_long_curve_keeps_its_extremes_in_few_points() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[1234], points[7001] = (1234.0, 9.0), (7001.0, -9.0)
    points[5000] = (5000.0, float("nan"))
    drawn = Line("loss", "red", points).drawn
    assert len(drawn) <= 260
    assert {(1234.0, 9.0), (7001.0, -9.0)} <= set(drawn)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)


def test_names_of_curves_that_end_together_do_not_meet() -> None:
    lines = [Line(name, "red", [(0.0, 0.0), (1.0, 1.0)]) for name in ("one", "two", "three")]
    drawn = panel("Loss", lines, 1)
    places = sorted(float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*>(one|two|three)<', drawn))
    assert len(places) == 3
    assert min(b - a for a, b in pairwise(places)) >= 12


def test_no_points_no_chart() -> None:
    assert panel("Loss", [Line("loss", "red", [])], 3) == ""
    assert panel("Loss", [Line("loss", "red", [(0.0, float("nan"))])], 3) == ""
    assert "<svg" in panel("Loss", [Line("loss", "red", [(1.0, 0.5)])], 0)
