"""The metrics of a job, in one table: what is exported, the documentation, the dashboards and the tests all read it.

Every metric is a gauge. Ray's agent keeps a counter for as long as the node lives, but forgets a gauge that nobody sets
any more: so the series of a run end, at most half a minute after the run. Gauges that only grow (`part_seconds`) start
again at zero with each attempt, as counters do, and `rate()` reads them as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

PREFIX = "ray_"
"""What Ray puts before the name of every metric that it exports."""

LABELS = ("run", "kind", "trial")
"""On every metric: the run's name, the kind of job, and for a run within the run its place (`trials/0007`), where asked
for. Ray adds `SessionName`, `NodeAddress`, `WorkerId` and the like; the scrape configuration adds `ray_io_cluster`."""

Progress: TypeAlias = Mapping[str, Any]
Values: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        name: without Ray's prefix.
        unit: of its values; 1 for plain numbers.
        description: what it says.
        when: which jobs have it, and from when on.
        values: its values in a `progress.json`, by the value of `label`; empty while there is none.
        label: the one label it has besides those that all metrics have; its values are few and known.
    """

    name: str
    unit: str
    description: str
    when: str
    values: Callable[[Progress], Values]
    label: str = ""

    @property
    def series(self) -> str:
        """Its name in Prometheus."""
        return PREFIX + self.name


@dataclass(frozen=True)
class Sample:
    """One value to export: of which metric, with which labels besides `LABELS`."""

    metric: Metric
    labels: Mapping[str, str]
    value: float


def samples(progress: Progress) -> Iterator[Sample]:
    """What a `progress.json` has to say, of any kind of job. Values that are no finite number are left out: Ray drops
    them, and `lehr_not_finite` says so instead."""
    for metric in METRICS:
        for name, value in metric.values(progress).items():
            if isinstance(value, int | float) and math.isfinite(value):
                yield Sample(metric, {metric.label: name} if metric.label else {}, float(value))


def table() -> list[tuple[str, str, str, str, str, str]]:
    """The table for people: name in Prometheus, type, unit, labels, when, what."""
    return [
        (m.series, "gauge", m.unit, ", ".join(filter(None, (*LABELS, m.label))), m.when, m.description) for m in METRICS
    ]


# ── reading a progress.json ───────────────────────────────────────────────────────────────────────────────────────


def at(*paths: str) -> Callable[[Progress], Values]:
    """The number at the first of these dotted paths that there is."""

    def read(progress: Progress) -> Values:
        for path in paths:
            found: Any = progress
            for name in path.split("."):
                found = found.get(name) if isinstance(found, Mapping) else None
            if isinstance(found, int | float):
                return {"": found}
        return {}

    return read


def each(path: str, *leave_out: str) -> Callable[[Progress], Values]:
    """All numbers of the mapping of this name, by their names."""

    def read(progress: Progress) -> Values:
        found = progress.get(path)
        found = found if isinstance(found, Mapping) else {}
        return {str(name): v for name, v in found.items() if isinstance(v, int | float) and name not in leave_out}

    return read


def _share_done(progress: Progress) -> Values:
    done, total = progress.get("done"), progress.get("total_steps")
    if isinstance(done, int | float):
        return {"": done}
    return {"": progress.get("step", 0) / total} if isinstance(total, int | float) and total else {}


def _restarts(progress: Progress) -> Values:
    attempt = progress.get("attempt")
    return {"": max(0, attempt - 1)} if isinstance(attempt, int) else {}


def _not_finite(progress: Progress) -> Values:
    loss = progress.get("loss")
    return {"": float(not math.isfinite(loss))} if isinstance(loss, int | float) else {}


def _best(progress: Progress) -> Values:
    best = progress.get("best")
    best = best if isinstance(best, Mapping) else {}
    value = best.get("value")
    return {str(best.get("metric", "")): value} if isinstance(value, int | float) else {}


def _rungs(state: str) -> Callable[[Progress], Values]:
    def read(progress: Progress) -> Values:
        rungs = progress.get("rungs")
        rungs = rungs if isinstance(rungs, list) else []
        return {f"{rung['epoch']:g}": rung.get(state, 0) for rung in rungs if isinstance(rung, Mapping)}

    return read


def _recipe_step(progress: Progress) -> Values:
    step = progress.get("recipe_step")
    return {step: 1} if isinstance(step, str) else {}


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────

_TRAINING = "while training"
_EPOCH = "after each epoch"
_SEARCH = "search"

