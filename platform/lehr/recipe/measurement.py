"""What the measurements of steps 1 to 3 share: a fixed sample, the loss of a guess, and how they report."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch

from lehr.data.dataset import Batch
from lehr.data.randomness import key
from lehr.recipe.results import Result
from lehr.runs import Overview, Progress, RunFolder
from lehr.runs.progress import State
from lehr.training.group import Group
from lehr.training.setup import Plan


def fixed_sample(plan: Plan, rows: int, group: Group, purpose: str) -> tuple[Batch, int]:
    """Training rows chosen by the seed and the purpose, without augmentation.

    Returns:
        This worker's part of them, and how many rows all workers have together.
    """
    train = plan.splits.train
    chosen = train.order(key(plan.job.seed, purpose))[: min(rows, len(train))]
    return train.gather(chosen[group.rank :: group.size]).to(group.device), len(chosen)


def guess_loss(plan: Plan) -> float:
    """The training loss of guessing by class frequency: the entropy of the classes, with the weights of the loss."""
    counts = torch.bincount(plan.splits.train.labels, minlength=plan.task.outputs).double()
    weights = getattr(plan.task, "class_weights", None)
    return entropy((counts if weights is None else counts * weights).tolist())


def entropy(counts: Sequence[float]) -> float:
    """−Σ p ln p over the class shares p: the cross entropy of guessing each class with its own frequency."""
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts if c > 0)


def finish(run: RunFolder, group: Group, result: Result, headline: str, facts: Mapping[str, str]) -> None:
    """Writes a measurement's result into its run folder and marks the run as finished. Only the first worker writes."""
    if group.first:
        result.write(run.folder)
    write_progress(run, group, "finished", headline, 1.0, facts)


def write_progress(
    run: RunFolder, group: Group, status: State, headline: str, done: float, facts: Mapping[str, str] | None = None
) -> None:
    """Writes the progress.json of a measurement. Only the first worker writes."""
    if group.first:
        overview = Overview(headline=headline, facts=facts or {}, done=done)
        run.write_progress(Progress(status=status, message=headline, updated=time.time(), overview=overview))
