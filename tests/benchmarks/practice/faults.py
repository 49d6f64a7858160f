"""Faults with a drawn strength: what each changes, and which first findings are right or acceptable for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.benchmarks.practice.data_sets import Rows


@dataclass
class Draft:
    """A case in the making: a sound run until a fault changes it.

    Attributes:
        job: the job without its data, as a tree.
        train, validation: its rows.
    """

    job: dict[str, Any]
    train: Rows
    validation: Rows

    @property
    def lr(self) -> float:
        return float(self.job["optimizer"]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self.job["optimizer"]["lr"] = float(f"{value:.3g}")


Change = Callable[[Draft, Generator], None]


@dataclass(frozen=True)
class Fault:
    """A fault, and how a verdict on it is judged.

    Attributes:
        change: makes a sound draft a faulty one.
        right: names of findings that name it.
        acceptable: names of findings whose advice also leads to it.
        networks: kinds of network that can have it; empty for all.
        always: whether it is a fault even where it costs no accuracy.
    """

    name: str
    change: Change
    right: frozenset[str]
    acceptable: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    always: bool = False


FAULTS: dict[str, Fault] = {}


def fault(right: str, acceptable: str = "", networks: str = "", *, always: bool = False) -> Callable[[Change], Change]:
    """Registers a change under its function's name. The names of findings and networks are separated by spaces."""

    def register(change: Change) -> Change:
        FAULTS[change.__name__] = Fault(
            change.__name__,
            change,
            frozenset(right.split()),
            frozenset(acceptable.split()),
            tuple(networks.split()),
            always,
        )
        return change

    return register


def nothing(draft: Draft, draw: Generator) -> None:
    """Changes nothing."""


UNFINISHED = Fault("unfinished", nothing, frozenset({"too_short", "rate_too_low"}), frozenset({"underfitting"}))
"""What is wrong with a run without a fault that three times as many epochs make much better."""


def log_uniform(draw: Generator, low: float, high: float) -> float:
    return float(math.exp(draw.uniform(math.log(low), math.log(high))))


# ── the learning rate and the optimizer ─────────────────────────────────────────────────────────────────────────────


@fault("diverged", "oscillating plateau")
def rate_too_high(draft: Draft, draw: Generator) -> None:
    draft.lr *= log_uniform(draw, 30, 300)


@fault("rate_too_low", "not_learning too_short")
def rate_too_low(draft: Draft, draw: Generator) -> None:
    draft.lr /= log_uniform(draw, 100, 3000)


@fault("decayed_too_early", "rate_too_low")
def decayed_at_once(draft: Draft, draw: Generator) -> None:
    share = f"{draw.integers(2, 8)}%"
    draft.job["schedule"] = {"name": "step", "milestones": [share], "gamma": 0.001}


@fault("clipped", "rate_too_low not_learning too_short")
def clipped(draft: Draft, draw: Generator) -> None:
    draft.job["train"]["max_gradient_norm"] = log_uniform(draw, 1e-5, 1e-3)
    draft.job["optimizer"] = {"name": "sgd", "lr": 0.05, "momentum": 0.9}


@fault("too_regularised", "underfitting plateau")
def weight_decay(draft: Draft, draw: Generator) -> None:
    draft.job["optimizer"] = {"name": "adamw", "lr": 1e-3, "weight_decay": log_uniform(draw, 20, 200)}


@fault("too_regularised", "underfitting plateau not_learning at_chance")
def weight_decay_of_sgd(draft: Draft, draw: Generator) -> None:
    draft.job["optimizer"] = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": log_uniform(draw, 0.03, 0.3)}


@fault("diverged oscillating", "plateau")
def heavy_momentum(draft: Draft, draw: Generator) -> None:
    draft.job["optimizer"] = {"name": "sgd", "lr": 0.05, "momentum": 0.995}
    draft.job["schedule"] = {"name": "constant"}


@fault("oscillating diverged", "plateau")
def tiny_batch(draft: Draft, draw: Generator) -> None:
    draft.job["train"]["batch_size"] = int(draw.integers(2, 4))
    draft.job["train"]["epochs"] = min(5, draft.job["train"]["epochs"])
    draft.job["optimizer"] = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    draft.job["schedule"] = {"name": "constant"}


