"""Step 2, overfit a small sample: a network that cannot memorise a few batches will not learn from more data.

It trains on the same few batches, without regularisation and augmentation, until it classifies every image correctly.
Any learning rate will do at this point: the job's own is tried first, then the usual ones.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lehr.data.dataset import UNREADABLE, Batch
from lehr.formatting import count_of
from lehr.intervals import in_words, no_better
from lehr.job import Training
from lehr.recipe.measurement import (
    FULL_UPDATES,
    NO_VALUE,
    entropy,
    finish,
    fixed_sample,
    loss_of_a_guess,
    write_progress,
)
from lehr.recipe.results import UNEQUAL, FrozenModel, Result, Verdict
from lehr.runs import BestValue, RunFolder
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.optimizers import usual_rate
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.training.stopping import Enough
from lehr.training.train_step import TrainStep
from lehr.trials import TrialCallbacks

SHARE = 0.5  # of the budget at most; a network that memorises a sample takes far less
SMALL_SHARE = 0.05  # of a budget of fewer than `FULL_UPDATES`, nearly all of which the final training needs
LEAST_ROWS = 4  # of a batch
BATCHES, MOST_ROWS = 5, 64  # 5 batches of at most 64 images: few enough to memorise in a minute
STEPS = 400  # updates of an attempt: 80 passes over the 5 batches
MOST_STEPS = 1600  # of an attempt that is nearly there: a small network takes its time
NEARLY = 0.9  # accuracy on the sample
LOOK = 10  # updates between measurements of the accuracy
PATIENCE = 60  # updates after which an attempt is given up if its loss rises or its weights do not move
LONG_PATIENCE = 150  # updates after which one is given up if its loss is no better than that of a guess

MOVED = 0.02  # share of the initial loss by which it must fall to count as falling: batch noise is about 0.01
FROZEN = 1e-4  # |Δw|/|w| of an update: 4e-3 and more in healthy runs, below this if the rate is far too low
NO_BETTER = 0.9  # above this share of the loss of a guess, almost nothing about single images was learned
ALMOST = 0.5  # share of the initial loss by which it must fall for an unfinished attempt to be on its way

AttemptOutcome = Literal["memorised", "diverged", "frozen", "on its way", "stuck"]


class OverfitAttempt(FrozenModel):
    """Training on the sample at one learning rate.

    Attributes:
        losses: before each update, up to the first that is not finite.
        accuracies: (number of updates, accuracy on the whole sample in training mode).
        update: median |Δw|/|w| of an update.
    """

    rate: float
    losses: tuple[float, ...]
    accuracies: tuple[tuple[int, float], ...]
    update: float
    diverged: bool = False

    @property
    def accuracy(self) -> float:
        return self.accuracies[-1][1] if self.accuracies else 0.0

    @property
    def start(self) -> float:
        return statistics.fmean(self.losses[:BATCHES]) if self.losses else math.nan

    @property
    def end(self) -> float:
        return statistics.fmean(self.losses[-BATCHES:]) if self.losses else math.nan

    @property
    def fell(self) -> float:
        """By which share of its first value the loss fell; negative if it rose or is no number."""
        fell = (self.start - self.end) / max(abs(self.start), 1e-12)
        return -math.inf if self.diverged or math.isnan(fell) else fell

    @property
    def outcome(self) -> AttemptOutcome:
        """How this attempt went."""
        if self.accuracy == 1.0:
            return "memorised"
        fell = self.fell
        if self.diverged or fell < -0.05:
            return "diverged"
        if fell < MOVED and self.update < FROZEN:
            return "frozen"
        return "on its way" if fell > ALMOST else "stuck"


class OverfitCheck(Result):
    """The attempts to memorise the sample, and whether what was learned holds for other images.

    Attributes:
        rows: images in the sample. batch: images in one of its batches. counts: of each class in the sample.
        validation_rows, validation_accuracy: of the network that memorised the sample. common: the share of the most
            frequent class among the validation images.
        failed: why the measurement failed.
        base_rate: the job's own learning rate, which is tried first.
        guess_loss: the loss of the best guess that looks at no image; NaN if that of cross entropy.
        training_rows: all training images. epochs: what the attempts took, in passes over them.
        value: the job's metric on the validation rows, of the network that the step leaves; NaN if it leaves none.
            test: its test accuracy. lower: whether lower values are better.
        cut: why the attempts ended before they could tell, as a sentence; empty if they did not.
    """

    rows: int = 0
    batch: int = 0
    counts: tuple[int, ...] = ()
    attempts: tuple[OverfitAttempt, ...] = ()
    base_rate: float = math.nan
    failed: str = ""
    validation_rows: int = 0
    validation_accuracy: float = math.nan
    common: float = math.nan
    guess_loss: float = math.nan
    training_rows: int = 0
    epochs: float = 0.0
    value: float = math.nan
    test: float | None = None
    lower: bool = False
    cut: str = ""

    @property
    def guess(self) -> float:
        return entropy(self.counts) if math.isnan(self.guess_loss) else self.guess_loss

    @property
    def best_rate(self) -> float | None:
        """The rate at which an attempt came furthest; None if none learned: the loss fell below that of a guess.

        At a rate that is far too high the loss falls from what the first updates made of it.
        """
        fell = [
            each
            for each in self.attempts
            if each.outcome == "memorised" or (each.fell > MOVED and not each.end > self.guess)
        ]
        return min(fell, key=lambda each: (each.outcome != "memorised", each.end)).rate if fell else None

    @property
    def last(self) -> OverfitAttempt:
        return self.attempts[-1]

    @property
    def steps(self) -> int:
        """Updates of all attempts."""
        return sum(len(attempt.losses) for attempt in self.attempts)

    @property
    def at_chance(self) -> bool:
        """Whether the validation rows show that it is no better than always predicting the most frequent class."""
        return no_better(self.validation_accuracy, self.common, self.validation_rows)

    @property
    def validation_in_words(self) -> str:
        """The validation accuracy with its interval."""
        return in_words(self.validation_accuracy, self.validation_rows)


# ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def rates_to_try(base: Training) -> list[float]:
    """The job's own learning rate, then the usual one of its optimizer, a tenth, ten times and a hundredth of it."""
    usual = usual_rate(base.optimizer)
    return list(dict.fromkeys([base.optimizer.rate, usual, usual / 10, 10 * usual, usual / 100]))


