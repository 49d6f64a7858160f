"""Probes that train new networks for a few updates, all of the same number, and compare what they learned."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lehr.curves.alternatives import Cause
from lehr.data.dataset import Batch
from lehr.errors import JobError
from lehr.intervals import in_words, is_above, no_better, overlap
from lehr.probes.of_trained import FITTED, MUCH, differ
from lehr.probes.results import Evidence, ProbeResult
from lehr.probes.subject import Look, Subject, is_dropout
from lehr.recipe.measurement import fixed_sample
from lehr.recipe.overfit import LOOK, OverfitAttempt, OverfitCheck, cause, without_dropout
from lehr.training.lightning_step import train_step_of
from lehr.training.optimizers import usual_rate
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan

NO_ROOM = "The budget has no room for it"
BATCH_ROWS = 32  # of the batch that is memorised
LITTLE = 0.03  # accuracy above that of a guess that is no accident of the epoch that was kept
LEARNED = 0.15  # the same of training rows, where some were learned by heart
NEAR = 3.0  # factor between two rates that a few updates cannot tell apart


# ── the learning rate ───────────────────────────────────────────────────────────────────────────────────────────────


def rates_of(s: Subject) -> list[float]:
    """The rates tried beside the job's own: a tenth, ten times, and that which is usual for the optimizer, if far."""
    own = s.job.optimizer.rate
    usual = usual_rate(s.job.optimizer)
    found = [own / 10, own * 10]
    if all(max(usual / rate, rate / usual) > NEAR for rate in (own, *found)):
        found.append(usual)
    return [float(f"{rate:.3g}") for rate in found]


def rates(s: Subject) -> ProbeResult:
    """Short trainings at constant rates, and how far the whole run came."""
    base, reached, own = s.base(), s.reached(), s.job.optimizer.rate
    if base is None:
        return ProbeResult("rates", NO_ROOM, left_out=True)
    tried: dict[float, Look] = {}
    for rate in rates_of(s):
        if found := s.short(f"rate {rate:g}", {"optimizer.lr": rate}):
            tried[rate] = found
    ends = ", ".join(f"{_told(tried[rate])} at {rate:g}" for rate in sorted(tried))
    said = f"After {s.steps} updates at a constant learning rate, {_told(base)} of training rows are right at {own:g}"
    said += f", the job's own; {ends}" if ends else ", the job's own"
    evidence = []
    best = max(tried, key=lambda rate: tried[rate].share, default=own)
    gain = tried[best].share - base.share if tried else 0.0
    if gain > MUCH and differ(tried[best], base):
        evidence.append(Evidence("rate_too_low" if best > own else "rate_too_high", 0.5 + gain, {"optimizer.lr": best}))
    elif tried:
        evidence += [Evidence("rate_too_low", -0.5), Evidence("rate_too_high", -0.5)]
    if reached is not None and s.steps <= s.plan.length.total_steps:
        said += f"; the run, with {s.plan.length.total_steps}, ended with {_told(reached)}"
        lost = base.share - max(reached.share, s.fitted_at)
        if lost > MUCH and differ(base, reached):
            constant = s.job.schedule.name == "constant"
            change = {} if constant else {"schedule": "cosine" if s.job.schedule.name != "cosine" else "constant"}
            evidence.append(Evidence("rate_too_high" if constant else "schedule", 0.5 + lost, change))
        elif s.job.schedule.name != "constant":
            evidence.append(Evidence("schedule", -0.5))
    return ProbeResult("rates", said, tuple(evidence))


