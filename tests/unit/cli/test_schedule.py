"""`lehr schedule` plots what it is asked for, and explains in one sentence what it cannot plot."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.cli.schedule import parse
from lehr.curves.schedule_plots import ScheduleCurve, plot
from lehr.durations import RunLength
from lehr.errors import JobError, LehrError
from lehr.schedules import SCHEDULES, Cosine, Step


def test_options_follow_their_schedule() -> None:
    assert parse(["step", "every=5ep", "gamma=0.5", "cosine", "step"]) == [
        {"name": "step", "every": "5ep", "gamma": 0.5},
        {"name": "cosine"},
        {"name": "step"},
    ]
    with pytest.raises(JobError, match="every=5ep has no schedule before it"):
        parse(["every=5ep", "step"])


def test_all_schedules_are_plotted_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    result = CliRunner().invoke(app, ["schedule"])
    assert result.exit_code == 0
    assert all(name in result.output for name in SCHEDULES)


def test_the_terminal_shows_the_curve() -> None:
    """A step down in the middle: dots along the top left, then along the bottom right."""
    title, top, *_, bottom, axis = plot(
        ScheduleCurve.of(Step.model_validate({"gamma": 1e-6}), RunLength(10, 100)), width=10
    )
    assert title.strip() == "step  gamma 1e-06"
    assert top == " 1 ┤⠉⠉⠉⠉⠉⡇⠀⠀⠀⠀"
    assert bottom == " 0 ┤⠀⠀⠀⠀⠀⣇⣀⣀⣀⣀"
    assert axis.split() == ["0", "10", "ep"]


def test_a_long_run_is_plotted_with_few_points_and_its_last_step() -> None:
    curve = ScheduleCurve.of(Cosine(), RunLength(1000, 1_000_000))
    assert len(curve.points) < 1000
    assert curve.points[-1][0] == 999.999


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_the_picture_is_written(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"new/rates.{ending}"
    result = CliRunner().invoke(
        app, ["schedule", "cosine", "wsd", "--epochs", "5", "--warmup", "1ep", "--out", str(file)]
    )
    assert result.exit_code == 0
    if ending == "png":
        with Image.open(file) as picture:
            assert picture.width > picture.height > 200
    else:
        assert "warmup 1ep" in file.read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cosin"], 'schedule.name: "cosin" is not a schedule; did you mean cosine?'),
        (["cosine", "end_facto=1"], "schedule.end_facto: unknown field; did you mean end_factor?"),
        (["cosine", "--warmup", "3000step"], "schedule cosine: warmup 3000step is 3000 steps, longer than the run"),
        (["cosine", "--out", "rates.gif"], "--out: rates.gif is not a picture file; allowed: a name that ends in .png"),
    ],
)
def test_a_mistake_gets_one_sentence(words: list[str], sentence: str) -> None:
    error = CliRunner().invoke(app, ["schedule", *words]).exception
    assert isinstance(error, LehrError)
    assert str(error).startswith(sentence)
