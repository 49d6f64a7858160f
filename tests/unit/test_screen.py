"""What the screen says of an epoch is of that epoch."""

from __future__ import annotations

import io
from dataclasses import replace

from lehr.runs import Overview, Progress, Table, TrainingProgress
from lehr.screen import PlainScreen, Waiting, console, facts_of, overview
from lehr.search.formats import short_names


def test_the_loss_in_the_line_of_an_epoch_is_that_of_the_epoch() -> None:
    file = io.StringIO()
    training = TrainingProgress(epoch=2.3, epochs=5, epochs_done=2, loss=0.9)  # the newest steps are of the next epoch
    now = Progress(metrics={"train_loss": 0.4}, training=training)
    PlainScreen(console(file)).progress(now)
    assert file.getvalue().startswith("epoch 2/5  training loss 0.4000")
    assert facts_of(now)[0] == ("loss of the last steps", "0.9000")
    assert facts_of(replace(now, training=replace(training, epoch=2.0)))[0] == ("training loss", "0.4000")


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


def test_no_column_of_a_search_is_cut_in_a_small_terminal() -> None:
    paths = ["optimizer.lr", "optimizer.weight_decay", "optimizer.momentum", "schedule"]
    columns = ("trial", "validation accuracy", "epochs", "", *short_names(paths))
    row = ("12", "98.2% ± 1.4", "20/20", "finished", "0.0316", "0.000123", "0.912", "cosine")
    file = io.StringIO()
    told = Overview(headline="13 of 24 trials", done=0.5, table=Table(columns, (row,)))
    console(file, width=80).print(overview(Progress(seconds_left=75.0, overview=told), told))
    assert "…" not in file.getvalue()
    for cell in row:
        assert cell in file.getvalue()
    assert short_names(["optimizer.name", "schedule.name", "model.width"]) == [
        "optimizer.name",
        "schedule.name",
        "width",
    ]