def judge(r: OverfitCheck) -> Verdict:
    """Whether the network memorised the sample; if not, the most likely cause."""
    if r.failed:
        return Verdict(False, f"{r.failed}.", "The recipe stops here.")
    tried = ", ".join(f"{attempt.rate:g}" for attempt in r.attempts)
    if r.cut and (not r.attempts or r.last.outcome != "memorised"):
        return Verdict(True, " ".join(filter(None, [r.cut, _so_far(r)])), "The next step uses all data.")
    if r.last.outcome != "memorised":
        why = cause(r)
        return Verdict(
            False,
            f"{why}. The network did not memorise {r.rows} training images at any of the learning rates {tried}.",
            "The recipe stops here: a network that cannot memorise a few images will not learn from more.",
        )
    unequal = r.common > UNEQUAL  # no better than the most frequent class is no ground to stop there
    if r.at_chance and not unequal and r.rows >= 20 * len([count for count in r.counts if count]):
        return Verdict(
            False,
            f"The labels look unrelated to the images: the network memorised all {r.rows} images of the sample, but "
            f"classifies only {r.validation_in_words} of {r.validation_rows} others correctly, no better than "
            f"always predicting the most frequent class ({r.common:.1%}). Check how labels are read and matched to "
            "images, in the training and in the validation data.",
            "The recipe stops here: there is only noise to learn.",
        )
    found = (
        f"At learning rate {r.last.rate:g}, the network memorised all {r.rows} images within {len(r.last.losses)} "
        f"updates. It already classifies {r.validation_in_words} of the validation images correctly (always "
        f"predicting the most frequent class: {r.common:.1%})"
    )
    first = r.attempts[0]
    if len(r.attempts) > 1:
        words = {"diverged": "is too high: the loss rose", "frozen": "is too low: the weights hardly moved"}
        how = words.get(first.outcome, "did not succeed")
        found += f". The job's own learning rate of {first.rate:g} {how}"
    return Verdict(
        True, f"{found}.", "The network, the loss and the labels work together; the next step uses all data."
    )


