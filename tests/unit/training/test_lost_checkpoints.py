"""Training goes on from the newest checkpoint that verifies, whatever became of the best one; what is lost is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.training.conftest import plan_of

from lehr.job import to_dict
from lehr.runs import Folder, RunFolder, all_attempts, read_model, saved
from lehr.training.group import Group
from lehr.training.loop import Learner, train

ACCURACIES = (0.5, 0.9, 0.4, 0.3, 0.2)
"""Of the epochs: the second one is the best."""
PLAN = plan_of(train__epochs=len(ACCURACIES), train__checkpoint={"every": "1ep", "keep": 2})


@pytest.fixture(autouse=True)
def _accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Learner.evaluate

    def evaluate(self: Learner, step: int) -> dict[str, float]:
        return measure(self, step) | {"validation_accuracy": ACCURACIES[step // PLAN.length.steps_per_epoch - 1]}

    monkeypatch.setattr(Learner, "evaluate", evaluate)


@pytest.fixture
def stopped(tmp_path: Path) -> RunFolder:
    """A run that was stopped in its fourth epoch: it has the checkpoints of epochs 2 and 3 and of its last step."""
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(PLAN.job))
    assert train(PLAN, run, Group(), should_stop=lambda: "enough" if _epochs(run) == 3 else None) == "stopped"
    steps = list(saved(run.folder))
    assert len(steps) == 3
    assert steps[:2] == [2 * PLAN.length.steps_per_epoch, 3 * PLAN.length.steps_per_epoch]
    return run


def _epochs(run: RunFolder) -> int:
    return max((int(row["step"]) for row in run.epochs().to_pylist()), default=0) // PLAN.length.steps_per_epoch


def flip(run: RunFolder, which: int, file: str = "model.safetensors") -> None:
    """Flips a bit in the checkpoint at this place of all, oldest first."""
    name = f"checkpoints/{list(saved(run.folder).values())[which]}/{file}"
    data = run.folder.read(name)
    run.folder.write(name, data[:200] + bytes([data[200] ^ 1]) + data[201:])


def remove(run: RunFolder, which: int) -> None:
    run.folder.child("checkpoints", list(saved(run.folder).values())[which]).delete_all()


def told(run: RunFolder) -> dict[str, str]:
    return {event["kind"]: event["message"] for event in run.events()}


@pytest.mark.parametrize("damage", [flip, remove])
def test_a_damaged_best_checkpoint_costs_no_step(stopped: RunFolder, damage: Callable[[RunFolder, int], None]) -> None:
    """Before, training began again at epoch 1 with two intact newer checkpoints there."""
    newest = max(saved(stopped.folder))
    damage(stopped, 0)
    assert train(PLAN, stopped, Group()) == "finished"
    assert all_attempts(stopped.folder)[-1].step == newest
    outcome = stopped.outcome()
    assert outcome
    assert (outcome.best.epoch, outcome.best.value) == (3, 0.4)
    assert told(stopped)["best_lost"] == (
        "the best model, of epoch 2 (validation_accuracy 0.9), is damaged or gone; the best one left is of epoch 3 "
        "(validation_accuracy 0.4)"
    )
    assert read_model(stopped.folder)[1]["from"]["epoch"] == 3


def test_the_newest_checkpoint_that_verifies_is_resumed_from(stopped: RunFolder) -> None:
    flip(stopped, 2, "state.json")
    assert train(PLAN, stopped, Group()) == "finished"
    assert all_attempts(stopped.folder)[-1].step == 3 * PLAN.length.steps_per_epoch
    assert "epoch" not in told(stopped).get("best_lost", "")
    assert "state.json: is damaged" in told(stopped)["checkpoint_skipped"]
    assert stopped.epochs()["epoch"].to_pylist() == [1, 2, 3, 4, 5]


def test_a_start_from_the_first_step_is_never_silent(stopped: RunFolder) -> None:
    for which in range(3):
        flip(stopped, which)
    assert train(PLAN, stopped, Group()) == "finished"
    skipped = [event["message"] for event in stopped.events() if event["kind"] == "checkpoint_skipped"]
    assert len(skipped) == 3
    assert "starts, repeating" in told(stopped)["started"]


def test_where_no_checkpoint_of_an_earlier_epoch_is_left_the_best_of_the_coming_ones_is_kept(
    stopped: RunFolder,
) -> None:
    flip(stopped, 0)
    for name in stopped.folder.files("epochs"):
        stopped.folder.delete(f"epochs/{name}")
    assert train(PLAN, stopped, Group()) == "finished"
    assert "no checkpoint of an earlier epoch is left" in told(stopped)["best_lost"]
    outcome = stopped.outcome()
    assert outcome
    assert (outcome.best.epoch, outcome.best.value) in ((4, 0.3), (5, 0.2))  # the stop may fall on the end of epoch 4


def test_a_best_checkpoint_that_is_damaged_while_training_ends_is_replaced_by_the_best_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(PLAN.job))
    write: Any = Group.barrier

    def damaged_meanwhile(self: Group) -> None:
        if _epochs(run) == len(ACCURACIES):
            flip(run, 0)
        write(self)

    monkeypatch.setattr(Group, "barrier", damaged_meanwhile)
    assert train(PLAN, run, Group()) == "finished"
    assert "the best one left is of epoch 4" in told(run)["best_lost"]
    assert read_model(run.folder)[1]["from"]["epoch"] == 4
