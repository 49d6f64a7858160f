"""The rules for curves that other tools recorded, in the order in which to fix things.

They read losses and metrics only, since that is what everybody records; what lehr's own rules read beside them
(updates, gradients, a survey of the rows) is not there. So they claim less: a cause is named only where the curves
alone show it, a difference counts where it is beyond the noise of its own curve, and the advice is to find out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lehr.curves.findings import Confidence, Finding
from lehr.intervals import in_words
from lehr.other_tools.log import BOUNDED, Log
from lehr.other_tools.signals import FEW, SURE, Signals, around, ending, late_gain, noise, tail

LOST = 0.5  # share of what a loss had fallen, lost again: it diverges
NO_FALL = 0.02  # share of its first value by which a loss must fall to have fallen
RISE = 0.05  # of a validation loss above its minimum, as a share of it
FITTING = 0.95  # training loss at the end over that at the minimum of validation: still falling
RESTLESS = 0.125  # noise of a validation curve over the range in which it moves
MANY = 10  # evaluations from which on a curve shows its own noise
LATE = 0.01  # gain of a metric over the last third that is worth more training
LATE_LOSS = 0.03  # fall of the validation loss over the last third, as a share
GAP = 0.1  # training metric above validation
DECAYED = 0.2  # learning rate at the end over its highest, below which a schedule has come down
LOW = 0.5  # accuracy below which no training is called sound
NEARLY_ALL = 0.95  # a bounded metric above which little is left to gain


@dataclass(frozen=True)
class Judged:
    """A finding, and the part of the curves that shows it: from where to where."""

    finding: Finding
    begin: float
    end: float


Rule = Callable[[Signals], Judged | None]


def diverged(s: Signals) -> Judged | None:
    """A loss that became NaN or infinite, or rose again by half of what it had fallen."""
    for curve in (s.every_loss, s.validation_loss):
        wrong = np.flatnonzero(~np.isfinite(curve.y)) if curve else np.empty(0, dtype=int)
        if curve and len(wrong):
            x = float(curve.x[wrong[0]])
            return _judged(
                s,
                "diverged",
                "Diverged",
                "a loss became NaN or infinite",
                f"{curve.column} is {curve.y[wrong[0]]} at {s.log.at(x)}, and {len(wrong)} of {len(curve)} times",
                "high",
                "Go back to a checkpoint from before, with a third of the learning rate, a warmup, or clipping.",
                x,
            )
    return _rose(s)


def _rose(s: Signals) -> Judged | None:
    loss = s.loss
    if loss is None or len(loss) < FEW:
        return None
    lowest = int(np.argmin(loss.y))
    low, last = float(loss.y[lowest]), ending(loss.y)
    fell = float(loss.y[0]) - low
    unsure = SURE * noise(loss.y) * math.sqrt(1 + 1 / tail(loss.y))
    if last - low <= max(LOST * fell, 0.2 * abs(low), unsure):
        return None
    return _judged(
        s,
        "diverged",
        "The training loss rises again",
        "the training loss lost half of what it had gained",
        f"{loss.column} fell to {low:.3g} at {s.log.at(loss.x[lowest])} and ends near {last:.3g}",
        "high" if last > loss.y[0] else "medium",
        "Lower the learning rate to a third, warm it up, or clip gradients.",
        loss.x[lowest],
    )


def not_learning(s: Signals) -> Judged | None:
    """A training loss that has not fallen, and no metric that has risen."""
    loss = s.loss
    if loss is None or len(loss) < FEW or s.is_short or _nearly_all(s):
        return None
    fell = float(loss.y[0]) - float(loss.y.min())
    if fell > max(NO_FALL * abs(float(loss.y[0])), SURE * noise(loss.y)):
        return None
    if s.metric and len(s.metric) >= FEW and float(np.ptp(s.metric.y)) > SURE * noise(s.metric.y) + LATE:
        return None
    return _judged(
        s,
        "not_learning",
        "The model is not learning",
        "the training loss never falls",
        f"{loss.column} begins at {loss.y[0]:.4g} and is {ending(loss.y):.4g} at the end, after {_length(s.log)}",
        "high" if len(loss) >= 10 else "medium",
        "Try to learn one batch by heart; if that works, try learning rates ten times higher and lower, else look at "
        "labels, frozen weights and the loss.",
        0.0,
    )


def overfitting(s: Signals) -> Judged | None:
    """Validation loss rises while training loss falls on."""
    curve = s.validation_loss
    if curve is None or len(curve) < FEW:
        return None
    best = int(np.argmin(curve.y))
    low, near = around(curve.y, best)
    last = ending(curve.y)
    unsure = SURE * noise(curve.y) * math.sqrt(1 / tail(curve.y) + 1 / near)
    if last - low <= max(RISE * abs(low), unsure):
        return None
    where = float(curve.x[best])
    before = s.train_at(where - s.log.end / 10, where) if s.loss else math.nan
    after = ending(s.loss.y) if s.loss else math.nan
    if after > FITTING * before:
        return None
    worse = _metric_fell(s)
    falling = (
        f", while {s.loss.column} falls from about {before:.3g} to {after:.3g}" if s.loss and before > after else ""
    )
    lowest = f"{curve.column} is lowest at {s.log.at(where)} ({curve.y[best]:.3g})"
    evidence = f"{lowest} and ends near {last:.3g}{falling}"
    sure = last - low > 2 * max(2 * RISE * abs(low), unsure) and len(curve) >= 5
    if worse is False and s.metric is not None:
        return _judged(
            s,
            "overconfident",
            "Overconfident: validation loss rises, its metric does not fall",
            "the validation loss rises while the training loss falls, and the metric stays",
            f"{evidence}; {s.metric.column} does not fall, near {_told(s, abs(ending(s.metric.y)))}",
            "medium" if sure else "low",
            f"If probabilities matter, stop near {s.log.at(where)}, smooth labels, or calibrate the temperature (Guo "
            "et al., 2017); if only the metric matters, keep the last checkpoint.",
            where,
        )
    return _judged(
        s,
        "overfitting",
        "Overfitting",
        "the validation loss rises while the training loss falls",
        evidence,
        "high" if sure else "medium",
        f"Keep the checkpoint of {s.log.at(where)}; then regularise (augmentation, weight decay, dropout), get more "
        "data, or start from pretrained weights.",
        where,
    )


def _metric_fell(s: Signals) -> bool | None:
    """Whether the validation metric ends clearly below its best; None where there is none."""
    curve = s.metric
    if curve is None or len(curve) < FEW:
        return None
    best = int(np.argmax(curve.y))
    high, near = around(curve.y, best)
    unsure = SURE * noise(curve.y) * math.sqrt(1 / tail(curve.y) + 1 / near)
    return high - ending(curve.y) > max(LATE * _unit(s), unsure)


def gap(s: Signals) -> Judged | None:
    """The metric of training rows far above that of validation rows."""
    ends = s.gap()
    meaning = s.log.metric
    if ends is None or meaning is None or meaning.quantity not in BOUNDED or s.is_short:
        return None
    train, validation = ends
    if train - validation <= max(GAP, 0.3 * (1 - validation)):
        return None
    return _judged(
        s,
        "overfitting",
        "Overfitting: training rows are known far better than validation rows",
        "the metric of training rows is far above that of validation rows",
        f"{meaning.called} is {train:.1%} on training rows and {_told(s, validation)} on validation rows at the end",
        "high" if train - validation > 2 * GAP else "medium",
        "Regularise (augmentation, weight decay, dropout), get more data, or start from pretrained weights.",
        s.log.end * 0.8,
    )


def restless(s: Signals) -> Judged | None:
    """Validation that jumps from one evaluation to the next."""
    curve = s.metric if s.metric is not None and len(s.metric) >= MANY else s.validation_loss
    if curve is None or len(curve) < MANY or _nearly_all(s):
        return None
    begin = len(curve) // 3  # jumps before it are learning
    wild = noise(curve.y[begin:])
    least = 0.02 * _unit(s) if curve is s.metric else 0.1 * float(np.median(np.abs(curve.y)))
    if wild <= max(least, RESTLESS * float(np.ptp(curve.y))):
        return None
    drop = begin + int(np.argmax(np.abs(np.diff(curve.y[begin:]))))
    before, after = abs(curve.y[drop]), abs(curve.y[drop + 1])
    return _judged(
        s,
        "restless",
        "Validation jumps from one evaluation to the next",
        "the validation curve varies by more between neighbours than it moves over the run",
        f"{curve.column} varies by ±{wild:.2g} from one evaluation to the next, such as from {before:.3g} to "
        f"{after:.3g} at {s.log.at(curve.x[drop + 1])}",
        "medium",
        "Do not choose a checkpoint by one such value. Let the learning rate come down at the end, average weights "
        "(EMA), use larger batches or more validation rows; with small batches, batch norm's statistics lag.",
        float(curve.x[drop]),
    )


def unfinished(s: Signals) -> Judged | None:
    """Validation still gets better at the end."""
    if s.is_short or _nearly_all(s):
        return None
    loss = s.validation_loss
    falls, rises = False, False
    if loss is not None and len(loss) >= FEW:
        gained, error = late_gain(loss)
        at_minimum = ending(loss.y) <= float(loss.y.min()) + max(0.02 * abs(float(loss.y.min())), noise(loss.y))
        falls = -gained > max(LATE_LOSS * abs(ending(loss.y)), SURE * error) and at_minimum
    metric = s.metric
    if metric is not None and len(metric) >= FEW:
        gained, error = late_gain(metric)
        rises = gained > max(LATE * _unit(s), SURE * error)
    if not (falls or rises):
        return None
    what = [
        f"{curve.column} {'fell' if curve is loss else 'moved'} by {abs(late_gain(curve)[0]):.2g} over the last third, "
        f"to {abs(ending(curve.y)):.3g}"
        for curve, holds in ((loss, falls), (metric, rises))
        if holds and curve is not None
    ]
    down = s.rate_left < DECAYED
    return _judged(
        s,
        "too_short",
        "Not trained long enough",
        "validation still gets better at the end",
        f"{' and '.join(what)}, after {_length(s.log)}",
        "medium" if falls and (rises or metric is None) else "low",
        "Train two to three times as long"
        + (", with the schedule stretched: its rate has come down, so that going on gains little." if down else "."),
        s.log.end * 2 / 3,
    )


def plateau(s: Signals) -> Judged | None:
    """Training and validation stand still while the learning rate is high."""
    loss = s.loss
    if loss is None or len(loss) < 6 or s.is_short or s.rate_left < 1 - 1e-9:
        return None
    gained, error = late_gain(loss)
    if abs(gained) > max(LATE_LOSS * abs(ending(loss.y)), SURE * error) or _nearly_all(s) or _fitted(s):
        return None
    known = "its rate never changed" if s.rate_left == 1 else "no learning rate was recorded"
    return _judged(
        s,
        "plateau",
        "Plateau: time to lower the learning rate",
        "the training loss no longer falls, and the learning rate has not come down",
        f"{loss.column} stays near {ending(loss.y):.3g} over the last third, and {known}",
        "medium" if s.rate_left == 1 else "low",
        "Lower the learning rate tenfold from here, or train with a schedule that comes down (cosine).",
        s.log.end * 2 / 3,
    )


RULES: tuple[Rule, ...] = (overfitting, gap, restless, unfinished, plateau)
FATAL: tuple[Rule, ...] = (diverged, not_learning)


def nothing_wrong(s: Signals) -> Judged:
    """What is said where no rule holds."""
    metric = s.metric
    if s.evaluations == 0:
        first = s.every_loss.y[0] if s.every_loss else 0.0
        what = f"the training loss falls from {first:.3g} to {ending(s.loss.y):.3g}" if s.loss else "there is no loss"
        return _judged(
            s,
            "nothing_seen",
            "The training loss falls; nothing was measured on validation rows",
            "no rule found a problem in the training loss, and there is no other curve",
            f"{what}, after {_length(s.log)}",
            "low",
            "Measure rows that are not trained on, at least once an epoch.",
            0.0,
            good=True,
        )
    shown = f"{metric.column} ends near {_told(s, abs(ending(metric.y)))}" if metric else ""
    loss = f"{s.validation_loss.column} ends near {ending(s.validation_loss.y):.3g}" if s.validation_loss else ""
    evidence = " and ".join(each for each in (shown, loss) if each) + f", after {_length(s.log)}"
    if _nearly_all(s):
        return _judged(
            s,
            "healthy",
            "Healthy",
            "no rule found a problem, and little is left to gain",
            evidence,
            "medium",
            "Nothing needs to be changed.",
            s.log.end,
            good=True,
        )
    if _is_low(s):
        return _judged(
            s,
            "unclear",
            "Low accuracy, and no clear cause",
            "fewer than half of the validation rows are right, and no rule found a reason",
            evidence,
            "low",
            "Train for longer; if that changes nothing, look at images and labels, and try rates ten times higher and "
            "lower. With many classes this may be far above a guess: compare with 1 / classes.",
            0.0,
        )
    return _judged(
        s,
        "nothing_seen",
        "Nothing wrong seen; what is reachable is not known",
        "no rule found a problem",
        evidence,
        "low",
        "To see what is reachable, train three times as long, with a larger model, or from pretrained weights.",
        s.log.end,
        good=True,
    )


def too_little(s: Signals) -> Judged:
    """What is said of a few values."""
    return _judged(
        s,
        "too_little",
        "Too short to judge",
        f"fewer than {FEW} evaluations and {FEW} epochs were recorded",
        f"after {_length(s.log)} every curve is still changing, whether anything is wrong or not",
        "high",
        "Train for at least ten epochs, or evaluate more often, before judging the curves.",
        0.0,
        good=True,
    )


def _nearly_all(s: Signals) -> bool:
    meaning = s.log.metric
    bounded = meaning is not None and meaning.quantity in BOUNDED
    return bool(bounded and s.metric is not None and ending(s.metric.y) >= NEARLY_ALL)


def _is_low(s: Signals) -> bool:
    meaning = s.log.metric
    return bool(meaning and meaning.quantity == "accuracy" and s.metric and ending(s.metric.y) < LOW)


def _fitted(s: Signals) -> bool:
    """Whether nearly all training rows are right, so that their loss has nowhere to fall."""
    known = [curve for each, curve in s.log.curves.items() if each.split == "train" and each.quantity in BOUNDED]
    return any(ending(curve.y) >= NEARLY_ALL for curve in known)


def _unit(s: Signals) -> float:
    """1 for a metric of at most 1; the size of others."""
    meaning = s.log.metric
    if meaning is None or s.metric is None or meaning.quantity in BOUNDED:
        return 1.0
    return float(np.median(np.abs(s.metric.y)))


def _told(s: Signals, value: float) -> str:
    """A metric in words, with its interval where it is an accuracy and the user said of how many rows."""
    meaning = s.log.metric
    if meaning is None or meaning.quantity not in BOUNDED:
        return f"{value:.4g}"
    return in_words(value, s.log.rows) if meaning.quantity == "accuracy" and s.log.rows else f"{value:.1%}"


def _length(log: Log) -> str:
    if log.axis == "epoch" or not math.isfinite(log.epochs):
        return log.at(log.end) if log.axis == "step" else f"{log.epochs:.3g} epochs"
    return f"{log.end:,.0f} steps ({log.epochs:.3g} epochs)"


def _judged(
    s: Signals,
    name: str,
    title: str,
    rule: str,
    evidence: str,
    confidence: Confidence,
    advice: str,
    begin: float,
    good: bool = False,
) -> Judged:
    return Judged(Finding(name, title, rule, evidence, confidence, advice, good=good), float(begin), s.log.end)
