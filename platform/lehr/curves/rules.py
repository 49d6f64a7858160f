"""The rules: each looks at the signals of a run and returns what it found, or nothing.

The order of `FATAL` and `RULES` is the order in which to fix things. Where a fatal rule holds the others are not asked:
on the curves of a run that fell apart, or never began to learn, they would only find the same thing under other names.
`LAST` is asked where nothing else was found: low accuracy has many causes, and a network too small is the last of them.
To add one: write it, and put it where it belongs in the order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lehr.curves import advice, fatal
from lehr.curves.findings import Finding, grade
from lehr.curves.signals import Signals

Rule = Callable[[Signals], Finding | None]


def bad_start(s: Signals) -> Finding | None:
    """The loss is flat for a while and then suddenly falls: the weights began where the gradient is small."""
    first = s.loss_at(s.warm)
    flat = s.loss >= s.limits.flat_loss * first
    flat[: round(s.warm * len(flat))] = True
    if flat.all():
        return None
    end = (int(np.argmin(flat)) - 1) / (len(s.loss) - 1)
    lasted = end - s.warm
    steps = lasted * s.length * s.curves.steps_per_epoch
    if lasted < s.limits.flat_start or steps < min(s.limits.flat_steps, s.curves.steps_per_epoch):
        return None
    later = min(1.0, end + max(lasted, 0.15))
    fell = s.fall(end, later)
    if fell < s.limits.sudden_fall or s.update(s.warm, end) < s.limits.small_update:
        return None
    return Finding(
        name="bad_initialization",
        title="Bad initialization",
        rule="the smoothed loss is flat at first, though the weights move, and then falls suddenly",
        evidence=(
            f"the loss stayed at {first:.3g} until epoch {end * s.length:.1f} (step {s.step_of(end * s.length)}), then "
            f"fell by {fell:.0%} within {(later - end) * s.length:.1f} epochs"
        ),
        confidence=grade(lasted, s.limits.flat_start),
        advice="Begin from other weights or normalise the layers; else warm up.",
        overrides=advice.better_start(s.curves),
    )


def rate_too_low(s: Signals) -> Finding | None:
    """The loss falls steadily but slowly, almost straight."""
    update = s.update(s.warm, max(0.25, s.warm + 0.1))
    falls = s.fall(0.02, 1.0)
    if (
        not update < s.limits.small_update
        or s.last(s.training) >= s.limits.fitted
        or s.drop_before(s.limits.early_drop)
    ):
        return None
    return Finding(
        name="rate_too_low",
        title="Learning rate too low",
        rule="the weights hardly move from step to step, and the loss falls slowly and almost straight",
        evidence=(
            f"a step moves the weights by {update:.1e} of their size (healthy: about {s.limits.healthy_update:.0e}); "
            f"the loss fell by {falls:.0%} in {s.length:.0f} epochs, from {s.loss_at(0.02):.3g} to {s.loss_at(1):.3g}"
        ),
        confidence=grade(s.limits.small_update / update if update > 0 else 9.0, 1.0),
        advice="Raise the rate.",
        overrides=advice.raise_rate(s.curves, s.limits.healthy_update / update if update > 0 else 1000.0),
    )


def decayed_too_early(s: Signals) -> Finding | None:
    """The loss was still falling when the rate dropped, then flattens."""
    drop = s.drop
    if drop is None or drop > s.limits.early_drop or drop < 0.02 or s.last(s.training) >= s.limits.fitted:
        return None
    before = s.fall(max(drop / 4, 0.005), drop) * s.loss_at(max(drop / 4, 0.005)) / (0.75 * drop)
    settled = min(drop + max(drop, 0.1), 0.9)
    after = s.fall(settled, 1.0) * s.loss_at(settled) / (1.0 - settled)
    if before <= 0 or after > s.limits.slowed * before or before * drop / s.start_loss < s.limits.no_fall:
        return None
    return Finding(
        name="decayed_too_early",
        title="Decayed too early",
        rule="the loss is still falling where the rate drops for good, and hardly falls after",
        evidence=(
            f"the rate dropped at epoch {drop * s.length:.1f} of {s.length:.0f} (step {s.step_of(drop * s.length)}) "
            f"while the loss was falling by {before / s.length:.2g} an epoch; after that it fell by "
            f"{max(after, 0) / s.length:.2g} an epoch, to {s.loss_at(1.0):.3g}"
        ),
        confidence=grade(s.limits.slowed * before / max(after, 1e-9), 1.0),
        advice="Let the rate stay high for longer.",
        overrides={"schedule": "cosine"},
    )


def oscillating(s: Signals) -> Finding | None:
    """The training loss jumps widely from step to step."""
    if s.noise < s.limits.wide_noise:
        return None
    return Finding(
        name="oscillating",
        title="Batch too small or rate too high",
        rule="in the second half the loss scatters widely around its own average",
        evidence=(
            f"the loss of single steps is spread by ±{s.noise * s.start_loss:.2g} around an average of "
            f"{s.loss_at(0.75):.2g} in the second half, {s.noise:.0%} of the loss at the start"
        ),
        confidence=grade(s.noise, s.limits.wide_noise),
        advice="Take larger batches, or a lower rate.",
        overrides=advice.larger_batch(s.curves),
    )


def plateau(s: Signals) -> Finding | None:
    """The loss fell, then plateaus with the rate still high."""
    begin = 1 - s.limits.plateau_span
    middle = (begin + 1) / 2
    falls, moving = 1 - s.mean_loss(middle, 1.0) / s.mean_loss(begin, middle), s.update(begin, 1.0)
    high = float(s.rate[-1] / s.rate.max())
    done = s.last(s.training) >= s.limits.fitted
    if (
        high < s.limits.rate_is_high
        or moving < s.limits.plateau_update
        or done
        or falls * s.scale > s.limits.plateau_fall
    ):
        return None
    level = s.mean_loss(begin, 1.0)
    near = s.loss <= level * (1 + s.limits.plateau_fall)
    since = float(s.at[int(np.argmax(near))])
    return Finding(
        name="plateau",
        title="Time to decay",
        rule="the smoothed loss no longer falls, the rate is still high and the weights still move a lot",
        evidence=(
            f"the loss has stayed near {level:.3g} since epoch {since:.0f} of {s.length:.0f} (step "
            f"{s.step_of(since)}) with the rate at {s.rate[-1]:.3g}; each step still moves the weights by {moving:.1%}"
        ),
        confidence=grade(moving, s.limits.plateau_update),
        advice="Let the rate decay from about there.",
        overrides=advice.decay_from(s.curves, since / s.length),
    )


def overfitting(s: Signals) -> Finding | None:
    """Training accuracy far above validation, or validation turning down."""
    validation, limits = s.last(s.validation), s.limits
    error = s.error(validation)
    losses = s.curves.epoch_column("validation_loss")
    best = s.best(s.validation)
    far = s.gap > max(limits.gap, limits.standard_errors * error) and s.gap > limits.gap_share * (1 - validation)
    rose = s.last(losses) / -s.best(-losses)
    fitting = s.last(s.training) > s.best(s.training) - limits.no_fall
    turned = rose > limits.turned_down and best - validation > limits.standard_errors * error and fitting
    if not far and not turned:
        return None
    turn = f"; validation loss is {rose:.2g} times its lowest" if rose > limits.turned_down else ""
    return Finding(
        name="overfitting",
        title="Overfitting",
        rule="training accuracy is far above validation accuracy, or validation turns down while training goes on",
        evidence=(
            f"accuracy is {s.last(s.training):.1%} on training images and {validation:.1%} ± {error:.1%} on "
            f"validation, a gap of {100 * s.gap:.0f} points; best at epoch {s.best_epoch}{turn}"
        ),
        confidence=grade(max(s.gap / max(limits.gap, limits.standard_errors * error), rose - 1 if turned else 0), 1.0),
        advice=f"Regularise, get more data, or stop at epoch {s.best_epoch}.",
        overrides=advice.regularise(s.curves),
    )


def too_short(s: Signals) -> Finding | None:
    """Validation accuracy still rising at the end."""
    falls = s.fall(0.75, 1.0)
    error = s.error(s.last(s.validation))
    if s.last(s.training) >= s.limits.fitted:
        return None
    if falls < s.limits.still_falling or s.rise < max(s.limits.still_rising, 2 * error):
        return None
    return Finding(
        name="too_short",
        title="Not trained long enough",
        rule="validation accuracy still rises and the training loss still falls at the end",
        evidence=(
            f"validation accuracy gained {100 * s.rise:.1f} points in the second half (± {100 * error:.1f}), to "
            f"{s.last(s.validation):.1%}, and the training loss fell by {falls:.0%} in the last quarter"
        ),
        confidence=grade(min(falls / s.limits.still_falling, s.rise / max(s.limits.still_rising, 2 * error)), 1.0),
        advice="Train for more epochs.",
        overrides=advice.longer(s.curves, 3),
    )


def underfitting(s: Signals) -> Finding | None:
    """Training and validation accuracy together and low."""
    apart = max(s.limits.gap, s.limits.standard_errors * s.error(s.last(s.validation)))
    if not s.learned <= s.limits.low or s.gap > apart:
        return None
    return Finding(
        name="underfitting",
        title="Underfitting",
        rule="training and validation accuracy are together and low",
        evidence=(
            f"accuracy is {s.last(s.training):.1%} on training images and {s.last(s.validation):.1%} on validation: "
            f"what it has not learned it could not (chance is {s.chance:.1%})"
        ),
        confidence=grade(s.limits.low / max(s.learned, 1e-6), 1.0),
        advice="Take a larger model, or train for longer.",
        overrides=advice.larger_model(s.curves),
    )


FATAL: tuple[Rule, ...] = (fatal.diverged, fatal.not_learning, fatal.at_chance)
RULES: tuple[Rule, ...] = (
    bad_start,
    rate_too_low,
    decayed_too_early,
    oscillating,
    plateau,
    overfitting,
    too_short,
)
LAST: tuple[Rule, ...] = (underfitting,)
