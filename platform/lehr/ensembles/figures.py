"""All figures of an ensemble, worked out from its members' outputs, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lehr.ensembles.calibration import Bin, expected_calibration_error, reliability
from lehr.ensembles.combine import By, Floats, combine
from lehr.ensembles.measures import (
    Difference,
    as_members_are_added,
    disagreement,
    error,
    log_loss,
    paired_difference,
)

SHORT_CYCLE = 40  # epochs; the paper's gains come from cycles of 40 and more


@dataclass(frozen=True)
class Outputs:
    """What members, and one network to compare with, said of some rows.

    Attributes:
        split: which rows: `validation` or `test`.
        labels: int [rows].
        logits: [members, rows, classes].
        single: [rows, classes], the logits of the network to compare with, or None.
    """

    split: str
    labels: np.ndarray
    logits: Floats
    single: Floats | None = None


@dataclass(frozen=True)
class Model:
    """One model on the rows: its error and calibration error from 0 to 1, its log loss in nats."""

    error: float
    log_loss: float
    calibration: float
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, probabilities: Floats, labels: np.ndarray) -> Model:
        bins = tuple(reliability(probabilities, labels))
        calibration = expected_calibration_error(probabilities, labels)
        return cls(error(probabilities, labels), log_loss(probabilities, labels), calibration, bins)


@dataclass(frozen=True)
class Figures:
    """An ensemble on the rows that it is judged by.

    Attributes:
        names: of the members.
        weights: [members].
        split: the rows it is judged by: `test`, or `validation` where there is no test split.
        rows: how many they are.
        members: each member alone.
        ensemble: the members with their weights.
        single: the one network to compare with, or None.
        difference: error of the ensemble less error of the single network, or None.
        order: the members in the order in which they are added, as indices.
        added: error of the first one of them, of the first two with equal weights, …
        added_validation: the same on the validation rows, where the choice was made.
        disagreement: [members, members], the share of rows put into different classes.
    """

    names: tuple[str, ...]
    weights: Floats
    split: str
    rows: int
    members: tuple[Model, ...]
    ensemble: Model
    single: Model | None
    difference: Difference | None
    order: tuple[int, ...]
    added: tuple[float, ...]
    added_validation: tuple[float, ...]
    disagreement: Floats

    @property
    def used(self) -> int:
        """How many members have a weight."""
        return int((self.weights > 0).sum())

    @property
    def best_member(self) -> int:
        """The member with the lowest error on these rows."""
        return min(range(len(self.members)), key=lambda m: self.members[m].error)


def figures(
    names: Sequence[str], weights: Floats, by: By, validation: Outputs, judged: Outputs, *, backwards: bool
) -> Figures:
    """Works all figures out.

    Args:
        weights: [members], chosen on the validation rows.
        judged: the test rows, or the validation rows again where there are none.
        backwards: whether members are added from the last one on, as snapshots are.
    """
    together = combine(judged.logits, weights, by)
    order = tuple(range(len(names)))[:: -1 if backwards else 1]
    alone = np.ones(1)
    single = None if judged.single is None else combine(judged.single[None], alone, by)
    return Figures(
        names=tuple(names),
        weights=np.asarray(weights),
        split=judged.split,
        rows=len(judged.labels),
        members=tuple(Model.of(combine(one[None], alone, by), judged.labels) for one in judged.logits),
        ensemble=Model.of(together, judged.labels),
        single=None if single is None else Model.of(single, judged.labels),
        difference=None if single is None else paired_difference(together, single, judged.labels),
        order=order,
        added=tuple(error(p, judged.labels) for p in as_members_are_added(judged.logits, order, by)),
        added_validation=tuple(error(p, validation.labels) for p in as_members_are_added(validation.logits, order, by)),
        disagreement=disagreement(judged.logits),
    )


def verdict(found: Figures, method: str, cycle_epochs: float | None = None) -> list[str]:
    """What the figures say, in sentences: the first is the short answer.

    Args:
        cycle_epochs: epochs of the shortest cycle, for snapshots.
    """
    kind = {"snapshot": "snapshot", "independent": "member", "average": "set of weights"}[method]
    which = "the last" if method == "snapshot" and found.used < len(found.names) else "the"
    if found.used == 1:
        named = found.names[int(found.weights.argmax())]
        who = "The last snapshot alone" if which == "the last" and found.weights[-1] > 0 else f"{named} alone"
    else:
        many = f"all {found.used}" if found.used == len(found.names) else f"{which} {found.used} of {len(found.names)}"
        plural = "sets of weights" if kind == "set of weights" else f"{kind}s"
        who = f"{many[:1].upper()}{many[1:]} {plural} together"
    said = [f"{who}: {found.ensemble.error:.2%} error on {found.rows:,} {found.split} rows"]
    if found.single is None or found.difference is None:
        best = found.members[found.best_member]
        said[0] += f"; the best of them alone has {best.error:.2%}."
        return said
    points, spread = 100 * found.difference.mean, 200 * found.difference.standard_error
    reference = (
        "the raw weights" if method == "average" else "one network trained for as many epochs with a single cosine"
    )
    better = "better" if points < 0 else "worse"
    said[0] += f"; {reference}: {found.single.error:.2%}."
    size = f"{abs(points):.2f} points {better} (± {spread:.2f}, two standard errors)"
    if found.difference == Difference(0.0, 0.0):
        said.append("Both say the same of every row: nothing was gained.")
    elif not found.difference.clear:
        said.append(f"The ensemble is {size}: on so many rows that is no clear difference.")
    elif points < 0:
        said.append(f"The ensemble is {size}, at the same training budget.")
    else:
        said.append(f"The ensemble is {size}, at the same training budget: here it is the wrong choice.")
    short = cycle_epochs is not None and cycle_epochs < SHORT_CYCLE
    if method == "snapshot" and short and points >= 0:
        said.append(
            f"Cycles of {cycle_epochs:g} epochs are short: each snapshot has to come near to convergence, as in the "
            f"cycles of {SHORT_CYCLE} epochs and more that the published gains were measured with. Take fewer and "
            "longer cycles, or the single network."
        )
    if method == "independent" and points >= 0:
        said.append(
            "Each member had only its share of the budget; with the whole budget for each, independent members gain."
        )
    if found.split == "validation":
        said.append(
            "There is no test split: the same rows chose the weights, so these figures flatter the ensemble a little."
        )
    return said
