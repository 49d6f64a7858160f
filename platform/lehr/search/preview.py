"""What a search will do and cost, without training anything."""

from __future__ import annotations

import time

import torch

from lehr.data.load import OpenedSources
from lehr.data.randomness import key
from lehr.formatting import count_of, format_seconds
from lehr.job import TrainJob
from lehr.job.search import SearchJob
from lehr.machine import cores
from lehr.search.combinations import Combinations, count_combinations, grid_combinations, max_trials
from lehr.search.formats import format_value
from lehr.search.rungs import epoch_bounds, rungs
from lehr.search.space import Space, Values
from lehr.training.group import Group
from lehr.training.lightning_step import train_step_of
from lehr.training.prepare import prepare_model
from lehr.training.rehearsal import plan_of_noise

SHOWN = 12  # trials that are listed
STEPS = 5  # steps that are timed, after a first one that warms up


def preview(job: SearchJob) -> list[str]:
    """Lines for people: the trials, the rungs, how many epochs the search takes, and about how long on this machine."""
    grid = grid_combinations(Space(job)) if job.method == "grid" else None
    most = max_trials(job, grid)
    lines = [*_trials(job, grid, most), *_stopping(job)]
    least, highest = _epochs(job, most)
    if highest:
        lines += _cost(job, least, highest)
    if job.budget.minutes:
        lines.append(f"The search ends after {count_of(job.budget.minutes, 'minute')} at the latest")
    return lines


def _trials(job: SearchJob, grid: list[Values] | None, most: int | None) -> list[str]:
    """How many trials there are, and the values of the first of them."""
    at_most = "up to " if most and (job.budget.epochs or job.budget.minutes) else ""
    lines = [f"{at_most}{most or 'any number of'} trials of {job.base.train.epochs} epochs"]
    if grid is None and most and most == count_combinations(Space(job)):
        lines[0] += "; the space has no more combinations"
    combinations = Combinations(Space(job))
    for number in range(min(most or SHOWN, SHOWN)):
        if job.method == "tpe" and number:
            lines.append("  the values of the others depend on the results (tpe)")
            break
        if (drawn := combinations.next(number)) is None:
            break
        _, values = Space(job).trial(drawn, "trial")
        lines.append(f"  {number:>3}  " + "  ".join(f"{path} {format_value(value)}" for path, value in values.items()))
    if most and most > SHOWN and job.method != "tpe":
        lines.append(f"  … and {most - SHOWN} more")
    return lines


def _stopping(job: SearchJob) -> list[str]:
    """When trials end early."""
    if found := rungs(job.stopping, job.base.train.epochs):
        at = ", ".join(f"epoch {rung}" for rung in found)
        return [f"Rungs: {at}; at each, 1 in {job.stopping.factor} trials continues"]
    if job.stopping.name == "median":
        return [f"From epoch {job.stopping.first} on, a trial ends if it is below the median of the others"]
    return []


def _epochs(job: SearchJob, most: int | None) -> tuple[int, int]:
    """(least, most) epochs of the whole search; 0 where only minutes end it."""
    limit = job.budget.epochs
    if not most:
        return 0, limit or 0
    least, highest = epoch_bounds(job.stopping, most, job.base.train.epochs)
    return (min(least, limit), min(highest, limit)) if limit else (least, highest)


def _cost(job: SearchJob, least: int, highest: int) -> list[str]:
    """Epochs and time."""
    space = Space(job)
    seconds, slots = seconds_per_epoch(space.trial(Combinations(space).next(0) or {}, "trial")[0]), cores()
    low, high = (format_seconds(count * seconds / slots) for count in (least or highest, highest))
    span = low if low == high else f"{low} to {high}"
    return [
        f"Epochs: {least} to {highest}" if 0 < least < highest else f"Epochs: {highest}",
        f"Time: {span} on {slots} cores, at {seconds:.2g} s per epoch (measured on a few steps of trial 0);",
        "  start-up and evaluation are extra",
    ]


def seconds_per_epoch(job: TrainJob) -> float:
    """Training time of one epoch on one core, measured on a few steps over random images of the right shape."""
    opened = OpenedSources(job)
    plan = plan_of_noise(job, opened)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        group = Group()
        train_step = train_step_of(plan, prepare_model(plan, group), group)
        size = min(job.train.batch_size, opened.main.rows, len(plan.splits.train))
        batch = plan.splits.train.gather(torch.arange(size))
        torch.manual_seed(key(0, "preview"))
        for step in range(STEPS + 1):
            if step == 1:
                began = time.perf_counter()
            train_step(batch, len(batch.targets), (1 + step) % plan.length.total_steps)
        seconds = (time.perf_counter() - began) / STEPS
    finally:
        torch.set_num_threads(before)
    share = job.data.validation if isinstance(job.data.validation, float) else 0.2 if len(opened.sources) == 1 else 0.0
    trained = min(opened.main.rows * (1 - share), job.data.limit or opened.main.rows)
    return seconds * trained / len(batch.targets)
