"""Charts show what was recorded, completely and in a file small enough to open."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lehr.curves import charts, panels
from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.reporting.drawing import MOST_POINTS, png, scale_for

from .curves import made


def falling(p: float) -> float:
    return 0.05 + 2.25 * math.exp(-8 * p)


def datasets(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [*spec.get("datasets", {}).values(), *(found for found in _inline(spec))]


def _inline(node: Any) -> Iterator[list[dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("values"), list) and node["values"] and isinstance(node["values"][0], dict):
            yield node["values"]
        for value in node.values():
            yield from _inline(value)
    elif isinstance(node, list):
        for value in node:
            yield from _inline(value)


def test_one_specification_gives_a_picture_and_all_five_panels() -> None:
    chart = charts.run_chart(made(falling))
    titles = [panel["title"].split(":")[0].split(",")[0] for panel in chart.to_dict()["vconcat"]]
    assert titles == ["Loss", "Accuracy", "Learning rate", "Gradient norm", "Examples per second"]
    assert png(chart, "made", ["a run"]).startswith(b"\x89PNG")


def test_every_step_of_a_short_run_is_drawn() -> None:
    curves = made(falling, epochs=10)
    drawn = {row["step"] for rows in datasets(charts.run_chart(curves).to_dict()) for row in rows if "step" in row}
    assert drawn == set(range(200))


def test_a_million_steps_stay_small_and_keep_their_extremes() -> None:
    curves = made(falling, epochs=10)
    count = 1_000_000
    steps = {name: np.resize(values, count) for name, values in curves.steps.items()}
    steps["step"] = np.arange(count, dtype=np.float64)
    steps["epoch"] = steps["step"] / count * 10
    steps["loss"] = 1 + 0.1 * np.random.default_rng(0).random(count)
    steps["loss"][777_777] = 9.0
    spec = charts.run_chart(replace(curves, steps=steps)).to_dict()
    losses = [row for rows in datasets(spec) for row in rows if "step" in row]
    assert len(losses) <= 2 * MOST_POINTS
    assert any(row["step"] == 777_777 for row in losses)
    assert len(json.dumps(spec)) < 3_000_000  # with the library, a page below 5 MB
    assert "of 1,000,000 steps" in spec["vconcat"][0]["title"]


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: 2.3 if p < 0.5 else math.nan,
        lambda p: math.nan,
        lambda p: 2.3 * math.exp(60 * p) if p < 0.9 else math.inf,
        lambda p: 0.0,
        lambda p: -1.0 + p,
    ],
)
def test_any_loss_gives_a_picture_without_nan_in_its_specification(loss: Any) -> None:
    chart = charts.run_chart(made(loss, epochs=4))
    json.dumps(chart.to_dict(), allow_nan=False)
    assert png(chart, "made", []).startswith(b"\x89PNG")


def test_one_epoch_of_one_step_is_drawn() -> None:
    chart = charts.run_chart(made(1.0, epochs=1, steps_per_epoch=1))
    assert png(chart, "made", []).startswith(b"\x89PNG")


def test_runs_of_different_lengths_share_one_axis() -> None:
    runs: list[Curves] = [replace(made(falling, epochs=n), name=f"run-{n}") for n in (5, 20)]
    spec = charts.compare_chart(runs).to_dict()
    texts = {row.get("text", "").split(" ")[0] for rows in datasets(spec) for row in rows}
    assert {"run-5", "run-20"} <= texts
    assert spec["resolve"]["scale"]["x"] == "shared"
    assert [diagnose(run).run for run in runs] == ["run-5", "run-20"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cifar-seed-0-lr-0.1", "cifar-seed-1-lr-0.1"], ["seed-0", "seed-1"]),
        (["train", "train-2"], ["train", "train-2"]),
        (["a", "b"], ["a", "b"]),
        (["a-b", "a-c", "a-d-b"], ["a-b", "a-c", "a-d-b"]),
        (["x-y-a", "x-z-a"], ["x-y", "x-z"]),
        (["same", "same"], ["same", "same"]),
    ],
)
def test_labels_of_runs_keep_only_what_differs(names: list[str], expected: list[str]) -> None:
    assert charts.short_names(names) == expected


def test_each_restart_is_a_line_where_the_run_resumed() -> None:
    curves = replace(made(falling, epochs=10), restarts=(60, 100, 100))  # 20 steps in an epoch
    rows = [row for rows in datasets(charts.run_chart(curves).to_dict()) for row in rows if "text" in row]
    marks = {row["text"]: row["x"] for row in rows}
    assert marks["restart"] == pytest.approx(3, rel=0.01)
    assert marks["2 restarts"] == pytest.approx(5, rel=0.01)
    assert png(charts.run_chart(curves), "made", []).startswith(b"\x89PNG")


def test_accuracies_that_lie_close_at_the_top_get_an_axis_that_shows_them_apart() -> None:
    runs = [replace(made(falling, validation=lambda p: 0.1 if p < 0.1 else 0.97), name="a")]
    title = next(
        part["title"] for part in charts.compare_chart(runs).to_dict()["vconcat"] if "accuracy" in part["title"]
    )
    assert title == "Validation accuracy, %, from 95: 1 lower value lies at the edge"
    spread = [replace(made(falling, validation=lambda p: p), name="a")]
    titles = [part["title"] for part in charts.compare_chart(spread).to_dict()["vconcat"]]
    assert "Validation accuracy, %" in titles


def test_a_constant_rate_has_an_axis_of_its_own_size() -> None:
    low, high = scale_for(np.full(10, 0.01))["domain"]
    assert (low, high) == (pytest.approx(0.005), pytest.approx(0.015))


def test_the_ring_of_the_accuracy_is_around_the_model_that_was_kept_and_no_words_lie_across_a_curve() -> None:
    curves = made(2.0, epochs=4, validation=lambda p: 0.9 if p in (0.25, 0.75) else 0.8)
    for kept, epoch, said in ((3, 3, "the model that was kept"), (None, 1, "the highest")):
        panel = panels.accuracy_panel(replace(curves, kept=kept))
        assert panel
        spec = panel.to_dict(validate=False)
        assert spec["title"].endswith(f"{said} ringed: 90.0 at epoch {epoch}")
        rings = [each for each in spec["layer"] if each["mark"]["type"] == "point"]
        assert [row["x"] for each in rings for row in each["data"]["values"]] == [epoch]
        words = [each["mark"] for each in spec["layer"] if each["mark"]["type"] == "text"]
        assert all(each["align"] == "left" for each in words), "only at the ends of lines"


def test_the_panels_of_a_regression_say_whose_rows_their_lines_are_of_in_colours_that_differ() -> None:
    curves = made(2.0, epochs=4, job={"task": {"name": "regression"}})
    numbers = {f"validation_mae{name}": np.linspace(2, 1, 4) for name in ("", "_age", "_height")}
    curves = replace(curves, epochs={**curves.epochs, **numbers, "clean_train_mae": np.linspace(2, 0.5, 4)})
    [panel] = [each.to_dict(validate=False) for each in panels.metric_panels(curves) if "MAE" in str(each.title)]
    assert panel["title"].startswith("Mean absolute error (MAE)")
    assert panel["title"].endswith(": validation rows, together and each alone, and training rows")
    colors = [each["mark"]["color"] for each in panel["layer"] if each["mark"]["type"] == "line"]
    assert len(colors) == len(set(colors)) == 4