# ── one thing at a time ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the job that may hold a network back.

    Attributes:
        changes: to the job, without it. mended: to the job, with less of it.
        dropout: whether dropout stays.
    """

    cause: Cause
    what: str
    changes: Mapping[str, Any]
    mended: Mapping[str, Any]
    dropout: bool = True


def parts_of(s: Subject) -> list[Part]:
    """What of the job holds its network back, for better or worse."""
    job, found = s.job, []
    if s.network and any(map(is_dropout, s.network.modules())):
        names = [name for name, value in job.model.options.items() if "drop" in name and isinstance(value, float)]
        found.append(Part("dropout", "dropout", {}, {f"model.{name}": 0.1 for name in names}, dropout=False))
    if job.data.augment:
        found.append(Part("augmentation", "augmentation", {"data.augment": []}, {"data.augment": []}))
    if decay := job.optimizer.weight_decay:
        less = float(f"{decay / 100:.1g}")
        found.append(
            Part("weight_decay", "weight decay", {"optimizer.weight_decay": 0.0}, {"optimizer.weight_decay": less})
        )
    if job.train.max_gradient_norm is not None:
        change: dict[str, Any] = {"train.max_gradient_norm": None}
        found.append(Part("clipping", "clipping gradients", change, change))
    if job.loss.label_smoothing:
        plain = {"loss.label_smoothing": 0.0}
        found.append(Part("label_smoothing", "label smoothing", plain, {"loss.label_smoothing": 0.1}))
    return found


def parts(s: Subject) -> ProbeResult:
    """Short trainings, each without one part of the job."""
    found = parts_of(s)
    if not found:
        nothing = "The job has neither dropout, augmentation, decay, clipping nor label smoothing"
        return ProbeResult("parts", nothing, left_out=True)
    base = s.base()
    if base is None:
        return ProbeResult("parts", NO_ROOM, left_out=True)
    said, evidence = [], []
    for part in found:
        without = _without(s, part)
        if without is None:
            continue
        said.append(f"{_told(without)} without {part.what}")
        gain = without.share - base.share
        helps = gain > MUCH and differ(without, base)
        evidence.append(Evidence(part.cause, 0.5 + gain, part.mended) if helps else Evidence(part.cause, -0.5))
    if not said:
        return ProbeResult("parts", NO_ROOM, left_out=True)
    first = f"After {s.steps} updates, {_told(base)} of training rows are right with everything that the job has"
    return ProbeResult("parts", f"{first}; {', '.join(said)}", tuple(evidence))


def _without(s: Subject, part: Part) -> Look | None:
    try:
        return s.short(f"without {part.cause}", part.changes, dropout=part.dropout)
    except JobError:  # something else of the job needs it
        return None


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def labels(s: Subject) -> ProbeResult:
    """Training rows with their labels, and with shuffled ones; and rows that were held out of the training rows.

    Zhang et al., 2017: a network fits any labels, but those that belong to the images first.
    """
    changes = unhindered(s)
    if not s.budget.take(s.cost(looks=3) + s.cost()):
        return ProbeResult("labels", NO_ROOM, left_out=True)
    plan = s.plan_of(changes)
    model = s.train(plan, dropout=False)
    true, held, other = (s.look_after(plan, model, rows) for rows in (s.fitted, s.held_out, s.validation))
    wrong = s.shuffled_labels
    shuffled = s.look_after(plan, s.train(plan, dropout=False, labels=wrong), s.fitted, wrong)
    said = (
        f"After {s.steps} updates without regularisation, {_told(true)} of the training rows that were used are right, "
        f"{_told(held)} of those that were held out and {_told(other)} of validation rows; of shuffled labels "
        f"it learns {_told(shuffled)} (always naming the most frequent class: {s.chance:.1%})"
    )
    generalises = is_above(held.share, s.chance_in_training, held.rows)
    if not generalises:
        return ProbeResult("labels", said, (Evidence("labels", _unrelated(s, true, held, shuffled)),))
    apart = held.share - other.share > MUCH and not overlap(held.share, other.share, held.rows, other.rows)
    split = Evidence("split", 0.8 if apart else -0.5, {"data.validation": 0.2})
    return ProbeResult("labels", said, (Evidence("labels", -1.0), split))


def _unrelated(s: Subject, true: Look, held: Look, shuffled: Look) -> float:
    """Evidence for labels that do not belong to the images, where what was learned does not hold for held-out rows.

    Rows that are hard, or need more updates, look the same: unless training rows are learned, while others are not.
    """
    trained = s.look_once("validation", s.validation)
    if trained and is_above(trained.share, s.chance + LITTLE, trained.rows):
        return -1.0  # something in the labels is right: the run itself generalises
    if true.share > shuffled.share and not overlap(true.share, shuffled.share, true.rows, shuffled.rows):
        return -0.3
    learned = max(true.share, s.fitted_at) > s.chance_in_training + LEARNED
    return 0.5 if learned and no_better(held.share, s.chance_in_training, held.rows) else 0.1


def unhindered(s: Subject) -> dict[str, Any]:
    """Changes to the job: none of what holds back, and the best rate of those that were tried."""
    found: dict[str, Any] = {}
    for part in parts_of(s):
        found |= part.changes
    known = {rate: look for rate in rates_of(s) if (look := s.known(f"rate {rate:g}"))}
    best = max(known, key=lambda rate: known[rate].share, default=None)
    base = s.known("base")
    if best is not None and (base is None or known[best].share > base.share + MUCH):
        found["optimizer.lr"] = best
    return found


# ── one batch ───────────────────────────────────────────────────────────────────────────────────────────────────────


def overfit(s: Subject) -> ProbeResult:
    """One batch, without what holds back, at the job's own rate, the usual one, and a far lower one."""
    size = min(BATCH_ROWS, len(s.short_splits.train))
    plan = s.plan_of({**unhindered(s), "optimizer.lr": s.job.optimizer.rate, "train.batch_size": size})
    most, made = -(-2 * s.steps // LOOK) * LOOK, list[OverfitAttempt]()
    batch, rows = fixed_sample(plan, size, s.group, "overfit")
    for rate in dict.fromkeys([s.job.optimizer.rate, usual_rate(s.job.optimizer), s.job.optimizer.rate / 30]):
        if not s.budget.take((most + most // LOOK) * size):
            break
        made.append(_memorise(s, plan, batch, rate, most))
        if made[-1].outcome == "memorised":
            break
    if not made:
        return ProbeResult("overfit", NO_ROOM, left_out=True)
    last, first = made[-1], made[0]
    if last.outcome == "memorised":
        said = f"It memorises {rows} training rows in {len(last.losses)} updates at learning rate {last.rate:g}"
        evidence = [Evidence("network", -1.0), Evidence("initialization", -1.0)]
        if len(made) > 1 and first.outcome in ("diverged", "frozen"):
            said += f", not at the job's own {first.rate:g}"
            blame: Cause = "rate_too_high" if first.outcome == "diverged" else "rate_too_low"
            evidence.append(Evidence(blame, 0.4, {"optimizer.lr": last.rate}))
        return ProbeResult("overfit", said, tuple(evidence))
    outcomes, counts = {each.outcome for each in made}, torch.bincount(batch.targets.cpu())
    blamed: Cause = "initialization" if outcomes <= {"diverged", "frozen"} else "network"
    check = OverfitCheck(rows=rows, batch=size, counts=tuple(counts.tolist()), attempts=tuple(made))
    said = f"It does not memorise {rows} training rows. {cause(check)}"
    return ProbeResult("overfit", said, (Evidence(blamed, 0.3 if "on its way" in outcomes else 0.6),))


def _memorise(s: Subject, plan: Plan, batch: Batch, rate: float, most: int) -> OverfitAttempt:
    """Trains on one batch over and over; accuracy is that of training mode, since running statistics lag behind."""
    model = prepare_model(plan, s.group)
    without_dropout(model)
    train_step = train_step_of(dataclasses.replace(plan, learning_rate=lambda step: rate), model, s.group)
    losses, ratios, accuracies, known = list[float](), list[float](), list[tuple[int, float]](), batch.targets
    model.train()
    for step in range(most):
        found = train_step(batch, len(known), step)
        losses.append(float(found.loss))
        ratios += [] if found.update_ratio is None else [float(found.update_ratio)]
        if not math.isfinite(losses[-1]):
            break
        if (step + 1) % LOOK == 0:
            with torch.no_grad():
                outputs: Tensor = model(*plan.arguments(batch))
                right = outputs.argmax(1) == known
            accuracies.append((step + 1, float(right.double().mean())))
            if right.all():
                break
    diverged = not math.isfinite(losses[-1])
    update = statistics.median(filter(math.isfinite, ratios)) if any(map(math.isfinite, ratios)) else 0.0
    return OverfitAttempt(
        rate=rate,
        losses=tuple(losses[:-1] if diverged else losses),
        accuracies=tuple(accuracies),
        update=update,
        diverged=diverged,
    )


def is_fitted(s: Subject) -> bool:
    """Whether the trained network fits its training rows: then nothing keeps it from learning."""
    reached = s.reached()
    return reached is not None and max(reached.share, s.fitted_at) >= FITTED


def _told(found: Look) -> str:
    return found.failed or in_words(found.share, found.rows)
