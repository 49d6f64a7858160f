"""Several classes a row are measured as torchmetrics measures them, and thresholds are the best on validation rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lehr.models.vision import torchvision
from lehr.tasks.base import Learned
from lehr.tasks.losses import Loss
from lehr.tasks.multilabel import LOSSES, Multilabel, asymmetric, average_precision, bce, best_thresholds, focal

NAMES = ("cat", "dog", "owl", "rat")


def rows(count: int = 150, seed: int = 0, decimals: int | None = None) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    outputs = torch.randn(count, 4, generator=random, dtype=torch.float64)
    targets = outputs + torch.randn(count, 4, generator=random, dtype=torch.float64) > torch.tensor([0, 0.5, 1, -0.5])
    return (outputs.round(decimals=decimals) if decimals is not None else outputs), targets.to(torch.int8)


def fitted(loss: str = "bce") -> Multilabel:
    given = Loss(LOSSES[loss], activation="sigmoid")
    return Multilabel.fit(Learned(NAMES, rows()[1], given, given))


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_the_metrics_are_those_of_torchmetrics_with_and_without_ties(decimals: int | None) -> None:
    torchvision()  # which torchmetrics imports
    classification = pytest.importorskip("torchmetrics.classification")
    task, (outputs, targets) = fitted(), rows(seed=1, decimals=decimals)
    sums: dict[str, Tensor] = {}
    for part in (slice(0, 64), slice(64, 65), slice(65, 150)):
        for name, value in task.sums(outputs[part], targets[part]).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    found = task.metrics({name: value.tolist() for name, value in sums.items()}, 150) | task.whole(outputs, targets)
    p, whole = outputs.sigmoid(), targets.long()
    each = classification.MultilabelAveragePrecision(4, average="none")(p, whole)
    assert average_precision(p, targets).tolist() == pytest.approx(each.tolist(), abs=1e-6)
    assert found["map"] == pytest.approx(float(classification.MultilabelAveragePrecision(4)(p, whole)), abs=1e-6)
    f1 = classification.MultilabelF1Score(4, average="none", threshold=0.5 - 1e-12)(p, whole)
    assert [found[f"f1_{name}"] for name in NAMES] == pytest.approx(f1.tolist(), abs=1e-6)
    assert found["f1"] == pytest.approx(float(f1.mean()), abs=1e-6)
    assert set(found) == set(task.metric_names)


def test_thresholds_are_the_best_of_all_on_the_rows_they_are_chosen_on() -> None:
    outputs, targets = rows(60, seed=2)
    scores, labels = outputs.sigmoid().numpy(), targets.numpy()
    chosen = best_thresholds(scores, labels)
    for number in range(4):
        every = [f1(scores[:, number] >= limit, labels[:, number] > 0) for limit in np.linspace(0.001, 0.999, 999)]
        assert f1(scores[:, number] >= chosen[number], labels[:, number] > 0) >= max(every) - 1e-12


def f1(given: np.ndarray, there: np.ndarray) -> float:
    return 2 * (given & there).sum() / max(1, given.sum() + there.sum())


def test_a_class_of_no_row_has_no_precision_and_keeps_its_threshold() -> None:
    scores, labels = np.array([[0.2, 0.9], [0.7, 0.1]]), np.array([[0, 1], [1, 0]], np.int8)
    empty = np.concatenate([labels[:, :1], np.zeros((2, 1), np.int8)], axis=1)
    assert best_thresholds(scores, empty)[1] == 0.5
    assert math.isnan(average_precision(torch.tensor(scores), torch.tensor(empty))[1])


def test_the_chosen_thresholds_are_kept_with_the_model_and_decide_what_is_predicted() -> None:
    task = fitted().with_choices({"thresholds": [0.1, 0.9, 0.5, 0.5]})
    again = Multilabel.restore(NAMES, task.state(), "sigmoid")
    found = again.columns(np.array([[0.2, 0.8, 0.6, 0.1], [0.0, 0.0, 0.0, 0.0]], np.float32), np.array([False, True]))
    assert found["classes"].to_pylist() == [["cat", "owl"], None]
    assert again.to_json(np.array([0.0, 0.1, 0.2, 0.3]), 3)["classes"] == []


def test_the_losses_agree_where_their_papers_say_so() -> None:
    outputs, targets = rows(40, seed=4)
    shares = targets.double()
    assert torch.allclose(focal(outputs, shares, gamma=0), bce(outputs, shares))
    plain = asymmetric(outputs, shares, gamma_positive=0, gamma_negative=0, margin=0)
    assert torch.allclose(plain, bce(outputs, shares), atol=1e-9)
    assert bool((asymmetric(outputs, shares) <= plain + 1e-9).all())


def test_zeros_cost_what_a_guess_costs_and_chance_is_how_often_classes_are_there() -> None:
    task = fitted()
    assert task.chance_loss(torch.float64) == pytest.approx(math.log(2))
    assert task.chance == pytest.approx(float(rows()[1].double().mean()))


def test_rows_that_never_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="all rows to train on have the same classes"):
        Multilabel.fit(Learned(NAMES, torch.ones(5, 4, dtype=torch.int8)))
