"""Of epochs with the same value of the metric, as on few validation rows, the one with the lower loss is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tests.unit.training.conftest import plan_of

from lehr.curves.findings import Finding
from lehr.curves.kept import with_model
from lehr.curves.record import Curves
from lehr.job import to_dict
from lehr.job.training import tie_breaker
from lehr.runs import Checkpoint, Folder, RunFolder, read_model
from lehr.training.group import Group
from lehr.training.loop import Learner, train
from lehr.training.resume import _best_of
from lehr.training.state import TrainingState
from lehr.training.stopping import Best

MEASURED = ((0.9, 0.8), (0.8, 0.1), (0.9, 0.3), (0.9, 0.5), (0.7, 0.2))
"""Accuracy and loss of the epochs: 1, 3 and 4 are equally accurate, and 3 is surest."""
PLAN = plan_of(train__epochs=len(MEASURED), train__checkpoint={"every": "1ep", "keep": 1})


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Learner.evaluate

    def evaluate(self: Learner, step: int) -> dict[str, float]:
        accuracy, loss = MEASURED[step // PLAN.length.steps_per_epoch - 1]
        return measure(self, step) | {"validation_accuracy": accuracy, "validation_loss": loss}

    monkeypatch.setattr(Learner, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        ([(0.9, 0.8), (0.9, 0.3), (0.9, 0.5)], 2),
        ([(0.9, 0.3), (0.9, 0.3)], 1),  # equal in both: the first
        ([(0.9, None), (0.9, None)], 1),  # nothing decides: the first
        ([(0.9, math.nan), (0.9, 0.3)], 2),
        ([(0.9, 0.3), (0.9, math.nan), (0.9, math.inf)], 1),
        ([(0.9, 0.3), (0.91, 0.9)], 2),  # the metric goes before the loss
        ([(math.nan, 0.3), (0.1, 0.9)], 2),
    ],
)
def test_of_equal_values_that_with_the_lower_loss_is_best(epochs: list[tuple[float, float | None]], kept: int) -> None:
    best = Best("validation_accuracy")
    for epoch, (value, loss) in enumerate(epochs, 1):
        best = best.update(value, 10 * epoch, epoch, loss=loss)
    assert (best.epoch, best.step) == (kept, 10 * kept)


def test_an_equal_value_does_not_prolong_the_patience_of_early_stopping() -> None:
    state = TrainingState.start(PLAN.job)
    for epoch, (accuracy, loss) in enumerate(MEASURED[:4], 1):
        state = state.after_epoch(epoch, {"validation_accuracy": accuracy, "validation_loss": loss}, 0.0)
    assert (state.best.epoch, state.patience.epoch, state.patience.stale) == (3, 1, 3)


@pytest.mark.parametrize(
    ("column", "loss"),
    [
        ("validation_accuracy", "validation_loss"),
        ("averaged_validation_f1", "averaged_validation_loss"),
        ("validation_loss", "validation_loss"),
    ],
)
def test_the_loss_that_decides_is_that_of_the_same_rows_and_weights(column: str, loss: str) -> None:
    assert tie_breaker(column) == loss


@pytest.mark.usefixtures("_measured")
def test_the_kept_model_is_the_surest_of_equally_accurate_ones(tmp_path: Path) -> None:
    """Before, it was the first: on 18 rows that of an epoch in which the network had hardly learned."""
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(PLAN.job))
    assert train(PLAN, run, Group()) == "finished"
    outcome = run.outcome()
    assert outcome
    assert (outcome.best.epoch, outcome.best.value, outcome.best.loss) == (3, 0.9, 0.3)
    assert read_model(run.folder)[1]["from"]["epoch"] == 3
    told = with_model(Finding("healthy", "Healthy", "", "validation accuracy 70.0%", "high", ""), Curves.read(run))
    assert "the model is that of epoch 3" in told.evidence


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize("stop", range(1, len(MEASURED)))
def test_a_resumed_run_keeps_what_an_undisturbed_one_keeps(tmp_path: Path, stop: int) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(PLAN.job))

    def done() -> int:
        return run.epochs().num_rows

    assert train(PLAN, run, Group(), should_stop=lambda: "enough" if done() == stop else None) == "stopped"
    assert train(PLAN, run, Group()) == "finished"
    outcome = run.outcome()
    assert outcome
    assert (outcome.best.epoch, outcome.best.loss) == (3, 0.3)


def test_an_older_checkpoint_has_the_loss_of_its_best_epoch_in_the_record(tmp_path: Path) -> None:
    state = TrainingState.start(PLAN.job).after_epoch(1, {"validation_accuracy": 0.9, "validation_loss": 0.4}, 0.0)
    stored = json.loads(json.dumps(state.to_json()))
    assert "loss" not in stored["best"], "earlier versions read every field of it"
    del stored["best_loss"]
    rows = [{"epoch": 1, "step": 0, "validation_accuracy": 0.9, "validation_loss": 0.4}]
    for record, expected in ((rows, 0.4), ([], None)):
        best, lost = _best_of(Folder.at(tmp_path), Checkpoint(step=0, model={}, state=stored), record)
        assert (best.epoch, best.loss, lost) == (1, expected, "")
