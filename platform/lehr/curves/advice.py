"""One concrete next step for each finding, as changes to the job: dotted path to value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lehr.curves.findings import Finding
from lehr.curves.record import Curves
from lehr.job.sections import START_FROM_PRETRAINED
from lehr.usual import USUAL, Usual, usual_of

Overrides = dict[str, Any]

FEW_PHOTOGRAPHS = 250
"""Images of a class up to which pretrained weights did better than any training from scratch that was measured."""
SMALLEST_PHOTOGRAPH = 32
"""Pixels of a side from which on weights of photographs see something."""
FROM_PRETRAINED = f"lehr run JOB {START_FROM_PRETRAINED}"
LACKING = frozenset({"overfitting", "underfitting", "too_short", "unclear", "nothing_seen", "too_little", "at_chance"})
"""Findings that more images would help against, and so would weights that were made from more images."""


def usual_rate(curves: Curves) -> Overrides:
    """The usual learning rate of this optimizer; half of it for a run that had that."""
    rate = usual(curves)
    return {"optimizer.lr": rate if rate != curves.option("optimizer.lr", 0.1) else rate / 2}


def lower_rate(curves: Curves) -> Overrides:
    """A tenth of the learning rate, and at most the usual one; one epoch of warmup; clipped gradients."""
    lr = float(curves.option("optimizer.lr", 0.1))
    return {
        "optimizer.lr": _one_digit(min(lr / 10, usual(curves))),
        "schedule.warmup": "1ep",
        "train.max_gradient_norm": 1.0,
    }


def raise_rate(curves: Curves, factor: float) -> Overrides:
    """Times `factor`, at least times 3, and not above the usual learning rate unless it is there already."""
    lr = float(curves.option("optimizer.lr", 0.1))
    return {"optimizer.lr": _one_digit(max(3 * lr, min(lr * factor, usual(curves))))}


def better_initialization(curves: Curves) -> Overrides:
    """Normalisation layers where the model has the option; else the usual initialization; else a warmup."""
    if curves.option("model.name") == "small_cnn" and curves.option("model.norm", "group") == "none":
        return {"model.norm": "batch"}
    if curves.option("model.init_scale", 1.0) != 1.0:
        return {"model.init_scale": 1.0}
    return {"schedule.warmup": "10%", "optimizer.lr": _one_digit(float(curves.option("optimizer.lr", 0.1)) / 3)}


def larger_batch(curves: Curves) -> Overrides:
    """Eight times the batch size, at least 32; the learning rate stays, which makes it smaller per example."""
    return {"train.batch_size": max(32, 8 * int(curves.option("train.batch_size", 4)))}


def decay_from(curves: Curves, share: float) -> Overrides:
    """A step down where the plateau began, and another half-way to the end."""
    first = min(max(round(100 * share), 10), 80)
    return {"schedule": {"name": "step", "milestones": [f"{first}%", f"{(first + 100) // 2}%"]}}


def longer(curves: Curves, times: int) -> Overrides:
    """So many times the epochs."""
    return {"train.epochs": times * int(curves.option("train.epochs", 1))}


def larger_model(curves: Curves) -> Overrides:
    """Four times the width where the model has one, else longer training; and less regularisation."""
    freer: Overrides = {"model.dropout": 0.0} if curves.option("model.dropout", 0.0) else {}
    if float(curves.option("optimizer.weight_decay", 0.0)) > _values(curves).decay:
        freer["optimizer.weight_decay"] = _values(curves).decay
    if curves.option("model.name") == "small_cnn":
        return {"model.width": max(16, 4 * int(curves.option("model.width", 16)))} | freer
    return longer(curves, 2) | freer


def from_pretrained(finding: Finding, curves: Curves) -> Finding:
    """The finding with its first advice for a small set of photographs: to start from pretrained weights.

    The changes to the job stay those for the network that was trained: a recipe tries them by itself.

    Yosinski et al., "How transferable are features in deep neural networks?", 2014.
    """
    height, width, channels = curves.image or (0, 0, 0)
    are_photographs = channels == 3 and min(height, width) >= SMALLEST_PHOTOGRAPH
    starts_anew = not curves.option("model.weights") and not curves.option("finetune")
    few = curves.rows_per_class <= FEW_PHOTOGRAPHS
    if finding.name not in LACKING or not (are_photographs and starts_anew and few):
        return finding
    other = f"{finding.advice[:1].lower()}{finding.advice[1:]}"
    return replace(
        finding,
        advice=(
            f"Start from pretrained weights: with {curves.rows_per_class:.0f} training images a class, a network of "
            f"its own learns little that holds for others. Type: {FROM_PRETRAINED}. Or else: {other}"
        ),
    )


def regularise(curves: Curves) -> Overrides:
    """All the data if `data.limit` held some back; else the first unused of label smoothing, mixup and dropout.

    Label smoothing comes first: it helped at every scale that was tried, where shifting tiny images did not.
    """
    if curves.option("data.limit") is not None:
        return {"data.limit": None}
    stronger = max(5 * float(curves.option("optimizer.weight_decay", 0.0)), _values(curves).decay)
    decay: Overrides = {"optimizer.weight_decay": stronger} if stronger else {}  # Rprop has none
    if not curves.option("loss.label_smoothing", 0.0):
        return {"loss.label_smoothing": 0.1} | decay
    if not curves.option("data.augment"):
        return {"data.augment": ["mixup"]} | decay
    return ({"model.dropout": 0.3} if curves.option("model.name") == "small_cnn" else {}) | decay


def _values(curves: Curves) -> Usual:
    """What the run's optimizer is usually given. One that is not in the table is taken for one of Adam's family."""
    return usual_of(str(curves.option("optimizer.name") or "sgd")) or USUAL["adam"]


def usual(curves: Curves) -> float:
    """The usual rate of the run's optimizer, for pretrained weights if it starts from some."""
    values = _values(curves)
    if not curves.option("model.weights"):
        return values.rate
    return values.of_pretrained(
        {"momentum": curves.option("optimizer.momentum", 0.0)},
        head_first=bool(curves.option("finetune")),
        clipped=curves.option("train.max_gradient_norm") is not None,
    )


def _one_digit(value: float) -> float:
    return float(f"{value:.1g}")
