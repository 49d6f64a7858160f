"""What the curves of a run say: the rules that hold, in the order in which to fix things.

Pure functions of the record. The thresholds are in `thresholds.py`, the rules in `rules.py`.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from lehr.curves import advice, other_tasks
from lehr.curves.fatal import diverged
from lehr.curves.findings import Diagnosis, Finding
from lehr.curves.kept import with_model
from lehr.curves.other_tasks import too_little
from lehr.curves.record import Curves
from lehr.curves.rules import DATA, FATAL, FOR_ANY_LOSS, LAST_RESORT, RULES
from lehr.curves.signals import Signals
from lehr.curves.thresholds import DEFAULT, Thresholds


def diagnose(curves: Curves, limits: Thresholds = DEFAULT) -> Diagnosis:
    """What the curves show, the most urgent finding first. Where no rule holds, how much that means."""
    first, *others = (advice.from_pretrained(each, curves) for each in _findings(curves, limits))
    return Diagnosis(curves.name, (with_model(first, curves), *others))


def _findings(curves: Curves, limits: Thresholds) -> tuple[Finding, ...]:
    s = Signals(curves, limits)
    if not len(curves.steps["step"]):
        return (too_little(s),)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN columns are "not measured", and compare as False
        if not curves.by_class:
            return other_tasks.findings(s)
        if not np.isfinite(s.loss).any() or not np.isfinite(s.validation).any():
            found = diverged(s) if _became_not_finite(curves) else None
            return (found or too_little(s),)
        if s.length < limits.few_epochs:
            found = diverged(s)
            return (found or too_little(s),)
        fatal_rules = (*DATA, *(rule for rule in FATAL if s.positive or rule in FOR_ANY_LOSS))
        fatal = next((found for rule in fatal_rules if (found := rule(s))), None)
        if fatal:
            return (fatal,)
        findings = tuple(found for rule in RULES if s.positive or rule in FOR_ANY_LOSS if (found := rule(s)))
        findings = findings or tuple(found for rule in LAST_RESORT if (found := rule(s)))
        low_confidence_last = sorted(findings, key=lambda found: found.confidence == "low")
        nothing = _unclear(s) or _healthy(s) or _nothing_seen(s)
        if not s.has_room:
            return (nothing, *(replace(found, confidence="low") for found in low_confidence_last))
        return tuple(low_confidence_last) or (nothing,)


def _became_not_finite(curves: Curves) -> bool:
    return bool(curves.divergence) or not np.isfinite(curves.steps["loss"]).all()


def _unclear(s: Signals) -> Finding | None:
    """Accuracy nearer to that of a guess than to perfect, where no rule says why: that is not healthy."""
    validation = s.final(s.validation)
    if not (s.at_chance or validation - s.chance <= s.limits.healthy * (1 - s.chance) + 1e-9):
        return None
    guess = f"{s.chance:.1%} with {s.curves.classes} classes"
    near = f"above a guess ({guess})" if s.at_chance else f"more than halfway from a guess ({guess}) to perfect"
    return Finding(
        name="unclear",
        title="Low accuracy, and no clear cause",
        rule="validation accuracy is not far above that of a guess, and no rule found a reason",
        evidence=(
            f"validation accuracy is {s.told(validation)} on {s.validation_rows:,} images after "
            f"{s.steps_taken:,} steps, not clearly {near}"
        ),
        confidence="low",
        advice="Train for longer; if that changes nothing, look at the images and labels: lehr data show.",
        overrides=advice.longer(s.curves, 3),
    )


def _healthy(s: Signals) -> Finding | None:
    """The run is close to the best that is possible: nearly every validation row is right."""
    if not s.is_near_perfect or s.validation_rows < FEW_ROWS:
        return None
    validation = s.final(s.validation)
    error = s.standard_error(validation)
    sure = s.length >= 3 * s.limits.few_epochs and 1 - validation + 2 * error <= 2 * s.limits.near_perfect
    better = s.survey.linear is not None and s.survey.linear > validation
    linear = f" (a linear model on images of 8 × 8 pixels has {s.survey.linear:.1%})" if better else ""
    return Finding(
        name="healthy",
        title="Healthy",
        rule="no rule found a problem, and nearly all validation rows are right",
        evidence=f"validation accuracy has settled at {s.told(validation)}{linear}; {_left(s, error)}",
        confidence="high" if sure and not better else "medium",
        advice="Nothing needs to be changed.",
        good=True,
    )


def _nothing_seen(s: Signals) -> Finding:
    """No rule holds, but the run is not so good that this means much."""
    validation = s.final(s.validation)
    error = s.standard_error(validation)
    known = []
    if s.survey.linear is not None:
        known.append(f"a linear model on images of 8 × 8 pixels has {s.survey.linear:.1%}")
    if np.isfinite(s.majority):
        known.append(f"always naming the most frequent class would have {s.majority:.1%}")
    compared = f" ({', and '.join(known)})" if known else ""
    better = s.survey.linear is not None and s.survey.linear > validation + error
    return Finding(
        name="nothing_seen",
        title="Nothing wrong seen in the curves, but a linear model does better"
        if better
        else "Nothing wrong seen; what is reachable is not known",
        rule="no rule found a problem, and not nearly all validation rows are right",
        evidence=f"validation accuracy is {s.told(validation)}{compared}; {_left(s, error)}",
        confidence="low",
        advice="To see what is reachable, train three times as long, with a larger model, or from pretrained weights.",
        overrides={"train.epochs": 3 * int(s.curves.option("train.epochs", 10))},
        good=True,
    )


FEW_ROWS = 20
"""Validation rows below which no accuracy means that a run is healthy."""


def _left(s: Signals, error: float) -> str:
    """What is still to gain."""
    training, left = s.final(s.training), []
    if training < 1 - error:
        left.append(f"{100 * (1 - training):.1f} points on the training images (a larger model, longer training)")
    if s.gap > error:
        left.append(f"{100 * s.gap:.1f} points between training and validation (more data, more regularisation)")
    return f"still to gain: {' and '.join(left)}" if left else "no measurable gain is left"