@fault("too_short rate_too_low", "underfitting")
def huge_batch(draft: Draft, draw: Generator) -> None:
    draft.job["train"]["batch_size"] = len(draft.train)
    draft.job["train"]["epochs"] = 10


@fault("rate_too_low", "too_short not_learning")
def default_rate_of_an_adaptive(draft: Draft, draw: Generator) -> None:
    draft.job["optimizer"] = {"name": str(draw.choice(["adagrad", "adadelta"])), "lr": 1e-3}


@fault("plateau oscillating", "diverged")
def never_decayed(draft: Draft, draw: Generator) -> None:
    draft.job["optimizer"] = {"name": "sgd", "lr": log_uniform(draw, 0.2, 0.5), "momentum": 0.9, "weight_decay": 5e-3}
    draft.job["schedule"] = {"name": "constant"}
    draft.job["train"]["batch_size"] = 32


@fault("too_short", "rate_too_low")
def too_short(draft: Draft, draw: Generator) -> None:
    draft.job["train"]["epochs"] = int(draw.integers(3, 6))
    draft.lr /= log_uniform(draw, 5, 15)
    draft.job["schedule"] = {"name": "constant"}


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────


@fault("frozen", "underfitting", "plain perceptron transformer")
def frozen_body(draft: Draft, draw: Generator) -> None:
    draft.job["model"]["frozen"] = True


@fault("not_learning bad_initialization", "frozen", "plain")
def no_weights(draft: Draft, draw: Generator) -> None:
    draft.job["model"]["scale"] = float(draw.choice([0.0, 0.001, 0.01]))


@fault("bad_initialization", "not_learning rate_too_low", "plain")
def small_weights(draft: Draft, draw: Generator) -> None:
    draft.job["model"]["scale"] = float(draw.uniform(0.25, 0.5))


@fault("bad_initialization diverged", "oscillating at_chance", "plain")
def large_weights(draft: Draft, draw: Generator) -> None:
    draft.job["model"]["scale"] = float(draw.uniform(2.5, 6))


@fault("stale_statistics", "split_differs", "plain")
def lagging_statistics(draft: Draft, draw: Generator) -> None:
    draft.job["model"]["norm"] = log_uniform(draw, 5e-4, 4e-3)


@fault("underfitting", "too_short", "cnn plain")
def too_small(draft: Draft, draw: Generator) -> None:
    draft.job["model"]["width"] = int(draw.integers(1, 3))


# ── regularisation ──────────────────────────────────────────────────────────────────────────────────────────────────


@fault("too_regularised", "underfitting too_short", "cnn groups")
def dropout(draft: Draft, draw: Generator) -> None:
    draft.job["model"]["dropout"] = float(draw.uniform(0.85, 0.97))


@fault("too_regularised", "underfitting")
def label_smoothing(draft: Draft, draw: Generator) -> None:
    draft.job["loss"] = {"label_smoothing": float(draw.uniform(0.85, 0.98))}


@fault("too_regularised", "underfitting too_short")
def augmentation(draft: Draft, draw: Generator) -> None:
    strong = {"name": "rand_augment", "operations": int(draw.integers(6, 12)), "magnitude": 30}
    erasing = {"name": "erasing", "probability": 1.0, "smallest": 0.3, "largest": 0.6}
    draft.job["data"]["augment"] = [strong, erasing]


@fault("overfitting", "too_few_images")
def few_images(draft: Draft, draw: Generator) -> None:
    rows = np.concatenate(
        [np.flatnonzero(draft.train.labels == label)[: draw.integers(4, 10)] for label in set(draft.train.labels)]
    )
    draft.train = draft.train.take(rows)
    draft.job["train"] |= {"epochs": 40, "batch_size": 16}
    draft.job["optimizer"]["weight_decay"] = 0.0


# ── the data ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _changed(rows: Rows, share: float, draw: Generator, change: Callable[[Rows, np.ndarray], Rows]) -> Rows:
    return change(rows, draw.permutation(len(rows))[: round(share * len(rows))])


