"""Whether a verdict is right, acceptable, silent or wrong, and what many verdicts come to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lehr.curves.findings import Confidence, Finding
from tests.benchmarks.practice.faults import UNFINISHED, Fault

Judgement = Literal["right", "acceptable", "silent", "wrong", "sound", "alarm"]

SILENT = {"too_little", "unclear", "nothing_seen"}
"""Verdicts that claim nothing about the run."""
FINE = {"healthy", *SILENT}
HARM = 0.03  # accuracy that a fault must cost, and three standard errors of the difference
GAP = 0.1  # between training and validation, from which on it is true that a network overfits


@dataclass(frozen=True)
class Verdict:
    """What was said of a case, and what it was worth.

    Attributes:
        accuracy, twin: best validation accuracy with and without the fault.
        gap: accuracy on training rows minus that on validation rows, at the end.
        rows: validation rows.
        linear: accuracy of a linear model on validation rows, 0 where none was fitted.
    """

    label: str
    fault: Fault
    first: Finding
    accuracy: float
    twin: float
    gap: float
    rows: int
    linear: float = 0.0

    @property
    def is_faulty(self) -> bool:
        """Whether something is wrong: a fault that costs accuracy, or one that is one even if it does not."""
        error = math.sqrt(sum(p * (1 - p) / self.rows for p in (self.accuracy, self.twin)))
        return self.fault.always or self.twin - self.accuracy > max(HARM, 3 * error)

    @property
    def judgement(self) -> Judgement:
        name = self.first.name
        if not self.is_faulty:
            return "sound" if name in FINE or self._is_true(name) else "alarm"
        if name in self.fault.right:
            return "right"
        if name in self.fault.acceptable:
            return "acceptable"
        return "silent" if name in SILENT else "wrong"

    def _is_true(self, name: str) -> bool:
        """Whether a finding holds of a run that no fault made worse.

        A sound run may overfit, or be beaten by a linear model; one that is unfinished may gain from more epochs, if
        too little to be sure of it; and a fault without harm may be named.
        """
        if self.fault is not UNFINISHED and name in self.fault.right | self.fault.acceptable:
            return True
        if name == "overfitting":
            return self.gap > GAP
        if name == "underfitting":
            return self.linear > self.accuracy + 3 * math.sqrt(max(self.linear * (1 - self.linear), 0.01) / self.rows)
        return self.fault is UNFINISHED and name == "too_short" and self.twin - self.accuracy > HARM

    @property
    def is_confident(self) -> bool:
        """Whether it was said with high confidence, or that all is well with more than low."""
        return self.first.confidence == "high" or (self.first.name == "healthy" and self.first.confidence != "low")


def interval(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson, "Probable inference …", 1927."""
    if not of:
        return 0.0, 1.0
    z, p = 1.96, count / of
    middle, spread = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = ((middle + side) / (1 + z * z / of) for side in (-spread, spread))
    return max(0.0, low), min(1.0, high)


def share(count: int, of: int) -> str:
    """`12 of 40 (30 %, 18 to 46 %)`."""
    low, high = interval(count, of)
    return f"{count} of {of} ({count / of:.0%}, {low:.0%} to {high:.0%})" if of else "none"


def summary(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """The rows of the table: what, and how many with their interval."""
    faulty, sound = [v for v in verdicts if v.is_faulty], [v for v in verdicts if not v.is_faulty]
    kinds = [(kind, [v for v in faulty if v.judgement == kind]) for kind in ("right", "acceptable", "silent", "wrong")]
    good = sum(len(found) for kind, found in kinds if kind in ("right", "acceptable"))
    wrong = [v for v in faulty if v.judgement == "wrong"]
    alarms = [v for v in sound if v.judgement == "alarm"]
    return [
        ("right or acceptable", share(good, len(faulty))),
        *((kind, share(len(found), len(faulty))) for kind, found in kinds),
        ("wrong with confidence", share(sum(v.is_confident for v in wrong), len(faulty))),
        ("alarm on a sound run", share(len(alarms), len(sound))),
        *calibration(verdicts),
    ]


def calibration(verdicts: Iterable[Verdict]) -> list[tuple[str, str]]:
    """How often a finding of each confidence was right or acceptable."""
    levels: dict[Confidence, list[bool]] = {"high": [], "medium": [], "low": []}
    for each in verdicts:
        if each.first.name not in SILENT:
            levels[each.first.confidence].append(each.judgement in ("right", "acceptable", "sound"))
    return [(f"holds, of those said with {level} confidence", share(sum(v), len(v))) for level, v in levels.items()]
