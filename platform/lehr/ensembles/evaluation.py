"""The evaluation of an ensemble: every figure that its report shows, computed from its members' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lehr.calibration import Bin, calibration_error, reliability
from lehr.ensembles.combine import CombineBy, Floats, Labels, combine
from lehr.ensembles.metrics import (
    Difference,
    combine_cumulatively,
    disagreement,
    error,
    log_loss,
    paired_difference,
)


@dataclass(frozen=True)
class Outputs:
    """The outputs of all members, and of the baseline, on the rows of a split.

    Attributes:
        split: `validation` or `test`.
        labels: int [rows].
        logits: [members, rows, classes].
        baseline: [rows, classes], the logits of the network to compare with, or None.
    """

    split: str
    labels: Labels
    logits: Floats
    baseline: Floats | None = None


@dataclass(frozen=True)
class ModelMetrics:
    """One model on the evaluated rows: error and calibration error from 0 to 1, log loss in nats."""

    error: float
    log_loss: float
    calibration: float
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, probabilities: Floats, labels: Labels) -> ModelMetrics:
        """The metrics of class probabilities [rows, classes]."""
        bins = tuple(reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels))
        return cls(error(probabilities, labels), log_loss(probabilities, labels), calibration_error(bins), bins)


@dataclass(frozen=True)
class EnsembleEvaluation:
    """An ensemble on the rows that it is evaluated on.

    Attributes:
        names: the members' names.
        weights: [members].
        split: `test`, or `validation` where there is no test split.
        rows: the number of rows in that split.
        members: each member alone.
        ensemble: all members, with their weights.
        baseline: the network to compare with, or None.
        difference: the ensemble's error minus the baseline's, or None. gains: the same minus each member's.
        order: the order in which members are added for the figures below, as indices.
        cumulative: error of the first member in `order`, of the first two with equal weights, …
        cumulative_validation: the same on the validation rows, which the weights were chosen on.
        disagreement: [members, members], the share of rows that two members classify differently.
    """

    names: tuple[str, ...]
    weights: Floats
    split: str
    rows: int
    members: tuple[ModelMetrics, ...]
    ensemble: ModelMetrics
    baseline: ModelMetrics | None
    difference: Difference | None
    gains: tuple[Difference, ...]
    order: tuple[int, ...]
    cumulative: tuple[float, ...]
    cumulative_validation: tuple[float, ...]
    disagreement: Floats

    @property
    def used(self) -> int:
        """The number of members with a weight above zero."""
        return int((self.weights > 0).sum())

    @property
    def best_member(self) -> int:
        """The index of the member with the lowest error on these rows."""
        return min(range(len(self.members)), key=lambda m: self.members[m].error)


def evaluate_ensemble(
    names: Sequence[str],
    weights: Floats,
    by: CombineBy,
    validation: Outputs,
    evaluated: Outputs,
    *,
    last_first: bool,
) -> EnsembleEvaluation:
    """Evaluates an ensemble and its members.

    Args:
        names: the members' names.
        weights: [members], chosen on the validation rows.
        evaluated: the outputs on the test rows, or `validation` again where there is no test split.
        last_first: add members from the last one backwards, as snapshots are used.
    """
    combined = combine(evaluated.logits, weights, by)
    order = tuple(range(len(names)))[:: -1 if last_first else 1]
    alone = np.ones(1)
    baseline = None if evaluated.baseline is None else combine(evaluated.baseline[None], alone, by)

    def cumulative(outputs: Outputs) -> tuple[float, ...]:
        return tuple(error(each, outputs.labels) for each in combine_cumulatively(outputs.logits, order, by))

    single = [combine(one[None], alone, by) for one in evaluated.logits]
    return EnsembleEvaluation(
        names=tuple(names),
        weights=np.asarray(weights),
        split=evaluated.split,
        rows=len(evaluated.labels),
        members=tuple(ModelMetrics.of(each, evaluated.labels) for each in single),
        ensemble=ModelMetrics.of(combined, evaluated.labels),
        baseline=None if baseline is None else ModelMetrics.of(baseline, evaluated.labels),
        difference=None if baseline is None else paired_difference(combined, baseline, evaluated.labels),
        gains=tuple(paired_difference(combined, each, evaluated.labels) for each in single),
        order=order,
        cumulative=cumulative(evaluated),
        cumulative_validation=cumulative(validation),
        disagreement=disagreement(evaluated.logits),
    )
