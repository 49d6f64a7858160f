"""A training as any tool records it: some curves over epochs or steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from lehr.reporting.smoothing import Floats

Split = Literal["train", "validation", ""]
"""Which rows a value was measured on; empty where that means nothing, as for the learning rate."""

BOUNDED = ("accuracy", "f1", "map", "map50", "auc", "iou", "dice", "precision", "recall", "kappa", "mcc")
"""Metrics of at most 1, best at 1; tools write some of them in percent."""
RISING = (*BOUNDED, "r2", "bleu", "rouge", "cider", "psnr", "ssim", "score")
FALLING = ("error", "wer", "cer", "mae", "mse", "rmse", "perplexity", "fid")
WRITTEN = {"map": "mAP", "map50": "mAP50", "f1": "F1", "iou": "IoU", "r2": "R²", "cider": "CIDEr"} | {
    name: name.upper() for name in ("auc", "mcc", "wer", "cer", "mae", "mse", "rmse", "fid", "bleu", "psnr", "ssim")
}


class Meaning(NamedTuple):
    """What a curve is: `validation`, `accuracy`."""

    split: Split
    quantity: str

    def __str__(self) -> str:
        split = {"train": "training ", "validation": "validation ", "": ""}[self.split]
        return f"{split}{self.called}"

    @property
    def called(self) -> str:
        """The quantity as people write it."""
        return WRITTEN.get(self.quantity, self.quantity.replace("_", " "))

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.quantity in RISING


TRAIN_LOSS, VALIDATION_LOSS = Meaning("train", "loss"), Meaning("validation", "loss")
LEARNING_RATE = Meaning("", "learning_rate")


@dataclass(frozen=True)
class Curve:
    """One quantity as it was recorded.

    Attributes:
        column: what the file calls it.
        x: epochs or steps [n], ascending.
        y: values [n]; NaN and infinities are those that the training had.
    """

    column: str
    x: Floats
    y: Floats

    def __len__(self) -> int:
        return len(self.x)

    def between(self, begin: float, end: float) -> Floats:
        """The values with `begin` < x <= `end`."""
        return self.y[(self.x > begin) & (self.x <= end)]


@dataclass(frozen=True)
class Log:
    """The curves of one training.

    Attributes:
        name: the file's, and which run of it where it holds several.
        tool: whose form it has, such as `Keras`; empty where it is just a table.
        axis: what x counts.
        curves: those that were understood.
        epochs: passes over the training rows; NaN where the file does not say.
        unknown: the columns that were not understood.
        rows: of the validation split, where the user said so; 0 else.
    """

    name: str
    tool: str
    axis: Literal["epoch", "step"]
    curves: Mapping[Meaning, Curve]
    epochs: float = np.nan
    unknown: tuple[str, ...] = field(default=())
    rows: int = 0

    def curve(self, meaning: Meaning) -> Curve | None:
        return self.curves.get(meaning)

    @property
    def metric(self) -> Meaning | None:
        """The metric of validation rows that says most: what a user would choose a model by."""
        order = {name: place for place, name in enumerate((*RISING, *FALLING))}
        found = [each for each in self.curves if each.split == "validation" and each.quantity in order]
        return min(found, key=lambda each: order[each.quantity], default=None)

    @property
    def end(self) -> float:
        """The last position of any curve."""
        return max((float(each.x[-1]) for each in self.curves.values() if len(each)), default=0.0)

    def at(self, x: float) -> str:
        """`epoch 3`, `step 1,500`."""
        return f"epoch {x:.3g}" if self.axis == "epoch" else f"step {round(x):,}"