def _so_far(r: OverfitCheck) -> str:
    """How far the last attempt had come when it was cut short."""
    if not r.attempts:
        return ""
    share, updates = f"{r.last.accuracy:.0%}", len(r.last.losses)
    value = f", and {r.validation_in_words} of the validation images" if r.validation_rows else ""
    return (
        f"At learning rate {r.last.rate:g}, the network classifies {share} of {r.rows} images correctly after "
        f"{updates} updates{value}; whether it can memorise them all stays open."
    )


def cause(r: OverfitCheck) -> str:
    """The most likely reason why no attempt memorised the sample."""
    outcomes = [attempt.outcome for attempt in r.attempts]
    best = min(r.attempts, key=lambda attempt: attempt.end if math.isfinite(attempt.end) else math.inf)
    moving = max(attempt.update for attempt in r.attempts)
    if all(each == "diverged" for each in outcomes):
        lowest = min(attempt.rate for attempt in r.attempts)
        return f"Bad initialization, or all learning rates too high: the loss rises even at {lowest:g}"
    if moving < 1e-6:
        return (
            "Nothing is trainable: the weights do not move at any learning rate, so they get no gradient, or the "
            "optimizer does not have them"
        )
    if "on its way" in outcomes:
        highest = ", the highest that was tried," if best.rate == max(a.rate for a in r.attempts) else ""
        return (
            f"The network is too small, or the learning rate too low: at {best.rate:g}{highest} the loss went from "
            f"{best.start:.3g} to {best.end:.3g}, and {best.accuracy:.0%} of the images are classified correctly after "
            f"{len(best.losses)} updates"
        )
    if all(each in ("frozen", "diverged") for each in outcomes):
        return (
            "Bad initialization: at low learning rates the weights hardly move, at high ones the loss rises, and none "
            "in between works"
        )
    if best.end > NO_BETTER * r.guess > 0:
        return (
            f"Labels do not seem to match inputs: the weights move, yet the loss stays at {best.end:.3g}, no better "
            f"than that of a guess ({r.guess:.3g}). Either the labels belong to other images (see: lehr data show), or "
            "almost nothing of an image gets through the network (a bottleneck, a bad initialization)"
        )
    return (
        f"The network cannot tell these images apart: at learning rate {best.rate:g} the loss stays at {best.end:.3g} "
        f"(a guess gives {r.guess:.3g}), with {best.accuracy:.0%} of the images classified correctly; the network is "
        "too small, or a part of it discards what distinguishes them"
    )


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────────


