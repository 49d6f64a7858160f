"""One concrete next step for each finding, as changes to the job: dotted path to value."""

from __future__ import annotations

from typing import Any

from lehr.curves.record import Curves

Overrides = dict[str, Any]

ADAPTIVE_RATE, SGD_RATE = (
    1e-3,
    0.05,
)  # rates that most small networks train with (Adam's own default; SGD with momentum)


def usual_rate(curves: Curves) -> Overrides:
    return {"optimizer.lr": _usual(curves)}


def lower_rate(curves: Curves) -> Overrides:
    """A tenth, and at most the usual rate; a first epoch of warmup; gradients clipped."""
    lr = float(curves.option("optimizer.lr", 0.1))
    return {"optimizer.lr": _round(min(lr / 10, _usual(curves))), "schedule.warmup": "1ep", "train.clip": 1.0}


def raise_rate(curves: Curves, factor: float) -> Overrides:
    """Times `factor`, at least 3, and not beyond the usual rate unless it is there already."""
    lr = float(curves.option("optimizer.lr", 0.1))
    return {"optimizer.lr": _round(max(3 * lr, min(lr * factor, _usual(curves))))}


def better_start(curves: Curves) -> Overrides:
    """Normalised layers where the model has the option; else weights as they are usually drawn, else a warmup."""
    if curves.option("model.name") == "small_cnn" and curves.option("model.norm", "group") == "none":
        return {"model.norm": "batch"}
    if curves.option("model.init_scale", 1.0) != 1.0:
        return {"model.init_scale": 1.0}
    return {"schedule.warmup": "10%", "optimizer.lr": _round(float(curves.option("optimizer.lr", 0.1)) / 3)}


def larger_batch(curves: Curves) -> Overrides:
    """Eight times the rows, at least 32; the same rate, which is now smaller for what a batch tells."""
    return {"train.batch_size": max(32, 8 * int(curves.option("train.batch_size", 4)))}


def decay_from(curves: Curves, share: float) -> Overrides:
    """A step down where the plateau began, and another half-way to the end."""
    first = min(max(round(100 * share), 10), 80)
    return {"schedule": {"name": "step", "milestones": [f"{first}%", f"{(first + 100) // 2}%"]}}


def longer(curves: Curves, times: int) -> Overrides:
    return {"train.epochs": times * int(curves.option("train.epochs", 1))}


def larger_model(curves: Curves) -> Overrides:
    """Four times the width where the model has one, else longer training; and less regularisation."""
    freer: Overrides = {"model.dropout": 0.0} if curves.option("model.dropout", 0.0) else {}
    if float(curves.option("optimizer.weight_decay", 0.0)) > 5e-4:
        freer["optimizer.weight_decay"] = 5e-4
    if curves.option("model.name") == "small_cnn":
        return {"model.width": max(16, 4 * int(curves.option("model.width", 16)))} | freer
    return longer(curves, 2) | freer


def regularise(curves: Curves) -> Overrides:
    """All the data where some was held back; else what is not there yet of smoothed labels, mixup and dropout.

    Smoothed labels come first: they helped at every scale that was tried, where shifting tiny images did not.
    """
    if curves.option("data.limit") is not None:
        return {"data.limit": None}
    decay: Overrides = {"optimizer.weight_decay": max(5 * float(curves.option("optimizer.weight_decay", 0.0)), 5e-4)}
    if not curves.option("loss.label_smoothing", 0.0):
        return {"loss.label_smoothing": 0.1} | decay
    if not curves.option("data.augment"):
        return {"data.augment": ["mixup"]} | decay
    return ({"model.dropout": 0.3} if curves.option("model.name") == "small_cnn" else {}) | decay


def _usual(curves: Curves) -> float:
    return SGD_RATE if curves.option("optimizer.name", "sgd") == "sgd" else ADAPTIVE_RATE


def _round(value: float) -> float:
    return float(f"{value:.1g}")
