"""Ensembles where a row has no one class: members' probabilities of several classes, or numbers, are averaged.

How far a prediction is from the truth says the task, a number for each row: the members' weights are chosen by its mean
over validation rows, and two models are compared by its difference row by row. Pure functions of the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lehr.ensembles.combine import Floats

MAX_ROUNDS = 50

Distance = Callable[[Floats], Floats]
"""From the values [rows, names] of a model to how far each row is from the truth [rows]."""


def weights_of(values: Floats, distance: Distance, selection: str, last: int | None = None) -> Floats:
    """The members' weights, float64 [members], that sum to one.

    Args:
        values: [members, rows, names], on validation rows.
        selection: equal, best, last or greedy, as `lehr.ensembles.selection` has them for classes.
        last: equal weights for so many of the last members, whatever the selection.
    """
    count = len(values)
    if last is not None:
        last = min(last, count)
        return np.r_[np.zeros(count - last), np.full(last, 1 / last)]
    if selection == "equal":
        return np.full(count, 1 / count)
    if selection == "best":
        return np.eye(count)[int(np.argmin([distance(each).mean() for each in values]))]
    if selection == "last":
        totals = values[::-1].cumsum(axis=0)
        m = 1 + int(np.argmin([distance(total / (k + 1)).mean() for k, total in enumerate(totals)]))
        return np.r_[np.zeros(count - m), np.full(m, 1 / m)]
    return _greedy(values, distance)


def _greedy(values: Floats, distance: Distance) -> Floats:
    """Caruana et al., "Ensemble selection from libraries of models", 2004, by the mean distance."""
    bag, total, bags = np.zeros(len(values)), np.zeros(values.shape[1:]), []
    for size in range(1, MAX_ROUNDS + 1):
        scores = [float(distance((total + one) / size).mean()) for one in values]
        new = int(np.argmin(scores))
        bag, total = bag + np.eye(len(values))[new], total + values[new]
        bags.append((scores[new], bag / size))
    return min(bags, key=lambda found: found[0])[1]


def combined(values: Floats, weights: Floats) -> Floats:
    """The weighted mean over the members: [rows, names]."""
    return np.tensordot(np.asarray(weights) / np.sum(weights), np.asarray(values, np.float64), axes=1)


@dataclass(frozen=True)
class ValuesEvaluation:
    """An ensemble on the rows that it is evaluated on.

    Attributes:
        names, weights: of the members.
        split: `test`, or `validation` where there is no test split; rows: how many there are.
        members: the metrics of each member alone; ensemble: of all, with their weights; baseline: of the network to
            compare with, or None.
        gain, error: by how much the mean distance of the ensemble is below that of the baseline, and its standard
            error; NaN without a baseline.
    """

    names: tuple[str, ...]
    weights: Floats
    split: str
    rows: int
    members: tuple[Mapping[str, float], ...]
    ensemble: Mapping[str, float]
    baseline: Mapping[str, float] | None
    gain: float
    error: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "weights": self.weights.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ValuesEvaluation:
        """Raises KeyError, TypeError or ValueError where `value` is no evaluation."""
        members = tuple(_figures(each) for each in value["members"])
        found = cls(
            names=tuple(map(str, value["names"])),
            weights=np.array([float(each) for each in value["weights"]]),
            split=str(value["split"]),
            rows=int(value["rows"]),
            members=members,
            ensemble=_figures(value["ensemble"]),
            baseline=None if value["baseline"] is None else _figures(value["baseline"]),
            gain=float(value["gain"]),
            error=float(value["error"]),
        )
        known = [found.ensemble, *members, *([found.baseline] if found.baseline else [])]
        if len({len(found.names), len(found.weights), len(members)}) > 1 or len({tuple(each) for each in known}) > 1:
            raise ValueError("its members differ in number, or in what was measured")
        return found

    @property
    def used(self) -> int:
        """The number of members with a weight above zero."""
        return int((self.weights > 0).sum())

    @property
    def clear(self) -> bool:
        """Whether the gain is more than two standard errors from zero."""
        return abs(self.gain) > 2 * self.error


def _figures(value: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(each) for name, each in value.items()}


def evaluate_values(
    names: Sequence[str],
    weights: Floats,
    split: str,
    values: Floats,
    baseline: Floats | None,
    measure: Callable[[Floats], Mapping[str, float]],
    distance: Distance,
) -> ValuesEvaluation:
    """Evaluates an ensemble and its members.

    Args:
        values: [members, rows, names]. baseline: [rows, names], or None.
        measure: from the values of a model to its metrics.
    """
    whole = combined(values, weights)
    gain, error = math.nan, math.nan
    if baseline is not None:
        apart = distance(baseline) - distance(whole)
        gain, error = float(apart.mean()), float(apart.std() / math.sqrt(max(1, len(apart) - 1)))
    return ValuesEvaluation(
        names=tuple(names),
        weights=np.asarray(weights),
        split=split,
        rows=len(whole),
        members=tuple(measure(np.asarray(each, np.float64)) for each in values),
        ensemble=measure(whole),
        baseline=None if baseline is None else measure(np.asarray(baseline, np.float64)),
        gain=gain,
        error=error,
    )
