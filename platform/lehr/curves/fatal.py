"""Rules for runs that diverged or never began to learn: then nothing else on their curves means anything."""

from __future__ import annotations

import math

import numpy as np

from lehr.curves import advice
from lehr.curves.findings import LEARNING_RATE_TOO_HIGH, NOT_LEARNING, Confidence, Finding, grade
from lehr.curves.signals import Signals


def diverged(s: Signals) -> Finding | None:
    """The loss becomes NaN, or rises for good."""
    not_finite = np.flatnonzero(~np.isfinite(s.curves.steps["loss"]))
    known = np.where(np.isfinite(s.loss), s.loss, np.inf)  # all of it may be NaN
    lowest, where = float(known.min()), float(s.grid[int(known.argmin())])
    end = s.last_loss
    climbed = (end - lowest) / s.initial_loss
    if len(not_finite) or s.curves.divergence:
        return _too_high(s, "the loss explodes, or becomes NaN or infinite", _not_finite(s, not_finite), 9.0)
    if not s.positive or not climbed > s.limits.climb or where >= 0.9 * s.length:
        return None
    evidence = f"the smoothed loss rose from {lowest:.3g}, its minimum at epoch {where:.1f}, to {end:.3g} at the end"
    return _too_high(s, "the smoothed loss ends far above its minimum", evidence, climbed / s.limits.climb)


def thrown_off(s: Signals) -> Finding | None:
    """Updates are violent and the loss explodes, or it stays above that of a guess; the network never recovers."""
    limits, update = s.limits, s.update_ratio(0, 1)
    if not s.at_chance or s.has_begun or not update > limits.small_update:
        return None
    spike, moved = (
        s.peak / limits.spike,
        max(update / limits.wild_update, s.largest_update_ratio / limits.violent_update),
    )
    exploded = min(spike, moved) > 1  # one batch may be hard by chance, and updates are large beside small weights
    above = s.excess_over_guess / limits.standard_errors if update > limits.healthy_update and not s.is_short else 0.0
    if s.is_mute and not exploded and s.loss_at(1.0) < limits.still_a_guess * s.chance_loss:
        return None  # where no signal passes, the loss lies a little above that of a guess too
    if not exploded and not above > 1:
        return None
    evidence = (
        f"the loss reached {s.peak:.2g} times its initial value and ended at {s.loss_at(1.0):.3g} (chance level: "
        f"{s.chance_loss:.3g}); the largest update was {s.largest_update_ratio:.1%} of the weight norm, and "
        f"validation accuracy is {s.final(s.validation):.1%} (chance level: {s.guess:.1%})"
    )
    rule = "the loss explodes in the first steps or stays above that of a guess, and accuracy stays at chance level"
    return _too_high(s, rule, evidence, 1.5 * max(spike, moved) if exploded else min(above, 1.5))


def blown_up(s: Signals) -> Finding | None:
    """Early updates were violent and the loss rose far above its first value; what came back is not the same.

    The loss alone, flat and then falling, would look like a bad initialization: no initialization makes it rise.
    """
    limits = s.limits
    violent = s.largest_update_ratio / limits.violent_update  # NaN where no update was measured
    strength = min(s.blown_up / limits.climb, violent)
    if s.is_fitted or not (violent > 1 and strength > 1):
        return None
    evidence = (
        f"the smoothed loss rose from {s.initial_loss:.3g} to {(1 + s.blown_up) * s.initial_loss:.3g} in the first "
        f"half, with updates of up to {s.largest_update_ratio:.1%} of the weight norm; accuracy is "
        f"{s.on_training_rows}"
    )
    return _too_high(
        s, "early updates are violent, the loss rises far, and training rows are not fitted", evidence, strength
    )


def _too_high(s: Signals, rule: str, evidence: str, strength: float) -> Finding:
    return Finding(
        name="diverged",
        title=LEARNING_RATE_TOO_HIGH,
        rule=rule,
        evidence=evidence,
        confidence=grade(strength, 1.0),
        advice="Lower the learning rate, add a warmup and clip the gradients.",
        overrides=advice.lower_rate(s.curves),
    )


def _not_finite(s: Signals, steps: np.ndarray) -> str:
    """Where the loss became NaN or infinite: in the record, or else in the words of the run itself."""
    if not len(steps):
        return s.curves.divergence.split(";")[0]
    value, step = s.curves.steps["loss"][steps[0]], int(s.curves.steps["step"][steps[0]])
    rate = float(np.nanmax(s.curves.steps["learning_rate"]))
    return f"the loss became {value} at step {step}, with a learning rate of {rate:.3g}"


