"""The diagnosis of a run whose rows have no one class: by its loss, and by the score that its task names.

The rules of `rules.py` were tried on accuracies, whose chance level and error are known. These few are about what holds
for any task: a loss that explodes, a score that never leaves that of a guess, a score on training rows far above that
on validation rows while the validation loss rises, and a training that ends while it still gets better. Of no score but
accuracy is its error known here, so no finding but a loss that exploded has more than medium confidence.
"""

from __future__ import annotations

import math

import numpy as np

from lehr.curves import advice
from lehr.curves.fatal import diverged
from lehr.curves.findings import NOT_LEARNING, Finding
from lehr.curves.signals import Signals
from lehr.formatting import count_of, format_metric
from lehr.reporting.smoothing import Floats
from lehr.tasks.forms import spoken, spoken_in_full

LEAST_GAP = 0.1
"""Training score above validation score, from chance (0) to perfect (1), from which on it is told."""
NEAR_CHANCE = 0.1
"""How far from chance to perfect a score may be that is no better than a guess, besides what few rows explain."""


def findings(s: Signals) -> tuple[Finding, ...]:
    """What the curves show, the most urgent first."""
    if exploded := diverged(s):
        return (exploded,)
    if not np.isfinite(s.loss).any() or s.length < s.limits.few_epochs:
        return (too_little(s),)
    if stuck := _not_learning(s):
        return (stuck,)
    found = tuple(each for each in (_overfitting(s), _too_short(s)) if each)
    return found or (_nothing_seen(s),)


def _score(s: Signals, split: str) -> Floats:
    return s.curves.epoch_column(f"{split}_{s.curves.score}")


def _above_chance(s: Signals, split: str) -> float:
    """The score at the end, from chance level (0) to perfect (1); NaN where it is not known."""
    chance = s.curves.score_chance
    return (s.final(_score(s, split)) - chance) / (1 - chance) if chance < 1 else math.nan


def _noise(s: Signals) -> float:
    """What a score on so few validation rows may be off by, roughly: no formula holds for every score."""
    return 1.5 / math.sqrt(max(1, s.validation_rows))


def _told(s: Signals) -> str:
    """The score at the end, beside that of a guess."""
    name, value = spoken(s.curves.score), s.final(_score(s, "validation"))
    guess = f", where a guess has {s.curves.score_chance:.2f}" if math.isfinite(s.curves.score_chance) else ""
    return f"{name} on {s.validation_rows:,} validation rows is {value:.3f}{guess}"


def too_little(s: Signals) -> Finding:
    """What is said of a run of a few epochs, whatever its task."""
    seen = count_of(round(s.length, 1), "epoch")
    return Finding(
        name="too_little",
        title="Too short to judge",
        rule=f"fewer than {s.limits.few_epochs:g} epochs were recorded",
        evidence=f"after {seen} every curve is still changing, whether anything is wrong or not",
        confidence="high",
        advice="Train for at least ten epochs before judging the curves.",
        overrides={"train.epochs": max(10, int(s.curves.option("train.epochs", 10)))},
        good=True,
    )


def _not_learning(s: Signals) -> Finding | None:
    """Neither training nor validation rows are told any better than by a guess."""
    training, validation = _above_chance(s, "clean_train"), _above_chance(s, "validation")
    level = NEAR_CHANCE / 2 + _noise(s)
    if not (validation <= level and not training > NEAR_CHANCE):
        return None
    return Finding(
        name="not_learning",
        title=NOT_LEARNING,
        rule="the score of training and validation rows is that of a guess",
        evidence=f"{_told(s)}; the training loss fell by {s.fall(0.02, 1.0):.0%}, to {s.loss_at(1.0):.3g}",
        confidence="medium" if s.fall(0.02, 1.0) < s.limits.no_fall else "low",
        advice="Try the usual learning rate, and look at images and labels: lehr data show.",
        overrides=advice.usual_rate(s.curves),
    )


def _overfitting(s: Signals) -> Finding | None:
    """Training rows are told far better than validation rows, whose loss rises again."""
    training, validation = _above_chance(s, "clean_train"), _above_chance(s, "validation")
    losses = s.curves.epoch_column("validation_loss")
    lowest, end = float(np.nanmin(losses, initial=math.inf)), s.final(losses)
    gap = training - validation
    if not (gap > LEAST_GAP + _noise(s) and end > s.limits.at_minimum * lowest):
        return None
    name = spoken(s.curves.score)
    return Finding(
        name="overfitting",
        title="Overfitting",
        rule="the score of training rows is far above that of validation rows, whose loss has risen above its minimum",
        evidence=(
            f"{name} is {s.final(_score(s, 'clean_train')):.3f} on training rows and "
            f"{s.final(_score(s, 'validation')):.3f} on validation rows; the validation loss rose from {lowest:.3g} "
            f"(epoch {s.curves.epochs['epoch'][int(np.nanargmin(losses))]:.0f}) to {end:.3g}"
        ),
        confidence="medium" if gap > 2 * LEAST_GAP + _noise(s) else "low",
        advice="Use more images, augmentation or weight decay, pretrained weights, or a smaller network.",
        overrides={"optimizer.weight_decay": 1e-2 if not s.curves.option("optimizer.weight_decay", 0.0) else 0.1},
    )


def _too_short(s: Signals) -> Finding | None:
    """The validation loss is still falling at the end."""
    if not s.late_progress > s.limits.late_progress:
        return None
    return Finding(
        name="too_short",
        title="Ended while it was still learning",
        rule="the validation loss falls to the end of the run",
        evidence=f"the validation loss fell by {s.late_progress:.0%} over the second half; {_told(s)}",
        confidence="medium",
        advice="Train for longer.",
        overrides={"train.epochs": 2 * int(s.curves.option("train.epochs", 10))},
    )


def _nothing_seen(s: Signals) -> Finding:
    metric = str(s.curves.option("train.metric", ""))
    values = s.curves.epoch_column(metric)
    known = f"; {spoken_in_full(metric)} ends at {format_metric(s.final(values), metric)}"
    gap = s.final(_score(s, "clean_train")) - s.final(_score(s, "validation"))
    apart = f"; on training rows it is {gap:.3f} higher" if math.isfinite(gap) and gap > 0 else ""
    return Finding(
        name="nothing_seen",
        title="Nothing wrong seen; what is reachable is not known",
        rule="no rule found a problem",
        evidence=f"{_told(s)}{apart}{known if np.isfinite(values).any() and s.curves.score not in metric else ''}",
        confidence="low",
        advice="To see what is reachable, train three times as long, with a larger model, or from pretrained weights.",
        overrides={"train.epochs": 3 * int(s.curves.option("train.epochs", 10))},
        good=True,
    )
