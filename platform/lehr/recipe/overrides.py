"""Changes to the base job that make the trials of each step, as dotted paths and values."""

from __future__ import annotations

from typing import Any

from lehr.job import Training
from lehr.recipe.trial_results import Hyperparameters

CLIPPED = 1.0
"""Norm to which gradients are clipped where a pretrained body begins to learn: the first ones may destroy it."""


def constant_rate(base: Training) -> dict[str, Any]:
    """A constant learning rate, and nothing that depends on the length of the training: it can be extended later."""
    return {
        "optimizer.scale_lr": None,
        "schedule": "constant",
        "train.early_stopping": None,
        "train.averaging": None,
        "train.metric": base.train.metric.removeprefix("averaged_"),
        "train.stop_on": ["diverged", "not_learning"],
    }


def unregularised(base: Training) -> dict[str, Any]:
    """For a measurement: no regularisation, no augmentation, a constant learning rate."""
    return constant_rate(base) | {
        "data.augment": [],
        "data.sampling": "shuffle",
        "loss.label_smoothing": 0.0,
        "loss.class_weights": "none",
        "optimizer.weight_decay": 0.0,
        "train.epochs": 1,
    }


def search_trial(base: Training, setting: Hyperparameters, epochs: int) -> dict[str, Any]:
    """For a trial of a search round; a later round may train it for more epochs."""
    return {**constant_rate(base), **setting.overrides(), "train.epochs": epochs}


def head_first(base: Training) -> bool:
    """Whether a short training of the base job fine-tunes pretrained weights as `FinetuneSection` does by default.

    In few updates a new head that learns beside the body distorts the features that it was given, and running
    statistics do not keep up with weights that move: Kumar and others, "Fine-tuning can distort pretrained features",
    2022. A base job that has a `finetune` section of its own decides itself.
    """
    return bool(base.model.weights) and base.finetune is None


def final_training(base: Training, setting: Hyperparameters, epochs: int, few: bool = False) -> dict[str, Any]:
    """For a training in full, with a decaying learning rate: cosine if the base job's schedule is constant.

    Args:
        few: whether there are few updates, so that there was no search. Then there is nothing to settle either: a
            constant schedule is kept, since a rate that decays only wastes some of them.
    """
    changes: dict[str, Any] = {**setting.overrides(), "optimizer.scale_lr": None, "train.epochs": epochs}
    if base.schedule.name == "constant" and not few:
        warmup = str(base.schedule.warmup) if base.schedule.warmup else "5%"
        changes["schedule"] = {"name": "cosine", "warmup": warmup, "cooldown": str(base.schedule.cooldown)}
    if few and head_first(base):
        changes["finetune"] = {"head_first": "20%"}
        changes["train.max_gradient_norm"] = base.train.max_gradient_norm or CLIPPED  # when the body begins
    return changes