def overfit_sample(
    plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks, budget: float = math.inf
) -> None:
    """Tries one learning rate after the other until one memorises the sample; leaves an `OverfitCheck` and a model.

    Args:
        budget: of the whole recipe, in passes over all training images; the step may take a share of it.
    """
    epochs = budget * (SHARE if budget * plan.length.steps_per_epoch >= FULL_UPDATES else SMALL_SHARE)
    size, everything = min(plan.job.train.batch_size, MOST_ROWS), len(plan.splits.train)
    if math.isfinite(epochs):  # smaller batches rather than too few updates to tell anything
        size = min(size, max(LEAST_ROWS, int(epochs * everything / PATIENCE)))
    batch, rows = fixed_sample(plan, BATCHES * size, group, "overfit")
    shares = _shares(batch, rows, size, group)
    updates = math.floor(epochs * everything * len(shares) / rows) if math.isfinite(epochs) else MOST_STEPS * 99
    attempts: list[OverfitAttempt] = []
    rates, cut = rates_to_try(plan.job), ""
    for number, rate in enumerate(rates):
        headline = f"memorising {rows} images at learning rate {rate:g}"
        write_progress(run, group, "running", headline, number / len(rates))
        left = (updates - sum(len(each.losses) for each in attempts)) // LOOK * LOOK
        if left < (LOOK if attempts else PATIENCE // 2):
            cut = no_room(epochs, bool(attempts))
            break
        model, made, stop = attempt(plan, group, batch, rows, shares, rate, callbacks, left)
        if stop and not isinstance(stop, Enough):
            write_progress(run, group, "stopped", "stopped", number / len(rates))
            return
        attempts += [made] if made else []
        if made and made.outcome == "memorised":
            break
        if stop or (made and not has_ended(made, loss_of_a_guess(plan, _counts(plan, batch, group)))):
            cut = f"Cut short: {stop}." if stop else no_room(epochs, True)
            break
    trained = sum(len(shares[step % len(shares)][0].targets) for each in attempts for step in range(len(each.losses)))
    result = OverfitCheck(
        rows=rows,
        batch=size,
        counts=(counts := _counts(plan, batch, group)),
        guess_loss=loss_of_a_guess(plan, counts),
        attempts=tuple(attempts),
        base_rate=plan.job.optimizer.rate,
        training_rows=everything,
        epochs=float(group.sum(torch.tensor([float(trained)], dtype=torch.float64))[0]) / max(1, everything),
        cut=cut,
    )
    best, metrics = NO_VALUE, dict[str, float]()
    if attempts and (result.last.outcome == "memorised" or cut):
        result, best, metrics = _keep(model, result, plan, run, group)
    accuracy = f"{result.last.accuracy:.1%}" if attempts else ""
    finish(run, group, result, judge(result).found, {"images": str(rows), "accuracy": accuracy}, best, metrics)


def no_room(epochs: float, begun: bool) -> str:
    """That the budget ends the step."""
    room = count_of(round(epochs, 2), "epoch")
    return f"{'Cut short' if begun else 'Left out'}: the budget has room for {room} of it."


def _keep(
    model: nn.Module, result: OverfitCheck, plan: Plan, run: RunFolder, group: Group
) -> tuple[OverfitCheck, BestValue, dict[str, float]]:
    """Measures the network that an attempt trained, and writes it as the model of the step: it may be the best of all.

    On small data, memorising a sample is most of a training.
    """
    labels, metric = plan.splits.validation.labels, plan.job.train.metric
    found = evaluate(model, plan.splits.validation, plan, group)
    metrics = {f"validation_{name}": value for name, value in found.items()}
    value = metrics.get(metric, math.nan)
    if plan.splits.test:
        test = evaluate(model, plan.splits.test, plan, group, split="test")
        metrics |= {f"test_{name}": each for name, each in test.items()}
    if group.first:
        origin: dict[str, str | int | None] = {"step": len(result.last.losses), "weights": "raw"}
        description = dataclasses.replace(plan.describe_model(), origin=origin, metrics={metric: value})
        run.write_model(model.state_dict(), description.to_json())
    measured = {
        "validation_rows": len(labels),
        "validation_accuracy": found["accuracy"],
        "common": float(torch.bincount(labels).max()) / len(labels),
        "value": value,
        "test": metrics.get("test_accuracy"),
        "lower": plan.job.lower_is_better(metric),
    }
    return result.model_copy(update=measured), BestValue(metric, value), metrics


def attempt(
    plan: Plan,
    group: Group,
    batch: Batch,
    rows: int,
    shares: Sequence[tuple[Batch, int]],
    rate: float,
    callbacks: TrialCallbacks,
    most: int = MOST_STEPS,
) -> tuple[nn.Module, OverfitAttempt | None, str | None]:
    """Trains from the initial weights on the same batches over and over.

    Args:
        shares: this worker's part of each batch, and the rows of the whole batch.
        most: updates at most, a multiple of `LOOK`.

    Returns:
        The network, how it went, and why it was asked to stop, if so.
    """
    model = prepare_model(plan, group)
    without_dropout(model)
    sampler = dataclasses.replace(
        plan.sampler, shards=1, dealt=None
    )  # worker r of n has rows r, r + n, … of the sample
    plan = dataclasses.replace(plan, sampler=sampler, learning_rate=lambda step: rate)
    train_step = TrainStep(plan, model, group)
    known = loss_of_a_guess(plan, _counts(plan, batch, group))
    losses: list[float] = []
    ratios: list[float] = []
    accuracies: list[tuple[int, float]] = []
    waiting: list[Tensor] = []
    made, stop = None, None
    model.train()
    for step in range(min(most, MOST_STEPS)):
        part, whole = shares[step % len(shares)]
        loss, _, ratio = train_step(part, whole, step)
        waiting.append(loss)
        if ratio is not None:
            ratios.append(float(ratio))
        if (step + 1) % LOOK:
            continue
        stop = group.broadcast(callbacks.should_stop() if group.first else None)
        if stop and not isinstance(stop, Enough):
            break
        losses += group.sum(torch.stack(waiting).double()).tolist()
        waiting.clear()
        accuracies.append((step + 1, _accuracy(model, plan, shares, group)))
        if broken := next((i for i, value in enumerate(losses) if not math.isfinite(value)), None):
            losses = losses[:broken]
        made = OverfitAttempt(
            rate=rate,
            losses=tuple(losses),
            accuracies=tuple(accuracies),
            update=statistics.median(r for r in ratios if math.isfinite(r)) if any(map(math.isfinite, ratios)) else 0.0,
            diverged=broken is not None,
        )
        if stop or made.outcome == "memorised" or has_ended(made, known):
            break
    return model, made, stop


def has_ended(made: OverfitAttempt, guess: float) -> bool:
    """Whether an attempt has had all updates that an attempt may have, or will clearly not succeed."""
    return made.diverged or len(made.losses) >= MOST_STEPS or is_over(made, guess)


def is_over(made: OverfitAttempt, guess: float) -> bool:
    """Whether an attempt that has not memorised the sample has had all its updates or will clearly not succeed."""
    if len(made.losses) >= STEPS and made.accuracy < NEARLY:
        return True
    if len(made.losses) >= LONG_PATIENCE and made.end > NO_BETTER * guess > 0:
        return True
    return len(made.losses) >= PATIENCE and made.outcome in ("diverged", "frozen")


def without_dropout(model: nn.Module) -> None:
    """Turns off whatever drops units or layers at random during training."""
    for module in model.modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.dropout._DropoutNd) or kind == "StochasticDepth":
            module.p = 0.0  # type: ignore[assignment]
        elif kind == "DropPath":
            module.drop_prob = 0.0  # type: ignore[assignment]


