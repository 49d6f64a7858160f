"""A whole recipe, from its template to a model that predicts; killed in every step, it reaches the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lehr.recipe.state import RecipeState
from lehr.recipe.verdicts import step_verdicts
from lehr.result import Run
from lehr.runs import Folder, Progress, RunFolder

TEMPLATE = Path(__file__).parents[2] / "jobs" / "recipe.yaml"
TINY = ["base.model.width=8", "base.train.epochs=4", "base.train.evaluated_training_rows=100"]


def command(*options: str, budget: str = "40ep") -> list[str]:
    return [sys.executable, "-m", "lehr.cli.main", "run", str(TEMPLATE), *TINY, f"budget={budget}", "name=it", *options]


def run(*options: str, budget: str = "40ep", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options, budget=budget), capture_output=True, text=True, env=os.environ | environment, timeout=280
    )


def test_the_template_ends_with_a_model_that_predicts_and_a_page() -> None:
    ended = run("--debug", "base.optimizer.lr=0.05")
    assert ended.returncode == 0, ended.stderr
    assert "3 Find the learning rate: " in ended.stdout
    assert "Report: runs/it/report.html" in ended.stdout
    it = Run("runs/it")
    assert it.status == "finished"
    assert it.predict([np.zeros((8, 8), np.uint8)]).shape == (1, 10)
    page = Path("runs/it/report.html").read_text()
    for heading in ("1 Initial loss", "2 Overfit a small sample", "3 Find the learning rate", "4 Coarse search"):
        assert heading in page
    assert "7 Final training" in page
    again = run("--debug", "base.optimizer.lr=0.05")
    assert "it is finished" in again.stdout


def test_it_stops_where_the_job_asks_and_continues_without_that() -> None:
    assert (
        "Stopped after the step learning_rate"
        in run("--debug", "recipe.start_at=learning_rate", "recipe.stop_after=learning_rate").stdout
    )
    found = RecipeState.read(Folder.at("runs/it"))
    assert found.rates
    assert not found.rounds
    written = Path("runs/it/recipe/3-learning-rate/result.json").stat().st_mtime_ns
    assert run("--debug", "recipe.start_at=learning_rate", "recipe.stop_after=coarse").returncode == 0
    assert Path("runs/it/recipe/3-learning-rate/result.json").stat().st_mtime_ns == written
    assert len(RecipeState.read(Folder.at("runs/it")).rounds) == 1


@pytest.mark.slow
def test_killed_in_every_step_it_reaches_the_same_result_and_repeats_nothing_finished(tmp_path: Path) -> None:
    few = ("--debug", "base.data.limit=500")
    undisturbed = run(*few, f"storage={tmp_path}/calm", budget="120ep")
    assert undisturbed.returncode == 0, undisturbed.stderr
    place = tmp_path / "killed" / "it"
    finished: dict[str, Any] = {}
    for name in ("initial_loss", "overfit", "learning_rate", "coarse", "refine", "last"):
        with subprocess.Popen(
            command(*few, f"storage={tmp_path}/killed", budget="120ep"), stdout=subprocess.DEVNULL
        ) as process:
            wait_for(place, name, process)
            process.send_signal(signal.SIGKILL)
        finished |= pieces(place)
    assert run(*few, f"storage={tmp_path}/killed", budget="120ep").returncode == 0
    now = pieces(place)
    for name, before in finished.items():
        assert now[name][: len(before)] == before, name
    calm, killed = (RecipeState.read(Folder.at(tmp_path / where / "it")) for where in ("calm", "killed"))
    assert (killed.initial, killed.overfit) == (calm.initial, calm.overfit)
    assert killed.rates
    assert calm.rates
    assert [test.losses for test in killed.rates.tests] == [test.losses for test in calm.rates.tests]
    assert killed.rounds == calm.rounds
    assert killed.final == calm.final
    assert step_verdicts(killed) == step_verdicts(calm)


def wait_for(place: Path, name: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until the step is running: if it has several trials, until one of them has ended."""
    several = name in ("learning_rate", "coarse", "refine")
    for _ in range(12000):
        assert process.poll() is None, f"it ended before {name}"
        overview = Progress.read(Folder.at(place)).overview
        if overview and overview.recipe_step == name and overview.children["finished"] >= several:
            return
        time.sleep(0.01)
    raise AssertionError(f"{name} did not begin")


def pieces(place: Path) -> dict[str, Any]:
    """What is finished: the times of the result files, and the epochs of trials with their wall-clock times."""
    results = {str(path): [path.stat().st_mtime_ns] for path in place.glob("recipe/**/result.json")}
    trials = {
        child.folder.uri: child.epochs().to_pylist()
        for child in RunFolder.open(place).children("trials")
        if (outcome := child.outcome()) and outcome.status == "finished"
    }
    return results | trials


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_it_is_the_same_recipe() -> None:
    ended = run("base.optimizer.lr=0.05", budget="120ep")
    assert ended.returncode == 0, ended.stderr + Path("runs/it/log.txt").read_text()[-2000:]
    assert Run("runs/it").status == "finished"
    found = RecipeState.read(Folder.at("runs/it"))
    assert found.final
    assert found.rates
    assert len(found.rates.tests) >= 7
