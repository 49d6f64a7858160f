"""The task interface fits more than classes: boxes and words, as tasks/README.md sketches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from tests.unit.training.conftest import plan_of, synthetic
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.data.dataset import Batch, DataSubset, Splits
from lehr.tasks.base import Task
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.train_step import TrainStep


class WithTargets(DataSubset):
    """Rows with targets of any shape in place of their classes."""

    def __init__(self, rows: DataSubset, targets: Tensor) -> None:
        self.__dict__.update(rows.__dict__)
        self._labels = targets


class Centres(Task[Any]):
    """Object detection in small: the height of the band, with a score; average precision from counts by score."""

    metric_names = ("loss", "average_precision")
    outputs = 2

    def arguments(self, inputs: Tensor, targets: Tensor) -> tuple[Any, ...]:
        return (inputs,)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs["place"], targets[:, 0].to(outputs["place"].dtype), reduction="sum")

    def sums(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        hit = (outputs["place"] - targets[:, 0]).abs() < 1
        bins = (outputs["score"].sigmoid() * 10).long().clamp(max=9)
        return {
            "loss": self.loss(outputs, targets),
            "right": torch.bincount(bins[hit], minlength=10),
            "wrong": torch.bincount(bins[~hit], minlength=10),
        }

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        right, wrong = (torch.tensor(sums[name]).flip(0).cumsum(0) for name in ("right", "wrong"))
        precision = right / (right + wrong).clamp(min=1)
        steps = torch.diff(right, prepend=torch.zeros(1)) / rows
        return {"loss": sums["loss"] / rows, "average_precision": float((precision * steps).sum())}


class Pointer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 12 * 12, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        place, score = self.layer(images.flatten(1)).unbind(dim=1)
        return {"place": place, "score": score}


class Words(Task[Any]):
    """Captioning in small: four words, of which the network is given all but the last."""

    metric_names = ("loss", "word_accuracy")
    outputs = 5

    def arguments(self, inputs: Tensor, targets: Tensor) -> tuple[Any, ...]:
        return inputs, targets[:, :-1].clamp(min=0)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-1, reduction="sum")

    def sums(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        words = targets[:, 1:] >= 0
        right = (outputs.argmax(dim=2) == targets[:, 1:]) & words
        return {"loss": self.loss(outputs, targets), "words": words.sum(), "right": right.sum()}

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        return {"loss": sums["loss"] / rows, "word_accuracy": sums["right"] / max(1, sums["words"])}


class Captioner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.word, self.head = nn.Linear(3 * 12 * 12, 16), nn.Embedding(5, 16), nn.Linear(16, 5)

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.image(images.flatten(1))[:, None] + self.word(words)))


def trained(task: Any, model: nn.Module, targets: Tensor, lr: float) -> tuple[Plan, dict[str, float], dict[str, float]]:
    """Metrics before and after a few epochs of the library's own training steps."""
    splits = synthetic()
    rows = WithTargets(splits.train, targets)
    plan = replace(plan_of(splits, optimizer__lr=lr, train__epochs=50), task=task, splits=Splits(rows, rows))
    before = evaluate(model, rows, plan, Group(), batch_size=5)
    train_step = TrainStep(plan, model, Group())
    for step in range(60):
        batch = rows.gather(torch.arange(8) + 8 * (step % 4))
        train_step(Batch(batch.inputs, batch.targets, batch.ids), 8, step)
    return plan, before, evaluate(model, rows, plan, Group(), batch_size=5)


def test_object_detection_trains_and_is_measured_by_average_precision() -> None:
    torch.manual_seed(0)
    places = (torch.arange(48) % 3).float()[:, None] * 4 + 2
    _, before, after = trained(Centres(), Pointer(), places.repeat(1, 5), lr=0.001)
    assert after["loss"] < 0.2 * before["loss"]
    assert after["average_precision"] > before["average_precision"] + 0.3


def test_captioning_trains_on_the_words_before_the_last() -> None:
    torch.manual_seed(0)
    classes = torch.arange(48) % 3
    words = torch.stack([torch.zeros(48, dtype=torch.int64), classes + 1, 4 - classes, torch.full((48,), -1)], dim=1)
    plan, before, after = trained(Words(), Captioner(), words, lr=0.003)
    assert after["word_accuracy"] > 0.9 > before["word_accuracy"]
    assert after["loss"] < before["loss"]
    assert plan.task.outputs == 5
