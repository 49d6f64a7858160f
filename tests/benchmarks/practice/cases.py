"""Which cases there are: drawn from a seed, those for development apart from those that are reported."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator

from tests.benchmarks.practice import data_sets
from tests.benchmarks.practice.faults import FAULTS, UNFINISHED, Draft, Fault, log_uniform

Split = Literal["develop", "report"]
SOUND = {"develop": 1 / 2, "report": 1 / 3}
"""Share of the cases without a fault."""
NEVER_SEEN = frozenset({"heavy_momentum", "huge_batch", "label_smoothing", "darker_validation", "missing_class"})
"""Faults without a case for development."""

OWN = "tests.benchmarks.practice.networks"
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cnn": ({"name": "small_cnn", "width": 8, "norm": "batch"}, {"name": "sgd", "lr": 0.05, "momentum": 0.9}),
    "groups": ({"name": "small_cnn", "width": 8, "norm": "group"}, {"name": "adam", "lr": 3e-3}),
    "residual": ({"name": "cifar_resnet", "depth": 8, "width": 8}, {"name": "sgd", "lr": 0.1, "momentum": 0.9}),
    "plain": ({"name": f"{OWN}:Plain"}, {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01}),
    "perceptron": ({"name": f"{OWN}:Perceptron"}, {"name": "adam", "lr": 1e-3}),
    "transformer": ({"name": f"{OWN}:Transformer"}, {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01}),
}
"""Kinds of network, each with an optimizer that suits it."""


@dataclass(frozen=True)
class Case:
    """A case: what is drawn decides everything but the seed of the training."""

    number: int
    seed: int
    data: str
    network: str
    fault: str

    @property
    def label(self) -> str:
        return f"{self.fault or 'sound'}, {self.network} on {self.data}"


def split_of(fault: str, data: str) -> Split:
    """Where the cases of a fault on a data set belong."""
    if fault in NEVER_SEEN:
        return "report"
    if data in data_sets.FOR_DEVELOPMENT:
        return "develop"
    return "report" if hashlib.sha256(f"{fault} {data}".encode()).digest()[0] % 2 else "develop"


def draw_cases(split: Split, count: int, seed: int) -> list[Case]:
    """So many cases of a split. The seed of a report is its date, as in 20261201."""
    draw = np.random.default_rng([seed, split == "report"])
    known = data_sets.available()
    known += data_sets.available(data_sets.FOR_DEVELOPMENT) if split == "develop" else []
    faulty = [(name, data) for name in FAULTS for data in known if split_of(name, data) == split]
    sound = [("", data) for data in known]
    cases = []
    for number in range(count):
        some = sound if draw.random() < SOUND[split] else faulty
        fault, data = some[draw.integers(len(some))]
        kinds = (FAULTS[fault].networks if fault else ()) or tuple(NETWORKS)
        cases.append(Case(number, int(draw.integers(2**31)), data, str(draw.choice(kinds)), fault))
    return cases


def draft(case: Case) -> tuple[Draft, Draft, Fault]:
    """The case, its twin, and the fault: the twin has no fault; that of a sound run is three times as long."""
    drawn, twin, fault = _sound(case), _sound(case), FAULTS.get(case.fault, UNFINISHED)
    if case.fault:
        fault.change(drawn, np.random.default_rng([case.seed, 1]))
    else:
        twin.job["train"]["epochs"] *= 3
    return drawn, twin, fault


def _sound(case: Case) -> Draft:
    return _wide(case) if case.data in data_sets.FOR_DEVELOPMENT else _usual(case)


def _usual(case: Case) -> Draft:
    """A sound run as reports have them."""
    draw = np.random.default_rng([case.seed, 0])
    rows = data_sets.load(case.data)
    count, held = int(log_uniform(draw, 120, 1600)), int(log_uniform(draw, 60, 500))
    rarest, noise = (float(draw.uniform(*span)) if draw.random() < 0.3 else None for span in ((0.25, 0.8), (5, 25)))
    chosen = data_sets.draw_rows(rows, count + held, draw, rarest or 1.0)
    held = max(40, len(chosen) - count)  # a small data set leaves fewer rows to train on
    rows = rows.take(chosen)
    rows = data_sets.with_noise(rows, noise, draw) if noise else rows
    train, validation = rows.take(np.arange(len(rows) - held)), rows.take(np.arange(len(rows) - held, len(rows)))
    model, optimizer = NETWORKS[case.network]
    job = {
        "kind": "train",
        "seed": int(draw.integers(1000)),
        "data": {"augment": _augment(draw)},
        "model": dict(model),
        "optimizer": dict(optimizer),
        "schedule": {"name": str(draw.choice(["cosine", "linear", "wsd"])), "warmup": "5%"},
        "train": {
            "epochs": int(log_uniform(draw, 6, 26)),
            "batch_size": int(draw.choice([32, 64])),
            "checkpoint": {"every": "100%"},
        },
    }
    return Draft(job, train, validation)


def _wide(case: Case) -> Draft:
    """A sound run as people have them: few rows or many, three epochs or forty, a rate that is not the best."""
    draw = np.random.default_rng([case.seed, 0])
    rows = data_sets.load(case.data)
    count, held = int(log_uniform(draw, 60, 1200)), int(log_uniform(draw, 40, 500))
    rarest = float(draw.uniform(0.2, 0.8)) if draw.random() < 0.3 else 1.0
    chosen = data_sets.draw_rows(rows, count + held, draw, rarest)
    held = min(max(40, len(chosen) - count), len(chosen) // 2)
    rows = rows.take(chosen)
    train, validation = rows.take(np.arange(len(rows) - held)), rows.take(np.arange(len(rows) - held, len(rows)))
    model, optimizer = NETWORKS[case.network]
    rate = float(f"{optimizer['lr'] * log_uniform(draw, 0.4, 2.5):.2g}")
    schedule = str(draw.choice(["constant", "cosine", "linear", "wsd", "one_cycle", "step"]))
    warmup = {"warmup": str(draw.choice(["0%", "5%", "10%"]))} if schedule != "one_cycle" else {}
    job = {
        "kind": "train",
        "seed": int(draw.integers(1000)),
        "data": {"augment": _augment(draw)},
        "model": dict(model),
        "optimizer": optimizer | {"lr": rate},
        "schedule": {"name": schedule, **warmup},
        "loss": {"label_smoothing": float(draw.choice([0.0, 0.0, 0.1]))},
        "train": {
            "epochs": int(min(log_uniform(draw, 3, 41), max(5, 6000 / count))),
            "batch_size": int(draw.choice([16, 32, 64, 128])),
            "checkpoint": {"every": "100%"},
        },
    }
    return Draft(job, train, validation)


def _augment(draw: Generator) -> list[dict[str, Any]]:
    return [{"name": "shift", "pixels": 1}] if draw.random() < 0.3 else []