def _shares(batch: Batch, rows: int, size: int, group: Group) -> list[tuple[Batch, int]]:
    """This worker's part of each global batch, and the number of rows in the whole batch."""
    found = []
    for begin in range(0, rows, size):
        end = min(begin + size, rows)
        first, last = (max(0, -(-(edge - group.rank) // group.size)) for edge in (begin, end))
        found.append((Batch(batch.inputs[first:last], batch.targets[first:last], batch.ids[first:last]), end - begin))
    return found


@torch.no_grad()
def _accuracy(model: nn.Module, plan: Plan, shares: Sequence[tuple[Batch, int]], group: Group) -> float:
    """Accuracy on the sample in training mode, because the running statistics of batch norms lag behind."""
    right = torch.zeros(2, dtype=torch.float64, device=group.device)
    for part, _ in shares:
        known = part.targets != UNREADABLE
        right[0] += (model(plan.inputs(part.inputs)).argmax(1) == part.targets)[known].sum()
        right[1] += known.sum()
    correct, readable = group.sum(right).tolist()
    return float(correct / max(readable, 1))


def _counts(plan: Plan, batch: Batch, group: Group) -> tuple[int, ...]:
    targets = batch.targets[batch.targets != UNREADABLE]
    return tuple(map(int, group.sum(torch.bincount(targets, minlength=plan.task.outputs).double()).tolist()))
