"""Heads on features: the grid equals single trainings, the best head is chosen, and results are reproducible."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.job.transfer import FeaturesSection
from lehr.tasks.classification import Classification
from lehr.tasks.losses import Loss, cross_entropy
from lehr.transfer.features import Features
from lehr.transfer.head_search import Judge, Measured, _folds, evaluate_head, search_heads, train_heads

TASK = Classification(("a", "b", "c"))


def features(rows: int, seed: int = 0, views: int = 1, spread: float = 1.0) -> Features:
    """Three clusters in 6 dimensions of very different scales; further views are noisier copies."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    centres = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    scale = torch.tensor([100.0, 1.0, 0.01, 1.0, 1.0, 1.0])
    parts = []
    for view in range(views):
        noise = spread * (1 + view) * torch.randn(rows, 6, generator=generator)
        values = (2 * centres[labels] + noise) * scale + 5
        parts.append(Features(torch.arange(rows) + 1000 * seed, labels, torch.full((rows,), view), values))
    return Features.concatenate(parts)


def section(**options: Any) -> FeaturesSection:
    return FeaturesSection(**{"steps": 60, "rates": [0.01, 0.1], "weight_decays": [0.0, 1.0], **options})


def test_a_grid_trained_at_once_equals_what_torch_trains_one_by_one() -> None:
    train, chosen = features(60), section()
    grid = [(0.01, 0.0), (0.1, 1.0)]
    heads, losses = train_heads(train, TASK, chosen, grid, seed=0)
    for number, (rate, decay) in enumerate(grid):
        layer = nn.Linear(6, 3)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.steps)
        values = (train.values - train.values.mean(0)) / train.values.std(0, correction=0)
        for step in range(chosen.steps):
            loss = F.cross_entropy(layer(values), train.labels)
            if step in losses:
                assert float(losses[step][number]) == pytest.approx(loss.item(), rel=1e-4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        assert torch.allclose(heads(train.values)[number], layer(values), atol=1e-3)


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_head_as_a_layer_takes_features_without_normalisation(hidden: int) -> None:
    train = features(60)
    heads, _ = train_heads(train, TASK, section(hidden=hidden), [(0.01, 0.0), (0.1, 1.0)], seed=0)
    for number in range(2):
        assert torch.allclose(heads.module(number)(train.values), heads(train.values)[number], atol=1e-3)


def test_the_same_seed_gives_the_same_head_to_the_last_digit() -> None:
    def found(seed: int) -> list[Tensor]:
        options = section(hidden=5, batch_size=16)
        return [t for layer in train_heads(features(60), TASK, options, [(0.1, 0.0)], seed)[0].layers for t in layer]

    assert all(torch.equal(one, other) for one, other in zip(found(0), found(0), strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(found(0), found(1), strict=True))


@pytest.mark.parametrize(
    ("rows", "scored_on"), [(30, "5-fold cross-validation on 60 training images"), (600, "600 validation images")]
)
def test_the_best_pair_is_chosen_on_validation_images_if_there_are_enough_of_them(rows: int, scored_on: str) -> None:
    found = search_heads(
        features(60),
        features(rows, seed=1),
        Measured(TASK),
        section(rates=[1e-5, 0.05]),
        Judge("loss", lower=True),
        seed=0,
    )
    assert found.scored_on == scored_on
    assert found.scores[found.best] == max(found.scores)  # scores are higher where the loss is lower
    assert found.grid[found.best][0] == 0.05  # with the other rate, nothing is learned in 60 steps
    head = found.heads.module(found.best)
    assert evaluate_head(head, features(600, seed=2), Measured(TASK))["accuracy"] > 0.7
    assert evaluate_head(head, features(600, seed=2), Measured(TASK))["loss"] < 0.9


def test_folds_hold_out_all_views_of_an_image_and_each_image_once() -> None:
    train = features(60, views=3)
    folds = _folds(train, seed=0)
    held_out = torch.cat([outside.ids for _, outside in folds])
    assert sorted(held_out.tolist()) == list(range(60))
    for inside, outside in folds:
        assert not set(inside.ids.tolist()) & set(outside.ids.tolist())
        assert len(inside) == 3 * 48
        assert outside.views.unique().tolist() == [0]
        assert torch.bincount(outside.labels).tolist() == [4, 4, 4]


def smoothed(share: float) -> Loss:
    return Loss(partial(cross_entropy, label_smoothing=share))


def test_the_head_minimises_the_loss_of_the_task() -> None:
    """With label smoothing, the head stays less confident."""
    train = features(60, spread=0.1)
    sure, unsure = (
        train_heads(train, Classification(TASK.classes, smoothed(share)), section(), [(0.1, 0.0)], 0)[0]
        for share in (0.0, 0.3)
    )
    values = train.values
    assert sure(values).softmax(2).amax(2).mean() > 0.95 > unsure(values).softmax(2).amax(2).mean()


@pytest.mark.parametrize("validation", [40, 4000])
def test_the_share_of_the_steps_that_is_done_is_told(validation: int) -> None:
    """With cross-validation the folds are told too."""
    shares: list[float] = []
    measured = Measured(TASK)
    options = section(steps=20)
    search_heads(features(60), features(validation), measured, options, Judge("loss", lower=True), 0, shares.append)
    assert shares == sorted(shares)
    assert len(shares) == 20 * (1 if validation > 1000 else 6)
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1 - 1 / len(shares))
