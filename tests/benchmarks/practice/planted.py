"""Forty-one runs on digits, or on photographs where it says so, most with a fault that is named: a table of verdicts.

    python -m tests.benchmarks.practice.planted --keep FOLDER [--write]

Unlike the drawn cases these are fixed: they show what a user is told in each, before and after a change of the rules.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.runs import Folder, RunFolder
from tests.benchmarks.practice import data_sets
from tests.benchmarks.practice.cases import OWN
from tests.benchmarks.practice.data_sets import Rows
from tests.benchmarks.practice.faults import Draft
from tests.benchmarks.practice.judge import SILENT
from tests.benchmarks.practice.trial import train_draft

HERE = Path(__file__).parent
SGD: dict[str, Any] = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
PLAIN: dict[str, Any] = {"model": {"name": f"{OWN}:Plain"}, "optimizer": {"name": "adamw", "lr": 2e-3}}

Change = Callable[[Draft], None]


def nothing(draft: Draft) -> None:
    """Changes nothing."""


def of(change: Callable[[Rows], Rows], *splits: str) -> Change:
    """A change of the rows of these splits; of both by default."""

    def apply(draft: Draft) -> None:
        for name in splits or ("train", "validation"):
            setattr(draft, name, change(getattr(draft, name)))

    return apply


def some(rows: Rows, share: float) -> np.ndarray:
    return np.random.default_rng(len(rows)).permutation(len(rows))[: round(share * len(rows))]


def flipped(rows: Rows) -> Rows:
    labels, which = rows.labels.copy(), some(rows, 0.3)
    labels[which] = (labels[which] + np.random.default_rng(1).integers(1, 10, len(which))) % 10
    return replace(rows, labels=labels)


def blank(rows: Rows) -> Rows:
    images = rows.images.copy()
    images[some(rows, 0.4)] = 0
    return replace(rows, images=images)


def imbalanced(rows: Rows) -> Rows:
    most = np.flatnonzero(rows.labels == 0)
    few = [np.flatnonzero(rows.labels == label)[: max(1, len(most) // 50)] for label in range(1, 10)]
    return rows.take(np.concatenate([most, *few]))


def leaking(draft: Draft) -> None:
    draft.validation = draft.train.take(np.arange(len(draft.validation)))


def few_rows(draft: Draft) -> None:
    labels = draft.train.labels
    draft.train = draft.train.take(np.concatenate([np.flatnonzero(labels == each)[:6] for each in range(10)]))


def photographs(draft: Draft) -> None:
    rows = data_sets.load("cifar")
    known = np.flatnonzero(rows.labels < 4)
    four = replace(rows.take(known), classes=rows.classes[:4])
    draft.train, draft.validation = four.take(np.arange(240)), four.take(np.arange(240, 292))


def reordered(rows: Rows) -> Rows:
    return replace(rows, labels=np.random.default_rng(3).permutation(rows.labels))


@dataclass(frozen=True)
class Planted:
    """A run: what is changed of a sound one, and the first findings that are right for it."""

    right: str
    job: dict[str, Any] = field(default_factory=dict)
    change: Change = nothing


def optimizer(**options: Any) -> dict[str, Any]:
    return {"optimizer": options}


def augmented(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"augment": list(steps)}}


FINE = "healthy nothing_seen"
PLANTED: dict[str, Planted] = {
    "nothing": Planted(FINE),
    "last batch of 2 rows": Planted(FINE, change=of(lambda rows: rows.take(np.arange(64 * 20 + 2)), "train")),
    "dropout 0.9": Planted("too_regularised", {"model": {"dropout": 0.9}}),
    "rate gone to zero at once": Planted(
        "decayed_too_early", {"schedule": {"name": "step", "milestones": ["1step"], "gamma": 1e-5}}
    ),
    "augmentation far too strong": Planted(
        "too_regularised",
        augmented(
            {"name": "rand_augment", "operations": 10, "magnitude": 30},
            {"name": "erasing", "probability": 1.0, "smallest": 0.3, "largest": 0.6},
        ),
    ),
    "Adagrad at 0.001": Planted("rate_too_low too_short", optimizer(name="adagrad", lr=1e-3)),
    "Adadelta at 0.001": Planted("rate_too_low", optimizer(name="adadelta", lr=1e-3)),
    "ASGD at 0.001": Planted("rate_too_low too_short", optimizer(name="asgd", lr=1e-3)),
    "Adafactor at 0.001": Planted("rate_too_low too_short", optimizer(name="adafactor", lr=1e-3)),
    "AdamW, decay 100": Planted("too_regularised", optimizer(name="adamw", lr=1e-3, weight_decay=100.0)),
    "SGD, decay 0.1": Planted(f"too_regularised {FINE}", optimizer(**SGD, weight_decay=0.1)),
    "label smoothing 0.95": Planted("too_regularised", {"loss": {"label_smoothing": 0.95}}),
    "frozen body": Planted("frozen", {"model": {"name": f"{OWN}:Plain", "frozen": True}, **optimizer(**SGD)}),
    "detached body": Planted("frozen", {"model": {"name": f"{OWN}:Detached"}, **optimizer(**SGD)}),
    "30 % of training labels wrong": Planted("noisy_labels", change=of(flipped, "train")),
    "30 % of all labels wrong": Planted("noisy_labels overfitting", change=of(flipped)),
    "labels in random order": Planted("at_chance noisy_labels", change=of(reordered)),
    "40 % blank images": Planted("bad_inputs", change=of(blank)),
    "one image for all": Planted(
        "bad_inputs", change=of(lambda r: replace(r, images=np.repeat(r.images[:1], len(r), 0)))
    ),
    "50:1 imbalance": Planted("imbalanced", change=of(imbalanced)),
    "a class without training rows": Planted(
        "class_missing", change=of(lambda r: r.take(np.flatnonzero(r.labels != 3)), "train")
    ),
    "validation rows in training": Planted("leak", change=leaking),
    "inverted validation colours": Planted(
        "split_differs", change=of(lambda r: replace(r, images=255 - r.images), "validation")
    ),
    "dark validation images": Planted(
        "split_differs", change=of(lambda r: replace(r, images=r.images // 12), "validation")
    ),
    "validation labels off by one": Planted(
        "split_differs", change=of(lambda r: replace(r, labels=(r.labels + 1) % 10), "validation")
    ),
    "clip 1e-4": Planted("clipped", {"train": {"max_gradient_norm": 1e-4}}),
    "all weights zero": Planted(
        "not_learning bad_initialization", {**PLAIN, "model": {"name": f"{OWN}:Plain", "scale": 0.0}}
    ),
    "weights 0.3 times": Planted("bad_initialization", {**PLAIN, "model": {"name": f"{OWN}:Plain", "scale": 0.3}}),
    "weights 4 times": Planted(
        "bad_initialization diverged", {**PLAIN, "model": {"name": f"{OWN}:Plain", "scale": 4.0}}
    ),
    "batch norm that lags": Planted(
        "stale_statistics", {"model": {"name": f"{OWN}:Plain", "norm": 1e-3}, **optimizer(**SGD)}
    ),
    "width 1": Planted("underfitting too_short", {"model": {"width": 1}}),
    "rate 100 times too high": Planted("diverged", optimizer(**SGD | {"lr": 5.0})),
    "rate 3 without batch norm": Planted("diverged", {"model": {"norm": "none"}, **optimizer(**SGD | {"lr": 3.0})}),
    "rate 1,000 times too low": Planted("rate_too_low", optimizer(**SGD | {"lr": 5e-5})),
    "rate never decayed": Planted(
        "plateau oscillating diverged",
        {"schedule": {"name": "constant"}, **optimizer(**SGD | {"lr": 0.5, "weight_decay": 5e-3})},
    ),
    "momentum 0.995": Planted(
        "diverged oscillating", {"schedule": {"name": "constant"}, **optimizer(**SGD | {"momentum": 0.995})}
    ),
    "batches of 2": Planted(
        "oscillating diverged",
        {"schedule": {"name": "constant"}, **optimizer(**SGD), "train": {"batch_size": 2, "epochs": 4}},
    ),
    "one batch an epoch": Planted("too_short rate_too_low underfitting", {"train": {"batch_size": 1400, "epochs": 8}}),
    "3 epochs": Planted(
        "too_short rate_too_low",
        {"train": {"epochs": 3}, "schedule": {"name": "constant"}, **optimizer(**SGD | {"lr": 0.005})},
    ),
    "6 images a class": Planted("overfitting", {"train": {"epochs": 40, "batch_size": 16}}, few_rows),
    "240 photographs, 90 steps": Planted(
        "overfitting too_short too_little nothing_seen unclear",
        {"train": {"epochs": 12, "batch_size": 32}},
        photographs,
    ),
}


def drafted(planted: Planted) -> Draft:
    """The sound run on digits with its change."""
    rows = data_sets.load("digits")
    order = np.random.default_rng(41).permutation(len(rows))
    job: dict[str, Any] = {
        "kind": "train",
        "seed": 41,
        "data": {"augment": []},
        "model": {"name": "small_cnn", "width": 8, "norm": "batch"},
        "optimizer": dict(SGD),
        "schedule": {"name": "cosine", "warmup": "5%"},
        "train": {"epochs": 12, "batch_size": 64, "checkpoint": {"every": "100%"}},
    }
    for name, value in planted.job.items():
        whole = name in ("optimizer", "schedule") or "name" in value
        job[name] = value if whole else job.get(name, {}) | value
    draft = Draft(job, rows.take(order[:1400]), rows.take(order[1400:]))
    planted.change(draft)
    return draft


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What is said of runs with a planted fault.")
    parser.add_argument("--keep", type=Path, required=True, help="a folder for the runs; what it holds is only judged")
    parser.add_argument("--write", action="store_true", help="write planted.md beside this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = ["| planted | accuracy | said first | |", "|---|---|---|---|"]
    good = 0
    for name, planted in PLANTED.items():
        folder = options.keep / name.replace(" ", "_").replace(":", "_").replace("%", "percent")
        train_draft(drafted(planted), folder)
        curves = Curves.read(RunFolder.open(Folder.at(folder / "run")))
        first = diagnose(curves).first
        reached = np.nanmax(curves.epoch_column("validation_accuracy"), initial=0.0)
        right = first.name in planted.right.split()
        good += right
        said = f"{first.title} ({first.confidence})"
        worth = "right" if right else "silent" if first.name in SILENT else "wrong"
        lines.append(f"| {name} | {reached:.1%} | {said} | {worth} |")
        print(f"{name}: {worth}: {first.name} {first.summary}", file=sys.stderr, flush=True)
    text = "\n".join([*lines, "", f"{good} of {len(PLANTED)} are right."]) + "\n"
    print(text)
    if options.write:
        (HERE / "planted.md").write_text(f"# Planted faults\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
