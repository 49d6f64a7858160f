"""What the screen says of an epoch is of that epoch."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from lehr.formatting import format_left
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


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_row_of_a_terminal_ends_between_words_and_a_copied_command_is_whole(width: int) -> None:
    """Words were broken where a row ended; with a new line instead, half a command would be copied."""
    text = "Model:  runs/cells/model\nFive folds measure all: lehr run cells.yaml folds=5 data.validation= name=cells-2"
    long = "/a/path/" + "of/folders/" * 10
    output = io.StringIO()
    shown = console(output, width=width, force_terminal=True, color_system=None)
    shown.print(f"{text} {long} end", soft_wrap=True)
    lines = output.getvalue().rstrip("\n").split("\n")
    assert len(lines) == 2, "no line was added"
    assert [line.split() for line in lines] == [line.split() for line in f"{text} {long} end".split("\n")]
    for line in lines:
        for word in line.split():
            begins = line.index(word)
            assert begins // width == (begins + len(word) - 1) // width or len(word) > width
        rows = [line[at : at + width] for at in range(0, len(line), width)]
        assert not any(row.startswith(" ") and row.strip() for row in rows[1:]), "no row begins with a blank"


def test_what_is_no_terminal_gets_its_lines_as_they_are() -> None:
    output = io.StringIO()
    console(output, width=20).print("words " * 30 + "end", soft_wrap=True)
    assert output.getvalue() == "words " * 30 + "end\n"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ((None,), ""),
        ((45.0,), "45 s left"),
        ((45.0, 30.0, 70.0), "30 s to 1 min 10 s left"),
        ((45.0, 44.9, 45.1), "45 s left"),
        ((None, None, 114.0), "at most 1 min 54 s left"),
    ],
)
def test_a_rough_estimate_is_told_as_a_range(left: tuple[float | None, ...], said: str) -> None:
    assert format_left(*left) == said
