"""What the screen says of an epoch is of that epoch."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from lehr.runs import Overview, Progress, Table, TrainingProgress
from lehr.screen import PlainScreen, Waiting, console, facts_of, overview


def test_the_loss_in_the_line_of_an_epoch_is_that_of_the_epoch() -> None:
    file = io.StringIO()
    training = TrainingProgress(epoch=2.3, epochs=5, epochs_done=2, loss=0.9)  # the newest steps are of the next epoch
    now = Progress(metrics={"train_loss": 0.4}, training=training)
    PlainScreen(console(file)).progress(now)
    assert file.getvalue().startswith("epoch 2/5  training loss 0.4000")
    assert facts_of(now)[0] == ("loss of the last steps", "0.9000")
    assert facts_of(replace(now, training=replace(training, epoch=2.0)))[0] == ("training loss", "0.4000")


COLUMNS = ("trial", "validation accuracy", "epochs", "", "lr", "schedule", "weight_decay", "label_smoothing")
ROW = ("0", "14.8% ± 3.7", "1/20", "finished", "0.03202", "step (every 30%)", "3.977e-05", "0.1191")


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_figure_of_a_table_wraps_or_is_cut_whatever_the_width(width: int) -> None:
    stream = io.StringIO()
    told = Overview(headline="3 of 3 trials", table=Table(columns=COLUMNS, rows=(ROW,) * 3))
    console(stream, width=width).print(overview(Progress(), told))
    lines = [line for line in stream.getvalue().splitlines() if "14.8%" in line]
    assert len(lines) == 3
    assert "…" not in stream.getvalue()
    shown = [cell for cell in ROW if cell in lines[0]]
    assert shown == list(ROW[: len(shown)])
    left_out = [name for cell, name in zip(ROW, COLUMNS, strict=True) if cell not in shown]
    assert ("no room here for" in stream.getvalue()) == bool(left_out)
    said = " ".join(stream.getvalue().split())
    assert all(name in said.split("no room here for")[1] for name in left_out)


def test_a_wait_says_how_long_it_has_been() -> None:
    now = [100.0]
    waiting = Waiting("starting Ray", lambda: now[0])

    def shown() -> str:
        file = io.StringIO()
        console(file, width=60).print(waiting)
        return file.getvalue().strip()

    assert shown().endswith("starting Ray …"), "a short wait needs no clock"
    now[0] += 75
    assert shown().endswith("starting Ray … 1 min 15 s")
