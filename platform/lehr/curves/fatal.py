"""Rules for runs that fell apart or never began to learn: nothing else on their curves means anything."""

from __future__ import annotations

import math

import numpy as np

from lehr.curves import advice
from lehr.curves.findings import Finding, grade
from lehr.curves.signals import Signals


def diverged(s: Signals) -> Finding | None:
    """Loss becomes NaN, climbs away, or is thrown up by the first steps and never comes down: the rate is too high."""
    loss, limits = s.curves.steps["loss"], s.limits
    broken = np.flatnonzero(~np.isfinite(loss))
    lowest = float(np.nanmin(s.loss))
    where = float(s.at[int(np.nanargmin(s.loss))])
    end = s.loss_at(1.0)
    rate = float(np.nanmax(s.curves.steps["learning_rate"]))
    climbed = (end - lowest) / s.start_loss
    thrown = float(np.nanmax(loss[1:], initial=0.0)) / s.start_loss
    moving = s.update(0, 1)
    if len(broken) or s.curves.broken:
        step = int(s.curves.steps["step"][broken[0]]) if len(broken) else None
        at = f"at step {step} the loss became {loss[broken[0]]}" if step is not None else s.curves.broken.split(";")[0]
        rule, evidence, sure = "the loss becomes NaN or infinite", f"{at}, with a learning rate of {rate:.3g}", 9.0
    elif climbed > limits.climb and where < 0.9 * s.length:
        rule = "the smoothed loss ends far above its lowest"
        evidence = f"the smoothed loss climbed from {lowest:.3g} (epoch {where:.1f}) to {end:.3g} at the end"
        sure = climbed / limits.climb
    elif s.at_chance and moving > limits.small_update and _wild(s, thrown, moving):
        rule = "the first steps throw the loss up or move the weights wildly, and accuracy stays at chance"
        evidence = (
            f"the loss reached {thrown:.2g} times its first value and ended at {end:.3g} (a guess has {s.guess:.3g}), "
            f"a step moves the weights by up to {s.largest_update:.1%} of their size, and validation accuracy is "
            f"{s.last(s.validation):.1%}, a guess"
        )
        sure = 1.5 * max(thrown / limits.spike, moving / limits.wild_update, s.largest_update / limits.violent_update)
    else:
        return None
    return Finding(
        name="diverged",
        title="Learning rate too high",
        rule=rule,
        evidence=evidence,
        confidence=grade(sure, 1.0),
        advice="Lower the rate, warm up, and clip the gradient.",
        overrides=advice.lower_rate(s.curves),
    )


def _wild(s: Signals, thrown: float, moving: float) -> bool:
    settled = min(s.loss_at(0.5), s.loss_at(1.0))
    return (
        thrown > s.limits.spike
        or moving > s.limits.wild_update
        or s.largest_update > s.limits.violent_update
        or settled > s.limits.above_guess * s.guess
    )


def not_learning(s: Signals) -> Finding | None:
    """The loss is flat from the first step to the last, and accuracy is a guess."""
    falls, moving = s.fall(0.02, 1.0), s.update(0, 1)
    frozen = not moving > s.limits.no_update
    noise = 2 * s.noise / math.sqrt(max(_window(s), 1))
    if not s.at_chance or (falls > s.limits.no_fall + noise and not frozen):
        return None
    if not frozen and moving < s.limits.small_update and s.trend > s.limits.steady_fall:
        return None  # it does learn, if slowly: the rate is too low
    why = (
        f"each step moves the weights by only {moving:.0e} of their size: the rate is as good as zero, or frozen"
        if frozen
        else "the weights do move, so the gradient says nothing: a dead network, or labels unrelated to the inputs"
    )
    return Finding(
        name="not_learning",
        title="Nothing is learning",
        rule="the smoothed loss ends where it began, and validation accuracy is at chance",
        evidence=f"the loss went from {s.loss_at(0.02):.4g} to {s.loss_at(1.0):.4g} over {s.length:.0f} epochs; {why}",
        confidence="high" if falls < s.limits.no_fall else "medium",
        advice="Give the rate a value that moves the weights." if frozen else "Begin from weights that carry a signal.",
        overrides=advice.usual_rate(s.curves) if frozen else advice.better_start(s.curves),
    )


def at_chance(s: Signals) -> Finding | None:
    """The training loss moves, but what is learned says nothing about other images."""
    update = s.update(0, 0.25)
    if not s.at_chance or s.length < s.limits.few_epochs or update < s.limits.small_update:
        return None
    return Finding(
        name="at_chance",
        title="Accuracy is a guess",
        rule="validation accuracy is at chance at the end, though the weights move",
        evidence=(
            f"validation accuracy is {s.last(s.validation):.1%} with {s.curves.classes} classes (chance "
            f"{s.chance:.1%}), training loss {s.loss_at(1.0):.3g} (ln {s.curves.classes} = {s.guess:.3g})"
        ),
        confidence="high" if s.length >= 2 * s.limits.few_epochs else "medium",
        advice=(
            "The labels look unrelated to the inputs. Check them; then see whether the network can learn a few images "
            "by heart, which needs no meaning."
        ),
        overrides={"data.limit": 64, "train.epochs": 50},
    )


def _window(s: Signals) -> float:
    """Steps in the window of the smoothed loss."""
    return s.length * s.curves.steps_per_epoch / 25
