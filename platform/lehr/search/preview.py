"""What a search will do and cost, before any of it is spent."""

from __future__ import annotations

import time

import numpy as np
import torch

from lehr.data.dataset import Images
from lehr.data.load import OpenedSources, splits
from lehr.data.randomness import key
from lehr.formatting import format_seconds
from lehr.job import TrainJob
from lehr.job.search import SearchJob
from lehr.machine import cores
from lehr.search.rungs import expected_epochs, rungs
from lehr.search.samplers import quasi_random_values, random_values
from lehr.search.space import Space, label
from lehr.search.study import combinations, most_trials
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.updates import Updates, network

SHOWN = 12  # trials that are listed
STEPS = 5  # steps that are timed, after one that is not


def preview(job: SearchJob) -> list[str]:
    """The trials, the rungs, the epochs that it will cost and about how long it takes on this machine, as lines."""
    space, epochs = Space(job), job.base.train.epochs
    grid = combinations(space) if job.method == "grid" else None
    most = most_trials(job, grid)
    at_most = "up to " if most and (job.budget.epochs or job.budget.minutes) else ""
    lines = [f"{at_most}{most or 'any number of'} trials of {epochs} epochs"]
    for number in range(min(most or SHOWN, SHOWN)):
        if job.method == "tpe" and number:
            lines.append("  the others as the results suggest (tpe)")
            break
        draw = quasi_random_values if job.method == "quasi_random" else random_values
        values = space.trial(grid[number] if grid else draw(space, job.seed, number), "trial")[1]
        lines.append(f"  {number:>3}  " + "  ".join(f"{path} {label(value)}" for path, value in values.items()))
    if most and most > SHOWN and job.method != "tpe":
        lines.append(f"  … and {most - SHOWN} more")
    if found := rungs(job.stopping, epochs):
        going = [f"epoch {rung}" for rung in found]
        lines.append(f"Rungs: {', '.join(going)}; at each, one trial in {job.stopping.factor} goes on")
    elif job.stopping.name == "median":
        lines.append(f"A trial ends from epoch {job.stopping.first} on when it is below the median of the others")
    least, highest = expected_epochs(job.stopping, most, epochs) if most else (0, job.budget.epochs or 0)
    if job.budget.epochs:
        least, highest = min(least, job.budget.epochs), min(highest, job.budget.epochs) or job.budget.epochs
    if highest:
        cost = f"{least} to {highest}" if 0 < least < highest else str(highest)
        first = space.trial(grid[0] if grid else random_values(space, job.seed, 0), "trial")[0]
        seconds, slots = seconds_per_epoch(first), cores()
        low, high = (format_seconds(count * seconds / slots) for count in (least or highest, highest))
        lines.append(f"Epochs: {cost}")
        span = low if low == high else f"{low} to {high}"
        lines.append(f"Time: {span} on {slots} cores, at {seconds:.2g} s an epoch of trial 0 (a few steps, timed here;")
        lines.append("  start-up and evaluation come on top)")
    if job.budget.minutes:
        lines.append(f"It ends after {job.budget.minutes:g} minutes, whatever is left")
    return lines


def seconds_per_epoch(job: TrainJob) -> float:
    """Seconds of training in one epoch on one core, from a few steps over random images of the right shape."""
    opened = OpenedSources(job)
    height, width, channels = opened.shape
    size = min(job.train.batch_size, opened.main.rows)
    rows = max(2 * size, 2 * len(opened.main.classes))
    pixels = np.random.default_rng(0).integers(0, 256, (rows, height, width, channels), np.uint8)
    labels = np.arange(rows, dtype=np.int64) % len(opened.main.classes)
    images = Images(pixels, labels, opened.main.classes)
    short = job.model_copy(
        update={"data": job.data.model_copy(update={"validation": 0.5, "test": "none", "limit": None})}
    )
    plan = Plan.make(short, splits(short, {"train": images}))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        group = Group()
        updates = Updates(plan, network(plan, group), group)
        batch = plan.splits.train.gather(torch.arange(min(size, len(plan.splits.train))))
        torch.manual_seed(key(0, "preview"))
        for step in range(STEPS + 1):
            if step == 1:
                began = time.perf_counter()
            updates.take(batch, len(batch.targets), 1 + step)
        seconds = (time.perf_counter() - began) / STEPS
    finally:
        torch.set_num_threads(before)
    share = job.data.validation if isinstance(job.data.validation, float) else 0.2 if len(opened.sources) == 1 else 0.0
    trained = min(opened.main.rows * (1 - share), job.data.limit or opened.main.rows)
    return seconds * trained / len(batch.targets)
