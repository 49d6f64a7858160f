"""What the curves of a log say, and what nobody can say of them because it was not recorded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from lehr.curves.alternatives import alternatives_of
from lehr.curves.findings import Confidence, Finding
from lehr.other_tools.log import LEARNING_RATE, TRAIN_LOSS, VALIDATION_LOSS, Log, Meaning
from lehr.other_tools.rules import FATAL, RULES, Judged, nothing_wrong, too_little
from lehr.other_tools.signals import Signals


@dataclass(frozen=True)
class Verdict:
    """What a log shows.

    Attributes:
        judged: the findings, the most urgent first. There is always one.
        untold: what could not be judged, each with what would have to be recorded.
    """

    log: Log
    judged: tuple[Judged, ...]
    untold: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "log": self.log.name,
            "tool": self.log.tool,
            "read_as": {str(meaning): curve.column for meaning, curve in self.log.curves.items()},
            "not_understood": list(self.log.unknown),
            "findings": [
                each.finding.to_json() | {"from": each.begin, "to": each.end, "axis": self.log.axis}
                for each in self.judged
            ],
            "not_judged": list(self.untold),
        }


def diagnose_log(log: Log) -> Verdict:
    """What the curves show, the most urgent finding first."""
    s = Signals(log)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of NaN, which diverged curves hold
        return Verdict(log, _judged(s), _untold(log))


def others(found: Finding) -> str:
    """What else the same curves could mean, in a sentence; empty where nothing is known."""
    known = [each.what for each in alternatives_of(found.name)[:MOST_OTHERS]]
    return f"Could also be: {'; '.join(known)}." if known else ""


MOST_OTHERS = 4


def _judged(s: Signals) -> tuple[Judged, ...]:
    fatal = next((judged for rule in FATAL if (judged := rule(s))), None)
    if fatal:
        return (fatal,)
    if s.is_short:
        return (too_little(s),)
    found: dict[str, Judged] = {}
    for rule in RULES:
        if judged := rule(s):
            found.setdefault(judged.finding.name, judged)
    for name, other in INSTEAD:
        if name in found:
            found.pop(other, None)
    ranked = sorted(found.values(), key=lambda each: _ORDER[each.finding.confidence])
    return tuple(ranked) or (nothing_wrong(s),)


INSTEAD = (("overfitting", "too_short"), ("too_short", "plateau"))
"""Findings, each with another that it rules out: more of what overfits makes it worse, and what still gains is on no
plateau."""

_ORDER: dict[Confidence, int] = {"high": 0, "medium": 1, "low": 2}


def _untold(log: Log) -> tuple[str, ...]:
    metric = log.metric
    missing = []
    if VALIDATION_LOSS not in log.curves and metric is None:
        missing.append("whether it overfits (no loss or metric of validation rows)")
    elif VALIDATION_LOSS not in log.curves:
        missing.append("whether it grows overconfident (no validation loss)")
    if TRAIN_LOSS not in log.curves:
        missing.append("whether it still learns its training rows (no training loss)")
    if metric and Meaning("train", metric.quantity) not in log.curves:
        missing.append(f"how far training rows are ahead (no {metric.called} of training rows)")
    if LEARNING_RATE not in log.curves:
        missing.append("whether the learning rate should come down earlier or later (none recorded)")
    if metric and metric.quantity == "accuracy" and not log.rows:
        missing.append("how sure its accuracy is (give --rows, the number of validation rows)")
    return tuple(missing)
