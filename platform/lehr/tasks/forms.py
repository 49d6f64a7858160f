"""The tasks that a job can name, with what a job must know of them before any of them is imported: no torch here.

To add a task: its module in this folder, and its line in `TASKS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

LabelKind: TypeAlias = Literal["class", "classes", "numbers", "boxes", "mask", "captions"]
"""What a row is labelled with: one class, several (or none), numbers, boxes with their classes, a class for each
pixel, or sentences."""
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)

UNREADABLE = -100
"""The label of a streamed row whose image could not be read, NaN among numbers: losses and evaluation ignore it."""
NOT_COUNTED, UNREAD_PIXEL = 255, 254
"""In a mask: a pixel that is neither learned nor measured; and every pixel of a row whose image could not be read."""
MOST_CLASSES = UNREAD_PIXEL
"""Classes that the pixels of a mask can tell apart."""
PLACED: tuple[LabelKind, ...] = ("boxes", "mask")
"""Labels that are places in the image: their images are letterboxed, and they move with the pixels."""


@dataclass(frozen=True)
class TaskForm:
    """What a job assumes of a task.

    Attributes:
        module: the module in `lehr.tasks` that defines it, as `TASK`; empty for a user's own.
        labels: what it reads; of a user's own, its class says so.
        loss: the loss where the job names none; empty for a task that brings its own.
        metric: what decides which checkpoint is the best where the job does not say, measured on validation rows.
        lower: its metrics of which lower values are better, besides those whose names end with loss; of a
            user's own task also those that end with error.
    """

    module: str
    labels: LabelKind
    loss: str
    metric: str
    lower: tuple[str, ...] = ()


WORDS = {
    "map": "mean average precision",
    "ap": "average precision",
    "r2": "R²",
    "mae": "MAE",
    "rmse": "RMSE",
    "f1": "F1",
    "miou": "mean IoU",
    "iou": "IoU",
    "cider": "CIDEr",
}
"""Metrics as people call them, where that is not their name in the record."""


def spoken(name: str) -> str:
    """`R²` for `r2`, `MAE platelets` for `mae_platelets`, `average precision` for `average_precision`."""
    if name.startswith("bleu_"):
        return name.replace("bleu_", "BLEU-")
    metric, _, of = name.partition("_")
    return f"{WORDS[metric]} {of}".strip() if metric in WORDS else name.replace("_", " ")


def spoken_in_full(name: str) -> str:
    """`validation CIDEr` for `validation_cider`; of what names no validation rows, words for its underscores."""
    before, validation, metric = name.partition("validation_")
    return f"{before}{validation}".replace("_", " ") + spoken(metric) if metric else name.replace("_", " ")


IN_FULL = {
    "r2": "coefficient of determination (R²)",
    "mae": "mean absolute error (MAE)",
    "rmse": "root mean squared error (RMSE)",
}


def in_full(name: str) -> str:
    """`mean absolute error (MAE)` for `mae`, as a title has room for it; else as `spoken`."""
    return IN_FULL.get(name) or spoken(name)


USUAL = "classification"
OWN = TaskForm("", "class", "", "loss")
TASKS: dict[str, TaskForm] = {
    USUAL: TaskForm("classification", "class", "cross_entropy", "accuracy"),
    "multilabel": TaskForm("multilabel", "classes", "bce", "map"),
    "regression": TaskForm("regression", "numbers", "huber", "mae", lower=("mae", "rmse")),
    "detection": TaskForm("detection", "boxes", "", "map"),
    "segmentation": TaskForm("segmentation", "mask", "cross_entropy", "miou"),
    "captioning": TaskForm("captioning", "captions", "", "cider", lower=("perplexity",)),
}


def form_of(name: str) -> TaskForm:
    """What a job assumes of the task of this name; of a user's own, that it is chosen by its loss."""
    return TASKS.get(name, OWN)


def lower_is_better(task: str, measured: str) -> bool:
    """Whether lower values are better of what a task measures, a name without its split: `loss`, `mae`, `mae_age`."""
    named = any(f"{measured}_".startswith(f"{each}_") for each in form_of(task).lower)
    return named or measured.endswith("loss" if task in TASKS else ("loss", "error"))
