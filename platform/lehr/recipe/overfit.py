"""Step 2, overfit a small sample: a network that cannot learn a few batches by heart will not learn from more.

Regularisation and augmentation off, the same few batches every time, until every training image is right. Which rate
does it is not asked yet, so the job's own rate is tried first and the usual ones after it.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import statistics
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lehr.data.dataset import UNREADABLE, Batch
from lehr.job import Training
from lehr.recipe.results import Result, Verdict, conclude, entropy, sample, tell
from lehr.runs import RunFolder
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.optimizers import OPTIMIZERS
from lehr.training.setup import Plan
from lehr.training.updates import Updates, network
from lehr.trials import TrialCallbacks

BATCHES, MOST_ROWS = 5, 64  # 5 batches, each of at most 64 images: small enough to be learned by heart in a minute
STEPS = 400  # updates of an attempt: 80 passes over the 5 batches
MOST_STEPS = 1600  # of one that is nearly there: a small network gets there slowly
NEARLY = 0.9  # share of the sample that is right
LOOK = 10  # updates between looks at the accuracy
PATIENCE = 60  # updates after which an attempt that rises, or does not move, is given up
LONG_PATIENCE = 150  # updates after which one is given up that has no better loss than a guess

MOVED = 0.02  # share of its start that the loss must have lost to count as falling: the noise of batches is about 0.01
FROZEN = 1e-4  # |Δw|/|w| of a step: healthy runs move by 4e-3 and more, far too low rates by less than this
NO_BETTER = 0.9  # a loss above this share of a guess's has learned next to nothing about single images
ALMOST = 0.5  # share of the loss's start that must be gone for an unfinished attempt to be on its way

Looks = Literal["learned", "diverged", "frozen", "on its way", "stuck"]


class Attempt(Result):
    """Training on the sample at one rate.

    Attributes:
        losses: of each update, before it; up to the first that is not finite.
        accuracies: (updates, accuracy on the whole sample in training mode).
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
    def looks(self) -> Looks:
        """What this attempt looks like."""
        if self.accuracy == 1.0:
            return "learned"
        if self.diverged or self.end > 1.05 * self.start:
            return "diverged"
        fell = 1 - self.end / self.start
        if fell < MOVED and self.update < FROZEN:
            return "frozen"
        return "on its way" if fell > ALMOST else "stuck"