def not_learning(s: Signals) -> Finding | None:
    """The loss is flat from the first step to the last, and accuracy is at chance level."""
    fall, update = s.fall(0.02, 1.0), s.update_ratio(0, 1)
    frozen = not update > s.limits.no_update
    noise = 2 * s.noise / math.sqrt(max(s.loss_window, 1))
    if not s.never_learned or (fall > s.limits.no_fall + noise and not frozen):
        return None
    if not frozen and update < s.limits.small_update:
        if s.trend > s.limits.steady_fall or update * s.steps_taken < s.limits.moved:
            return None  # it does learn, but slowly, or has hardly moved: the learning rate is too low
    elif not frozen and (s.has_begun or (s.is_short and not (s.is_beaten and s.is_mute))):
        return None  # it has learned something, or had no time to
    how_small = "" if math.isnan(update) else f"each update is only {update:.0e} of the weight norm: "
    why = (
        f"{how_small}the learning rate is practically zero, or the weights are frozen"
        if frozen
        else "the weights change, so the gradients carry no signal: a dead network, or labels unrelated to the inputs"
    )
    return Finding(
        name="not_learning",
        title=NOT_LEARNING,
        rule="the smoothed loss ends where it began, and validation accuracy is at chance level",
        evidence=f"the loss went from {s.loss_at(0.02):.4g} to {s.loss_at(1.0):.4g} over {s.length:.0f} epochs; {why}",
        confidence=_sure(s, frozen, fall),
        advice=(
            "Raise the learning rate until the weights change."
            if frozen
            else "Start from an initialization that passes a signal through every layer."
        ),
        overrides=advice.usual_rate(s.curves) if frozen else advice.better_initialization(s.curves),
    )


def _sure(s: Signals, frozen: bool, fall: float) -> Confidence:
    """Weights that do not move say it all; else small gradients have to say the same as the flat loss."""
    if s.is_short and not frozen:
        return "low"
    return "high" if fall < s.limits.no_fall and (frozen or s.is_mute) else "medium"


def _chance_in_words(s: Signals) -> str:
    if math.isnan(s.chance_loss):
        return ""
    about = f"ln {s.curves.classes} = " if s.curves.option("loss.name", "cross_entropy") == "cross_entropy" else ""
    return f" (chance level: {about}{s.chance_loss:.3g})"


def _learnable(s: Signals) -> str:
    """What a linear model gets right beyond a guess, of validation rows or of held-out training rows; or nothing."""
    survey = s.survey
    if survey.linear is not None and survey.linear > s.limits.chance_level(s.guess, s.validation_rows):
        return f"{survey.linear:.1%} of the validation rows"
    held = max(1, survey.held_out_rows)
    if survey.held_out is not None and survey.held_out > s.limits.chance_level(s.guess, held):
        return f"{survey.held_out:.1%} of the training rows that it was not fitted on"
    return ""


def at_chance(s: Signals) -> Finding | None:
    """The weights change, but accuracy on other images stays at chance level.

    A network that is still learning its training rows may leave that level yet, unless a linear model finds nothing in
    them that holds for others; and so may one that had only a few steps.
    """
    update = s.update_ratio(0, 0.25)
    if not s.never_learned or s.length < s.limits.few_epochs or update < s.limits.small_update:
        return None
    if s.is_memorised or s.may_be_better:
        return None
    learnable = _learnable(s)
    if s.has_begun and (learnable or s.survey.linear is None):
        return None
    if s.is_short or s.is_tiny or update < s.limits.modest_update:
        return None
    known = f"; a linear model on small images is right for {learnable}" if learnable else ""
    blame = (
        "The rows can be learned, so the network, its training or the validation split is at fault."
        if learnable
        else "The labels seem to be unrelated to the inputs: check them."
    )
    return Finding(
        name="at_chance",
        title="Accuracy at chance level",
        rule="validation accuracy ends at chance level although the weights change",
        evidence=(
            f"validation accuracy is {s.final(s.validation):.1%} with {s.curves.classes} classes (chance level: "
            f"{s.guess:.1%}), and {s.on_training_rows}; the training loss is "
            f"{s.loss_at(1.0):.3g}{_chance_in_words(s)}{known}"
        ),
        confidence="medium" if s.length >= 2 * s.limits.few_epochs and not learnable else "low",
        advice=f"{blame} See whether the network can overfit a few images, which works with any labels.",
        overrides={"data.limit": 64, "train.epochs": 50},
    )
