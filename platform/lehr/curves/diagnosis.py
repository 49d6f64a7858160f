"""What the curves of a run say: which of the rules hold, in the order in which to fix things.

Pure functions of the record; the numbers that they turn on stand in `thresholds.py`, the rules in `rules.py`.
"""

from __future__ import annotations

import warnings

import numpy as np

from lehr.curves.fatal import diverged
from lehr.curves.findings import Diagnosis, Finding
from lehr.curves.record import Curves
from lehr.curves.rules import FATAL, LAST, RULES
from lehr.curves.signals import Signals
from lehr.curves.thresholds import DEFAULT, Thresholds

__all__ = ["Diagnosis", "Finding", "diagnose"]


def diagnose(curves: Curves, limits: Thresholds = DEFAULT) -> Diagnosis:
    """What the curves show, first what to fix first; `healthy` where no rule holds."""
    s = Signals(curves, limits)
    if not len(curves.steps["step"]):
        return Diagnosis(curves.name, (_too_little(s),))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN columns are "not measured", and compare as False
        if not np.isfinite(s.loss).any() or not np.isfinite(s.validation).any():
            found = diverged(s) if _broken(curves) else None
            return Diagnosis(curves.name, (found or _too_little(s),))
        if s.length < limits.few_epochs:
            found = diverged(s)
            return Diagnosis(curves.name, (found or _too_little(s),))
        fatal = next((found for rule in FATAL if (found := rule(s))), None)
        if fatal:
            return Diagnosis(curves.name, (fatal,))
        findings = tuple(found for rule in RULES if (found := rule(s)))
        findings = findings or tuple(found for rule in LAST if (found := rule(s)))
        surest_first = sorted(findings, key=lambda found: found.confidence == "low")  # else in the order to fix them
        return Diagnosis(curves.name, tuple(surest_first) or (_healthy(s),))


def _broken(curves: Curves) -> bool:
    return bool(curves.broken) or not np.isfinite(curves.steps["loss"]).all()


def _too_little(s: Signals) -> Finding:
    return Finding(
        name="too_little",
        title="Too short to say",
        rule=f"fewer than {s.limits.few_epochs:g} epochs were recorded",
        evidence=f"after {s.length:.1f} epochs every curve is still on its way, whatever is right or wrong",
        confidence="high",
        advice="Train for at least ten epochs before judging the curves.",
        overrides={"train.epochs": max(10, int(s.curves.option("train.epochs", 10)))},
        good=True,
    )


def _healthy(s: Signals) -> Finding:
    training, validation = s.last(s.training), s.last(s.validation)
    error = s.error(validation)
    left = []
    if training < 1 - error:
        left.append(f"{100 * (1 - training):.1f} points on the training images (a larger model, longer training)")
    if s.gap > error:
        left.append(f"{100 * s.gap:.1f} points from training to validation (more data, more regularisation)")
    gain = f"left to gain: {' and '.join(left)}" if left else "nothing measurable is left to gain"
    return Finding(
        name="healthy",
        title="Healthy",
        rule="no rule found anything wrong",
        evidence=f"validation accuracy is {validation:.1%} ± {error:.1%} and has settled; {gain}",
        confidence="high" if s.length >= 3 * s.limits.few_epochs else "medium",
        advice="Nothing needs fixing.",
        good=True,
    )