class Overfit(Result):
    """The attempts to learn the sample by heart, and whether what was learned says anything about other images.

    Attributes:
        rows: images in the sample. batch: images in one of its batches. counts: of each class in the sample.
        validation_rows, validation_accuracy: of the network that learned the sample; common: the share of the most
            frequent class among them.
        failed: why it could not even be tried.
        base_rate: the job's own rate, which is tried first.
    """

    rows: int = 0
    batch: int = 0
    counts: tuple[int, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    base_rate: float = math.nan
    failed: str = ""
    validation_rows: int = 0
    validation_accuracy: float = math.nan
    common: float = math.nan

    @property
    def guess(self) -> float:
        return entropy(self.counts)

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def steps(self) -> int:
        """Updates of all attempts."""
        return sum(len(attempt.losses) for attempt in self.attempts)

    @property
    def above_chance(self) -> bool:
        """Whether the rows outside the sample are told better than by always saying the most frequent class."""
        error = math.sqrt(max(self.common * (1 - self.common), 1e-9) / max(self.validation_rows, 1))
        return self.validation_accuracy > self.common + 3 * error


# ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def rates_to_try(base: Training) -> list[float]:
    """The job's own rate, then the usual one of its optimizer, a tenth, ten times and a hundredth of it."""
    usual = usual_rate(base)
    return list(dict.fromkeys([base.optimizer.lr, usual, usual / 10, 10 * usual, usual / 100]))


def usual_rate(base: Training) -> float:
    """0.1 for SGD; for others what torch gives them."""
    name = base.optimizer.name.lower()
    default = inspect.signature(OPTIMIZERS[name]).parameters["lr"].default
    return 0.1 if name == "sgd" else float(default)


def judge(r: Overfit) -> Verdict:
    """Whether the sample was learned; if not, which of the usual causes it looks like."""
    if r.failed:
        return Verdict(False, f"{r.failed}.", "The recipe ends here.")
    tried = ", ".join(f"{attempt.rate:g}" for attempt in r.attempts)
    if r.last.looks != "learned":
        why = cause(r)
        return Verdict(
            False,
            f"{why}. {r.rows} training images were not learned by heart at any of the rates {tried}.",
            "The recipe ends here: what cannot learn a few images will not learn from more.",
        )
    if not r.above_chance and r.validation_rows and r.rows >= 20 * len([count for count in r.counts if count]):
        return Verdict(
            False,
            f"The labels look unrelated to the images: all {r.rows} images of the sample were learned by heart, and of "
            f"{r.validation_rows} others {r.validation_accuracy:.1%} are right, no more than by always saying the most "
            f"frequent class ({r.common:.1%}). Check how labels are read and put beside their images, in the training "
            "data and in the validation data.",
            "The recipe ends here: there is nothing to learn but noise.",
        )
    found = (
        f"At rate {r.last.rate:g} all {r.rows} images were right after {len(r.last.losses)} updates. Other images are "
        f"right in {r.validation_accuracy:.1%} of cases already (always saying the most frequent class: {r.common:.1%})"
    )
    first = r.attempts[0]
    if len(r.attempts) > 1:
        words = {"diverged": "is too high: the loss rose", "frozen": "is too low: the weights hardly moved"}
        how = words.get(first.looks, "did not get there")
        found += f". The job's own rate of {first.rate:g} {how}"
    return Verdict(True, f"{found}.", "The network, the loss and the labels can work together; next, all the data.")


def cause(r: Overfit) -> str:
    """Why no attempt learned the sample, as far as it shows."""
    looks = [attempt.looks for attempt in r.attempts]
    best = min(r.attempts, key=lambda attempt: attempt.end if math.isfinite(attempt.end) else math.inf)
    moving = max(attempt.update for attempt in r.attempts)
    if all(each == "diverged" for each in looks):
        lowest = min(attempt.rate for attempt in r.attempts)
        return f"Bad initialization, or rates all too high: the loss rises even at rate {lowest:g}"
    if moving < 1e-6:
        return (
            "Nothing is trainable: the weights do not move at any rate, so no gradient arrives or the optimizer does "
            "not hold them"
        )
    if "on its way" in looks:
        rising = " at the highest rate that held" if best.rate == max(a.rate for a in r.attempts) else ""
        return (
            f"The network is too small, or the rate too low: at rate {best.rate:g}{rising} the loss went from "
            f"{best.start:.3g} to {best.end:.3g} and {best.accuracy:.0%} of the images are right after "
            f"{len(best.losses)} updates"
        )
    if all(each in ("frozen", "diverged") for each in looks):
        return (
            "Bad initialization: at low rates the weights hardly move and at high ones the loss rises, with nothing "
            "between"
        )
    if best.end > NO_BETTER * r.guess:
        return (
            f"Labels and inputs look apart: the weights move, yet the loss stays at {best.end:.3g}, which a guess has "
            f"too ({r.guess:.3g}). Either labels are put beside the wrong images (look: lehr data show), or next to "
            "nothing of an image gets through the network (a bottleneck, a bad initialization)"
        )
    return (
        f"The network cannot tell these images apart: at rate {best.rate:g} the loss stays at {best.end:.3g} (a guess "
        f"has {r.guess:.3g}) with {best.accuracy:.0%} of the images right; it is too small, or something in it loses "
        "what tells them apart"
    )


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────────


def overfit_work(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    """Tries one rate after the other until one has learned the sample; leaves `Overfit` in the run folder."""
    size = min(plan.job.train.batch_size, MOST_ROWS)
    batch, rows = sample(plan, BATCHES * size, group, "overfit")
    attempts: list[Attempt] = []
    rates = rates_to_try(plan.job)
    for number, rate in enumerate(rates):
        say = f"learning {rows} images by heart at rate {rate:g}"
        if group.first:
            tell(run, "running", say, {}, number / len(rates))
        model, made = attempt(plan, group, batch, rows, size, rate, hooks)
        if made is None:
            if group.first:
                tell(run, "stopped", "stopped", {}, number / len(rates))
            return
        attempts.append(made)
        if made.looks == "learned":
            break
    result = Overfit(
        rows=rows,
        batch=size,
        counts=_counts(plan, batch, group),
        attempts=tuple(attempts),
        base_rate=plan.job.optimizer.lr,
    )
    if result.last.looks == "learned":
        labels = plan.splits.validation.labels
        result = result.model_copy(
            update={
                "validation_rows": len(labels),
                "validation_accuracy": evaluate(model, plan.splits.validation, plan, group)["accuracy"],
                "common": float(torch.bincount(labels).max()) / len(labels),
            }
        )
    conclude(run, group, result, judge(result).found, {"images": str(rows), "accuracy": f"{result.last.accuracy:.1%}"})


def attempt(
    plan: Plan, group: Group, batch: Batch, rows: int, size: int, rate: float, hooks: TrialCallbacks
) -> tuple[nn.Module, Attempt | None]:
    """Trains from the starting weights on the same batches over and over; None in place of it when asked to stop."""
    model = network(plan, group)
    without_dropout(model)
    updates = Updates(dataclasses.replace(plan, rate=lambda step: rate), model, group)
    shares = _shares(batch, rows, size, group)
    known = entropy(_counts(plan, batch, group))
    losses: list[float] = []
    ratios: list[float] = []
    accuracies: list[tuple[int, float]] = []
    waiting: list[Tensor] = []
    model.train()
    for step in range(MOST_STEPS):
        part, whole = shares[step % len(shares)]
        loss, _, ratio = updates.take(part, whole, step)
        waiting.append(loss)
        if ratio is not None:
            ratios.append(float(ratio))
        if (step + 1) % LOOK:
            continue
        if group.broadcast(hooks.should_stop() if group.first else None):
            return model, None
        losses += group.sum(torch.stack(waiting).double()).tolist()
        waiting.clear()
        accuracies.append((step + 1, _right(model, plan, shares, rows, group)))
        if broken := next((i for i, value in enumerate(losses) if not math.isfinite(value)), None):
            losses = losses[:broken]
        made = Attempt(
            rate=rate,
            losses=tuple(losses),
            accuracies=tuple(accuracies),
            update=statistics.median(r for r in ratios if math.isfinite(r)) if any(map(math.isfinite, ratios)) else 0.0,
            diverged=broken is not None,
        )
        if made.looks == "learned" or broken is not None or over(made, known):
            break
    return model, made


def over(made: Attempt, guess: float) -> bool:
    """Whether an attempt that has not learned the sample yet has had its updates, or shows that it will not."""
    if len(made.losses) >= STEPS and made.accuracy < NEARLY:
        return True
    if len(made.losses) >= LONG_PATIENCE and made.end > NO_BETTER * guess:
        return True
    return len(made.losses) >= PATIENCE and made.looks in ("diverged", "frozen")


def without_dropout(model: nn.Module) -> None:
    """Switches off whatever drops units or layers at random during training."""
    for module in model.modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.dropout._DropoutNd) or kind == "StochasticDepth":
            module.p = 0.0  # type: ignore[assignment]
        elif kind == "DropPath":
            module.drop_prob = 0.0  # type: ignore[assignment]


def _shares(batch: Batch, rows: int, size: int, group: Group) -> list[tuple[Batch, int]]:
    """This worker's part of each global batch, and how many rows the whole batch has."""
    found = []
    for begin in range(0, rows, size):
        end = min(begin + size, rows)
        first, last = (max(0, -(-(edge - group.rank) // group.size)) for edge in (begin, end))
        found.append((Batch(batch.inputs[first:last], batch.targets[first:last], batch.ids[first:last]), end - begin))
    return found


@torch.no_grad()
def _right(model: nn.Module, plan: Plan, shares: Sequence[tuple[Batch, int]], rows: int, group: Group) -> float:
    """Share of the sample that is right, in training mode: running statistics of a batch norm lag behind."""
    right = torch.zeros(2, dtype=torch.float64, device=group.device)
    for part, _ in shares:
        known = part.targets != UNREADABLE
        right[0] += (model(plan.inputs(part.inputs)).argmax(1) == part.targets)[known].sum()
        right[1] += known.sum()
    correct, readable = group.sum(right).tolist()
    return correct / max(readable, 1)


def _counts(plan: Plan, batch: Batch, group: Group) -> tuple[int, ...]:
    targets = batch.targets[batch.targets != UNREADABLE]
    return tuple(map(int, group.sum(torch.bincount(targets, minlength=plan.task.outputs).double()).tolist()))
