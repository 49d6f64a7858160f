"""The rules: each reads the signals of a run and returns a finding, or nothing.

The order of `DATA`, `FATAL` and `RULES` is the order in which to fix things. Where a rule of the data or a fatal one
holds, the others are skipped: they would only find the same problem under other names. `LAST_RESORT`
applies where nothing else was found: low accuracy has many causes, and a network that is too small is the last of them.
To add a rule: write it, and insert it at its place in the order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lehr.curves import advice, causes, data_faults, fatal
from lehr.curves.findings import Finding, grade
from lehr.curves.signals import LEAST_LOSS, Signals

Rule = Callable[[Signals], Finding | None]


def bad_initialization(s: Signals) -> Finding | None:
    """The loss is flat for a while and then falls suddenly: the initial weights had small gradients."""
    first = s.loss_at(s.warmup_share)
    flat = s.loss >= s.limits.flat_loss * first
    flat[: round(s.warmup_share * len(flat))] = True
    if flat.all():
        return None
    end = (int(np.argmin(flat)) - 1) / (len(s.loss) - 1)
    lasted = end - s.warmup_share
    steps = lasted * s.length * s.curves.steps_per_epoch
    if lasted < s.limits.flat_start or steps < min(s.limits.flat_steps, s.curves.steps_per_epoch):
        return None
    later = min(1.0, end + max(lasted, 0.15))
    if s.learned >= s.limits.overcome and lasted < s.limits.flat_and_overcome:
        return None
    if s.learned >= s.limits.healthy and not s.is_mute:
        return None  # a hard problem may begin so too, and this network has got over it
    fell = s.fall(end, later)
    if (
        fell < (s.limits.clear_fall if s.is_mute else s.limits.sudden_fall)
        or s.update_ratio(s.warmup_share, end) < s.limits.small_update
    ):
        return None
    return Finding(
        name="bad_initialization",
        title="Bad initialization",
        rule="the smoothed loss is flat at first although the weights change, and then falls suddenly",
        evidence=(
            f"the loss stayed at {first:.3g} until epoch {end * s.length:.1f} (step {s.step_of(end * s.length)}), then "
            f"fell by {fell:.0%} within {(later - end) * s.length:.1f} epochs"
        ),
        confidence="low"
        if not s.is_mute
        else "medium"
        if fell < s.limits.sudden_fall
        else grade(lasted, s.limits.flat_start),
        advice="Change the initialization or add normalisation layers; failing that, use a warmup.",
        overrides=advice.better_initialization(s.curves),
    )


def rate_too_low(s: Signals) -> Finding | None:
    """The loss falls steadily but slowly, almost in a straight line; or nothing is learned at an unusually low rate."""
    update = s.update_ratio(s.warmup_share, max(0.25, s.warmup_share + 0.1))
    update = s.update_ratio(0, 1) if math.isnan(update) else update  # a short run has few measurements
    if s.is_fitted or s.dropped_before(s.limits.early_drop):
        return None
    times = _below_usual(s)
    unusual = times >= s.limits.usual_rate and (s.at_chance or s.is_improving or s.is_beaten)
    idle = s.never_learned and not s.has_begun and update < s.limits.modest_update
    if not (update < s.limits.small_update or unusual or idle):
        return None
    usual = f"the usual rate of {s.curves.option('optimizer.name', 'sgd')} is {times:.0f} times as high; "
    factor = s.limits.healthy_update / update if update > 0 else 1000.0
    return Finding(
        name="rate_too_low",
        title="Learning rate too low",
        rule="the updates are tiny or the rate unusually low, and the loss falls slowly, almost in a straight line",
        evidence=(
            f"{usual if unusual else ''}each update is {update:.1e} of the weight norm (healthy: about "
            f"{s.limits.healthy_update:.0e}); the loss fell by {s.fall(0.02, 1.0):.0%} in {s.length:.0f} epochs, from "
            f"{s.loss_at(0.02):.3g} to {s.loss_at(1):.3g}"
        ),
        confidence="medium" if unusual else grade(s.limits.small_update * factor / s.limits.healthy_update, 1.0),
        advice="Raise the learning rate.",
        overrides=advice.usual_rate(s.curves) if unusual else advice.raise_rate(s.curves, factor),
    )


def _below_usual(s: Signals) -> float:
    """The optimizer's usual learning rate over the job's; 0 for fine-tuning, which wants lower rates."""
    if s.curves.option("model.weights") or s.curves.option("finetune"):
        return 0.0
    return advice.usual(s.curves) / max(float(s.curves.option("optimizer.lr", 0.1)), 1e-12)


def decayed_too_early(s: Signals) -> Finding | None:
    """The loss was still falling when the learning rate dropped, and then flattens."""
    drop = s.drop_share
    if drop is None or drop > s.limits.early_drop or drop < 0.02 or s.final(s.training) >= s.limits.fitted:
        return None
    before = s.fall(max(drop / 4, 0.005), drop) * s.loss_at(max(drop / 4, 0.005)) / (0.75 * drop)
    settled = min(drop + max(drop, 0.1), 0.9)
    after = s.fall(settled, 1.0) * s.loss_at(settled) / (1.0 - settled)
    if before <= 0 or after > s.limits.slowed * before or before * drop / s.initial_loss < s.limits.no_fall:
        return None
    return Finding(
        name="decayed_too_early",
        title="Learning rate decayed too early",
        rule="the loss is still falling when the learning rate drops for good, and hardly falls afterwards",
        evidence=(
            f"the learning rate dropped at epoch {drop * s.length:.1f} of {s.length:.0f} (step "
            f"{s.step_of(drop * s.length)}) while the loss was falling by {before / s.length:.2g} per epoch; "
            f"afterwards it fell by {max(after, 0) / s.length:.2g} per epoch, to {s.loss_at(1.0):.3g}"
        ),
        confidence=grade(s.limits.slowed * before / max(after, 1e-9), 1.0),
        advice="Keep the learning rate high for longer.",
        overrides={"schedule": "cosine"},
    )


def oscillating(s: Signals) -> Finding | None:
    """The training loss varies widely from step to step."""
    decays = s.learning_rate[-1] < s.limits.rate_is_high * s.learning_rate.max()  # it settles by itself
    if s.noise < s.limits.wide_noise or s.is_fitted or s.is_short or decays:
        return None
    return Finding(
        name="oscillating",
        title="Batch too small or learning rate too high",
        rule="in the second half the loss varies widely around its moving average",
        evidence=(
            f"in the second half the loss of single steps varies by ±{s.noise * s.initial_loss:.2g} around an average "
            f"of {s.loss_at(0.75):.2g}, which is {s.noise:.0%} of the initial loss"
        ),
        confidence=grade(s.noise, s.limits.wide_noise),
        advice="Use larger batches or a lower learning rate.",
        overrides=advice.larger_batch(s.curves),
    )


def plateau(s: Signals) -> Finding | None:
    """The loss fell, then reached a plateau with the learning rate still high."""
    begin = 1 - s.limits.plateau_span
    middle = (begin + 1) / 2
    fall = 1 - s.mean_loss(middle, 1.0) / (s.mean_loss(begin, middle) or LEAST_LOSS)
    update = s.update_ratio(begin, 1.0)
    rate_left = float(s.learning_rate[-1] / s.learning_rate.max())
    fitted = s.final(s.training) >= s.limits.fitted
    if (
        s.is_short
        or s.never_learned  # then it is not the end of learning
        or rate_left < s.limits.rate_is_high
        or not update >= s.limits.plateau_update
        or fitted
        or fall * s.loss_scale > s.limits.plateau_fall
    ):
        return None
    level = s.mean_loss(begin, 1.0)
    near = s.loss <= level * (1 + s.limits.plateau_fall)
    since = float(s.grid[int(np.argmax(near))])
    return Finding(
        name="plateau",
        title="Plateau: time to decay the learning rate",
        rule="the smoothed loss no longer falls while the learning rate is still high and the updates are still large",
        evidence=(
            f"the loss has stayed near {level:.3g} since epoch {since:.0f} of {s.length:.0f} (step "
            f"{s.step_of(since)}) at a learning rate of {s.learning_rate[-1]:.3g}; each update is still {update:.1%} "
            "of the weight norm"
        ),
        confidence=grade(update, s.limits.plateau_update),
        advice="Decay the learning rate from about that epoch on.",
        overrides=advice.decay_from(s.curves, since / s.length),
    )


def overfitting(s: Signals) -> Finding | None:
    """Training accuracy far above validation accuracy, or validation getting worse."""
    validation, limits = s.final(s.validation), s.limits
    error = s.standard_error(validation)
    losses = s.curves.epoch_column("validation_loss")
    best = s.best(s.validation)
    far = s.gap > max(limits.overfit, limits.standard_errors * error) and s.gap > limits.gap_share * (1 - validation)
    rose = s.final(losses) / -s.best(-losses) if s.positive else math.nan
    still_fitting = s.final(s.training) > s.best(s.training) - limits.no_fall
    turned = rose > limits.turned_down and best - validation > limits.standard_errors * error and still_fitting
    by_heart = s.never_learned and (s.is_memorised or far)
    if (not far and not turned and not by_heart) or (s.is_improving and not by_heart):
        return None
    loss_rose = f"; the validation loss is {rose:.2g} times its minimum" if rose > limits.turned_down else ""
    if by_heart:
        return _by_heart(s, loss_rose)
    return Finding(
        name="overfitting",
        title="Overfitting",
        rule=(
            "training accuracy is far above validation accuracy, or validation gets worse while training accuracy does "
            "not"
        ),
        evidence=(
            f"accuracy is {s.final(s.training):.1%} on training images and {s.told(validation)} on the "
            f"validation split, a gap of {100 * s.gap:.0f} points; the best epoch was {s.best_epoch}{loss_rose}"
        ),
        confidence=grade(
            max(s.gap / max(limits.overfit, limits.standard_errors * error), rose - 1 if turned else 0), 1.0
        ),
        advice=f"Regularise, get more data, or stop at epoch {s.best_epoch}.",
        overrides=advice.regularise(s.curves),
    )


def _by_heart(s: Signals, loss_rose: str) -> Finding:
    """What the network learned of its training rows holds for no others: few rows look so, and so do wrong labels."""
    return Finding(
        name="overfitting",
        title="Training rows learned by heart",
        rule="training rows are learned, and validation accuracy is that of a guess",
        evidence=(
            f"accuracy is {s.final(s.training):.1%} on training images and {s.told(s.final(s.validation))} on the "
            f"validation split, no better than a guess ({s.guess:.1%}){loss_rose}"
        ),
        confidence="medium" if s.is_fitted or s.learned >= s.limits.healthy else "low",
        advice=(
            f"Get more than {s.curves.rows_per_class:.0f} training rows a class, or regularise. Labels that do not "
            "belong to the images look the same: check some of them, and compare both splits."
        ),
        overrides=advice.regularise(s.curves),
    )


def too_short(s: Signals) -> Finding | None:
    """The network is still getting better at the end, and does not fit its training rows yet."""
    if s.is_fitted or s.is_near_perfect or not s.is_improving or 1 - s.final(s.training) < s.least_gain:
        return None  # what more epochs can still learn is no more than these rows can tell from chance
    error = s.standard_error(s.final(s.validation))
    return Finding(
        name="too_short",
        title="Not trained long enough",
        rule="the validation loss still falls at the end, and the training rows are not fitted",
        evidence=(
            f"the validation loss fell by {s.late_progress:.0%} in the second half and is at its minimum at the end; "
            f"validation accuracy rose by {100 * s.late_gain:.1f} points (± {100 * error:.1f}), to "
            f"{s.last(s.validation):.1%}, {s.told_of_training(s.last(s.training))}, after {s.steps_taken:,} steps"
        ),
        confidence="low" if s.never_learned or s.is_short else "medium",  # a low rate or bad weights look the same
        advice="Train for more epochs.",
        overrides=advice.longer(s.curves, 3),
    )


def underfitting(s: Signals) -> Finding | None:
    """Training and validation accuracy close together and low, and a network that may be too small.

    One with more weights than rows could learn them by heart: then its size is no cause.
    """
    apart = max(s.limits.gap, s.limits.standard_errors * s.standard_error(s.final(s.validation)))
    weights, rows, small = s.network.parameters, s.survey.train.rows, s.is_tiny
    if s.gap > apart or s.is_short or not (s.has_begun or small) or 0 < rows <= weights:
        return None
    if not s.learned <= (s.limits.overcome if small else s.limits.low):
        return None
    size = f"; the network has {weights:,} weights for {rows:,} training rows" if small else ""
    return Finding(
        name="underfitting",
        title="Underfitting",
        rule="training and validation accuracy are both low and close together",
        evidence=(
            f"the model cannot fit even the training data: accuracy is {s.final(s.training):.1%} on training images "
            f"and {s.final(s.validation):.1%} on the validation split (chance level: {s.chance:.1%}){size}"
        ),
        confidence="medium" if small else "low",  # many causes end so
        advice="Use a larger model, or train for longer.",
        overrides=advice.larger_model(s.curves),
    )


DATA: tuple[Rule, ...] = (
    data_faults.bad_inputs,
    data_faults.leak,
    data_faults.missing_class,
    data_faults.imbalanced,
    data_faults.split_differs,
    data_faults.noisy_labels,
)
CAUSES: tuple[Rule, ...] = (
    causes.frozen,
    causes.clipped,
    causes.too_regularised,
    causes.loud_start,
    fatal.thrown_off,
    fatal.blown_up,
    causes.stale_statistics,
    causes.rate_gone,
)
FATAL: tuple[Rule, ...] = (fatal.diverged, *CAUSES, fatal.not_learning, fatal.at_chance)
RULES: tuple[Rule, ...] = (
    bad_initialization,
    rate_too_low,
    decayed_too_early,
    oscillating,
    plateau,
    overfitting,
    too_short,
)
FOR_ANY_LOSS: tuple[Rule, ...] = (fatal.diverged, causes.frozen, causes.clipped, fatal.at_chance, overfitting)
"""The rules that say something about a loss that falls below zero."""
LAST_RESORT: tuple[Rule, ...] = (causes.not_as_good_as_linear, underfitting)
