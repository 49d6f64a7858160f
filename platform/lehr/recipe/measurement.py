"""What the measurements of steps 1 to 3 share: a fixed sample, the loss of a guess, and how they report."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from lehr.data.dataset import Batch
from lehr.data.randomness import key
from lehr.own_code import OwnCodeError
from lehr.recipe.results import Result
from lehr.runs import BestValue, Overview, Progress, RunFolder
from lehr.runs.progress import State
from lehr.tasks.classification import Classification
from lehr.training.group import Group
from lehr.training.setup import Plan

FULL_UPDATES = 900  # of a training in full: with fewer, every update that goes into a search is missing at the end
NO_VALUE, NO_METRICS = BestValue(), dict[str, float]()
GUESSED_ROWS = 4096  # of the classes' shares, on which a constant guess is optimised


def fixed_sample(plan: Plan, rows: int, group: Group, purpose: str) -> tuple[Batch, int]:
    """Training rows chosen by the seed and the purpose, without augmentation.

    Returns:
        This worker's part of them, and how many rows all workers have together.
    """
    train = plan.splits.train
    chosen = train.some_rows(key(plan.job.seed, purpose), rows)
    return train.gather(chosen[group.rank :: group.size]).to(group.device), len(chosen)


def guess_loss(plan: Plan) -> float:
    """The training loss of the best guess that looks at no image; of a task without classes that of outputs of zero."""
    if not isinstance(plan.task, Classification):
        return plan.chance_loss
    return loss_of_a_guess(plan, plan.splits.train.class_counts().tolist())


def loss_of_a_guess(plan: Plan, counts: Sequence[int]) -> float:
    """The training loss of the best outputs that are the same for every image; NaN where none is found.

    For plain cross entropy it is the entropy of the classes, for other losses it is minimised.

    Args:
        counts: images of each class.
    """
    section = plan.job.loss
    if section.name == "cross_entropy" and section.class_weights == "none":
        return entropy(counts)
    total = max(1, sum(counts))
    shares = torch.tensor(counts, dtype=torch.float64) / total
    rows = [max(1, round(count * GUESSED_ROWS / max(total, GUESSED_ROWS))) if count else 0 for count in counts]
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(rows))
    guess = shares.clamp(min=1e-3).log().to(plan.dtype).requires_grad_(True)
    optimizer = torch.optim.LBFGS([guess], max_iter=100, line_search_fn="strong_wolfe")
    losses: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        outputs = guess.softmax(dim=0) if plan.task.activation == "none" else guess
        loss = plan.task.loss(outputs.expand(len(targets), -1), targets) / max(1, len(targets))
        torch.autograd.backward(loss)
        losses.append(float(loss.detach()))
        return losses[-1]

    try:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    except OwnCodeError:  # it need not make sense of such outputs
        return math.nan
    return min((each for each in losses if math.isfinite(each)), default=math.nan)


def entropy(counts: Sequence[float]) -> float:
    """−Σ p ln p over the class shares p: the cross entropy of guessing each class with its own frequency."""
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts if c > 0)


def finish(
    run: RunFolder,
    group: Group,
    result: Result,
    headline: str,
    facts: Mapping[str, str],
    best: BestValue = NO_VALUE,
    metrics: Mapping[str, float] = NO_METRICS,
) -> None:
    """Writes a measurement's result into its run folder and marks the run as finished. Only the first worker writes.

    Args:
        best, metrics: of the model that it leaves, if it leaves one.
    """
    if group.first:
        result.write(run.folder)
    write_progress(run, group, "finished", headline, 1.0, facts, best, metrics)


def write_progress(
    run: RunFolder,
    group: Group,
    status: State,
    headline: str,
    done: float,
    facts: Mapping[str, str] | None = None,
    best: BestValue = NO_VALUE,
    metrics: Mapping[str, float] = NO_METRICS,
) -> None:
    """Writes the progress.json of a measurement. Only the first worker writes."""
    if group.first:
        overview = Overview(headline=headline, facts=facts or {}, done=done)
        progress = Progress(status=status, message=headline, updated=time.time(), overview=overview)
        run.write_progress(replace(progress, best=best, metrics=metrics))
