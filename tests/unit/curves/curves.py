"""Synthetic curves for tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lehr.curves.record import Curves
from lehr.reporting.smoothing import Floats
from lehr.runs import DataSurvey, NetworkSurvey

STEPS_PER_EPOCH = 20


def made(
    loss: Any,
    *,
    epochs: int = 20,
    rate: Any = 0.1,
    update: Any = 0.005,
    train: Any = 0.99,
    validation: Any = 0.98,
    validation_loss: Any = 0.1,
    running_loss: Any = 0.1,
    clean_loss: Any = 0.1,
    gradient_norm: float = 1.0,
    survey: DataSurvey | None = None,
    network: NetworkSurvey | None = None,
    job: dict[str, Any] | None = None,
    classes: int | None = 10,
    noise: float = 0.01,
    steps_per_epoch: int = STEPS_PER_EPOCH,
) -> Curves:
    """A run of `epochs`; each curve is a number or a function of progress from 0 to 1."""

    def curve(value: Any, at: Floats) -> Floats:
        return np.array([value(p) if callable(value) else value for p in at], dtype=np.float64)

    count = epochs * steps_per_epoch
    steps, ends = np.arange(count) / count, np.arange(1, epochs + 1) / epochs
    wobble = noise * np.random.default_rng(0).standard_normal(count)
    ratio = curve(update, steps)
    ratio[np.arange(count) % 10 != 0] = np.nan
    return Curves(
        chance_loss=math.log(classes) if classes else math.nan,
        steps={
            "step": np.arange(count, dtype=np.float64),
            "epoch": steps * epochs,
            "loss": curve(loss, steps) + wobble,
            "learning_rate": curve(rate, steps),
            "gradient_norm": np.full(count, gradient_norm),
            "update_ratio": ratio,
            "examples": np.full(count, 64.0),
            "seconds": np.full(count, 0.01),
            "input_seconds": np.full(count, 0.001),
        },
        epochs={
            "epoch": ends * epochs,
            "step": ends * count,
            "clean_train_accuracy": curve(train, ends),
            "validation_accuracy": curve(validation, ends),
            "validation_loss": curve(validation_loss, ends),
            "train_loss": curve(running_loss, ends),
            "clean_train_loss": curve(clean_loss, ends),
        },
        job={"optimizer": {"name": "sgd", "lr": 0.1}, "train": {"epochs": epochs, "batch_size": 64}} | (job or {}),
        classes=classes,
        validation_rows=360,
        name="made",
        survey=survey or DataSurvey(),
        network=network or NetworkSurvey(),
    )
