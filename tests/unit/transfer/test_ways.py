"""What each way of a transfer is told as: its accuracy with an interval, what was trained, and what it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import plan_of, synthetic, train_tiny

from lehr.runs import Folder, ModelFile, RunFolder, read_model
from lehr.training.freezing import Freezing
from lehr.transfer.head_search import Judge
from lehr.transfer.results import StrategyTrial, called

__all__ = ["train_tiny"]
NETWORK: dict[str, Any] = {"model__norm": "batch", "train__epochs": 4}


@pytest.fixture
def pretrained(train_tiny: Callable[..., RunFolder]) -> str:
    return f"run:{train_tiny(**NETWORK).folder.local_path}"


def origin(run: RunFolder) -> dict[str, Any]:
    return dict(ModelFile.read(run.folder).description["from"])


@pytest.mark.parametrize(
    ("metric", "kept_before", "name"),
    [("validation_loss", True, "head only"), ("train_loss", False, "fine-tuning")],
)
def test_a_model_from_before_the_body_was_trained_is_not_called_fine_tuned(
    metric: str, kept_before: bool, name: str, pretrained: str, train_tiny: Callable[..., RunFolder]
) -> None:
    """The best epoch is one in which the head alone was trained, or the last one."""
    tuned = {"finetune": {"head_first": "2ep", "lr_factor": 1.0}, "model__weights": pretrained, **NETWORK}
    worse = {"optimizer__lr": 30.0, "schedule": "constant"} if kept_before else {}
    run = train_tiny(**tuned, **worse, train__metric=metric)
    trained = origin(run)
    body = {name: value for name, value in read_model(run.folder)[0].items() if not name.startswith("head")}
    before = read_model(Folder.at(pretrained.removeprefix("run:")))[0]
    untouched = all(torch.equal(value, before[name]) for name, value in body.items())
    assert untouched == (trained["trained_blocks"] == 0)
    assert untouched == kept_before
    assert called("finetune", run) == name
    assert called("scratch", run) == "from scratch"


def test_what_was_trained_is_counted_block_by_block(pretrained: str) -> None:
    plan = plan_of(
        synthetic(),
        model__weights=pretrained,
        finetune={"head_first": "3step", "unfreeze": "2step", "frozen": 1},
        **NETWORK,
    )
    model = plan.build_model()
    freezing = plan.freezing(model)
    assert isinstance(freezing, Freezing)
    whole, sizes = sum(p.numel() for p in model.parameters()), [
        sum(p.numel() for p in block.parameters()) for block in freezing.blocks
    ]  # fmt: skip
    head, blocks = whole - sum(sizes), len(sizes)
    assert blocks > 2
    for steps, below in ((3, 0), (4, 1), (5, 1), (6, 2), (100, blocks - 1)):
        counts = plan.trained(model, steps)
        assert (counts["trained_blocks"], counts["blocks"], counts["parameters"]) == (below, blocks, whole)
        assert counts["trained_parameters"] == head + sum(sizes[blocks - below :] if below else [])
    assert plan_of(**NETWORK).trained(model, 1) == {"trained_parameters": whole, "parameters": whole}


@pytest.mark.parametrize("metric", ["validation_accuracy", "validation_loss"])
def test_the_chart_ends_at_the_accuracy_of_the_table(metric: str, train_tiny: Callable[..., RunFolder]) -> None:
    run = train_tiny(train__epochs=5, optimizer__lr=0.5, train__metric=metric)
    trial = StrategyTrial("scratch", None, run)
    seconds, accuracies = trial.curve()
    assert len(seconds) == len(accuracies) == trial.epochs == 5
    assert trial.accuracy is not None
    assert accuracies[-1] == pytest.approx(100 * trial.accuracy)
    assert seconds[-1] == pytest.approx(trial.seconds)


def test_a_line_for_each_way_has_its_interval_epoch_seconds_and_parameters(
    pretrained: str, train_tiny: Callable[..., RunFolder]
) -> None:
    run = train_tiny(finetune={"head_first": "1ep"}, model__weights=pretrained, **NETWORK)
    trained = origin(run)
    sentence = StrategyTrial("finetune", None, run).sentence(16)
    best = run.outcome() or run.progress()
    assert f" on 16 validation images, epoch {best.best.epoch} of 4 kept, " in sentence
    assert f"{trained['trained_parameters']:,} of {trained['parameters']:,} parameters trained" in sentence
    assert "±" in sentence or " to " in sentence


@pytest.mark.parametrize(
    ("wanted", "metric", "column", "on_training_rows"),
    [
        ("validation_accuracy", "accuracy", "validation_accuracy", False),
        ("averaged_validation_loss", "loss", "validation_loss", False),
        ("train_loss", "loss", "train_loss", True),
        ("clean_train_accuracy", "accuracy", "clean_train_accuracy", True),
        ("validation_train_share", "train_share", "validation_train_share", False),
    ],
)
def test_heads_are_compared_by_any_metric_that_a_training_can_be(
    wanted: str, metric: str, column: str, on_training_rows: bool
) -> None:
    judge = Judge.of(wanted, lower=wanted.endswith("loss"))
    assert (judge.metric, judge.column, judge.on_training_rows) == (metric, column, on_training_rows)