def _with_labels(rows: Rows, some: np.ndarray, draw: Generator) -> Rows:
    labels = rows.labels.copy()
    labels[some] = (labels[some] + draw.integers(1, len(rows.classes), len(some))) % len(rows.classes)
    return replace(rows, labels=labels)


def _blank(rows: Rows, some: np.ndarray) -> Rows:
    images = rows.images.copy()
    images[some] = 0
    return replace(rows, images=images)


@fault("at_chance noisy_labels", "overfitting", always=True)
def shuffled_labels(draft: Draft, draw: Generator) -> None:
    for name in ("train", "validation"):
        rows: Rows = getattr(draft, name)
        setattr(draft, name, replace(rows, labels=draw.permutation(rows.labels)))


@fault("noisy_labels", "overfitting at_chance", always=True)
def flipped_labels(draft: Draft, draw: Generator) -> None:
    share = draw.uniform(0.25, 0.5)
    for name in ("train", "validation"):
        rows: Rows = getattr(draft, name)
        setattr(draft, name, _changed(rows, share, draw, lambda r, some: _with_labels(r, some, draw)))


@fault("noisy_labels", "overfitting at_chance", always=True)
def flipped_training_labels(draft: Draft, draw: Generator) -> None:
    share = draw.uniform(0.3, 0.6)
    draft.train = _changed(draft.train, share, draw, lambda r, some: _with_labels(r, some, draw))


@fault("split_differs", "wrong_validation_labels", always=True)
def shifted_validation_labels(draft: Draft, draw: Generator) -> None:
    rows = draft.validation
    step = int(draw.integers(1, len(rows.classes)))
    draft.validation = replace(rows, labels=(rows.labels + step) % len(rows.classes))


@fault("split_differs", "overfitting")
def inverted_validation(draft: Draft, draw: Generator) -> None:
    draft.validation = replace(draft.validation, images=255 - draft.validation.images)


@fault("split_differs", "overfitting")
def darker_validation(draft: Draft, draw: Generator) -> None:
    factor = draw.uniform(0.05, 0.3)
    draft.validation = replace(draft.validation, images=(draft.validation.images * factor).astype(np.uint8))


@fault("bad_inputs", "", always=True)
def blank_images(draft: Draft, draw: Generator) -> None:
    share = draw.uniform(0.25, 0.6)
    draft.train, draft.validation = (_changed(r, share, draw, _blank) for r in (draft.train, draft.validation))


@fault("bad_inputs", "at_chance not_learning", always=True)
def one_image_for_all(draft: Draft, draw: Generator) -> None:
    for name in ("train", "validation"):
        rows: Rows = getattr(draft, name)
        setattr(draft, name, replace(rows, images=np.repeat(rows.images[:1], len(rows), axis=0)))


@fault("imbalanced", "", always=True)
def imbalance(draft: Draft, draw: Generator) -> None:
    ratio = draw.uniform(30, 80)
    for name in ("train", "validation"):
        rows: Rows = getattr(draft, name)
        keep = [np.flatnonzero(rows.labels == 0)]
        keep += [
            np.flatnonzero(rows.labels == label)[: max(1, round(len(keep[0]) / ratio))]
            for label in range(1, len(rows.classes))
        ]
        setattr(draft, name, rows.take(draw.permutation(np.concatenate(keep))))


@fault("imbalanced", "split_differs class_missing", always=True)
def missing_class(draft: Draft, draw: Generator) -> None:
    draft.train = draft.train.take(np.flatnonzero(draft.train.labels != draw.integers(len(draft.train.classes))))


@fault("leak", "", always=True)
def leak(draft: Draft, draw: Generator) -> None:
    share = draw.uniform(0.5, 1.0)
    count = round(share * len(draft.validation))
    copied = draft.train.take(draw.choice(len(draft.train), count))
    kept = draft.validation.take(np.arange(count, len(draft.validation)))
    both = [np.concatenate(pair) for pair in ((copied.images, kept.images), (copied.labels, kept.labels))]
    draft.validation = replace(draft.validation, images=both[0], labels=both[1])