METRICS: tuple[Metric, ...] = (
    Metric("lehr_running", "1", "1 while the job runs", "every job", lambda _: {"": 1}),
    Metric(
        "lehr_progress_timestamp_seconds",
        "s since 1970",
        "when the job, or a run within it, last had something new to tell",
        "every job",
        at("changed"),
    ),
    Metric("lehr_progress_ratio", "1", "share of the job that is done, 0 to 1", "every job", _share_done),
    Metric("lehr_left_seconds", "s", "estimate of the time left", _TRAINING, at("seconds_left")),
    Metric("lehr_restarts", "1", "attempts after the first: resumed, by hand or after a failure", _TRAINING, _restarts),
    Metric("lehr_workers", "worker", "workers of the running attempt", _TRAINING, at("workers")),
    # training
    Metric("lehr_step", "step", "optimizer steps taken", _TRAINING, at("step")),
    Metric("lehr_epoch", "epoch", "epochs of training data seen, with fraction", _TRAINING, at("epoch")),
    Metric("lehr_train_loss", "1", "training loss, mean since the last pulse", _TRAINING, at("loss")),
    Metric("lehr_not_finite", "1", "1 if the training loss is NaN or infinite, else 0", _TRAINING, _not_finite),
    Metric("lehr_learning_rate", "1", "learning rate of the newest step", _TRAINING, at("learning_rate")),
    Metric(
        "lehr_gradient_norm",
        "1",
        "norm of the gradient before clipping, mean since the last pulse",
        _TRAINING,
        at("recent.gradient_norm"),
    ),
    Metric(
        "lehr_examples_per_second",
        "example/s",
        "training examples over the time of their steps, since the last pulse",
        _TRAINING,
        at("recent.examples_per_second"),
    ),
    Metric(
        "lehr_step_seconds",
        "s",
        "wall-clock time of a step, input included, mean since the last pulse",
        _TRAINING,
        at("recent.step_seconds"),
    ),
    Metric(
        "lehr_communication_seconds",
        "s",
        "time per step in which gradients travel between workers and no gradient is computed; a part of `compute`; "
        "measured in one step of a hundred",
        "while training on several workers",
        at("recent.communication_seconds"),
    ),
    Metric(
        "lehr_part_seconds",
        "s",
        "time of the attempt so far, by part: input (waiting for a batch), compute (communication included), "
        "evaluation, records (reporting), checkpoints",
        _TRAINING,
        each("seconds", "total", "startup"),
        "part",
    ),
    Metric(
        "lehr_train_accuracy",
        "1",
        "accuracy on clean training images in evaluation mode, 0 to 1",
        _EPOCH,
        at("metrics.clean_train_accuracy", "metrics.train_accuracy"),
    ),
    Metric("lehr_validation_loss", "1", "loss on the validation split", _EPOCH, at("metrics.validation_loss")),
    Metric(
        "lehr_validation_accuracy",
        "1",
        "accuracy on the validation split, 0 to 1",
        _EPOCH,
        at("metrics.validation_accuracy"),
    ),
    Metric("lehr_best", "1", "best value so far of the metric that counts", "training and search", _best, "metric"),
    Metric(
        "lehr_checkpoint_timestamp_seconds",
        "s since 1970",
        "when the newest checkpoint was saved; before the first, when the attempt began",
        _TRAINING,
        at("checkpoint.time"),
    ),
    Metric(
        "lehr_checkpoint_bytes",
        "byte",
        "size of the newest checkpoint",
        "after the attempt's first checkpoint",
        at("checkpoint.bytes"),
    ),
    Metric(
        "lehr_skipped_images",
        "image",
        "unreadable images left out so far",
        "training and predict",
        at("skipped_images", "unreadable"),
    ),
    Metric(
        "lehr_gpu_memory_bytes",
        "byte",
        "most memory that the first worker's tensors took on its GPU",
        "while training on GPUs",
        at("gpu_memory_bytes"),
    ),
    # jobs made of jobs
    Metric(
        "lehr_children",
        "run",
        "runs within the run, by state: running, finished, ended (early, by a search), failed",
        "search, recipe, ensemble",
        each("children"),
        "state",
    ),
    Metric("lehr_rung_reached", "trial", "trials that reached the rung", _SEARCH, _rungs("reached"), "epoch"),
    Metric("lehr_rung_stopped", "trial", "trials that were stopped at the rung", _SEARCH, _rungs("stopped"), "epoch"),
    Metric("lehr_epochs_spent", "epoch", "epochs trained, over all trials", _SEARCH, at("epochs_spent")),
    Metric(
        "lehr_epochs_saved",
        "epoch",
        "epochs that stopped trials did not train, against training each to its end",
        _SEARCH,
        at("epochs_saved"),
    ),
    Metric("lehr_recipe_step", "1", "1 for the step that the recipe is at", "recipe", _recipe_step, "step"),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
