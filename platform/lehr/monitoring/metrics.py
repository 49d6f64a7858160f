"""The metrics of a job, in one table: the exporter, the documentation, the dashboards and the tests all read it.

Every metric is a gauge. Ray's agent keeps a counter for as long as the node lives, but forgets a gauge that is no
longer set, so the series of a run end at most half a minute after it. Gauges that only grow (`part_seconds`) start at
zero again with each attempt, as counters do, and `rate()` handles them as counters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lehr.runs import Overview, Progress, TrainingProgress
from lehr.runs.columns import listed
from lehr.runs.progress import Rung

MOST_METRICS = 20
"""Of those that a job lists: each is a series in Prometheus, and one for each class may be thousands."""

PREFIX = "ray_"
"""What Ray puts before the name of every metric that it exports."""

LABELS = ("run", "kind", "trial")
"""On every metric: the run's name, the kind of job, and for a run within the run its path (`trials/0007`), where these
are exported. Ray adds `SessionName`, `NodeAddress`, `WorkerId` and the like; the scrape configuration adds
`ray_io_cluster`."""


@dataclass(frozen=True)
class Observation:
    """What the exporter knows of a run.

    Attributes:
        progress: its `progress.json`.
        changed: when that last said something new, in seconds since 1970; None where nobody watched.
    """

    progress: Progress
    changed: float | None = None


Number: TypeAlias = float | None
Values: TypeAlias = Mapping[str, Number]
Reader: TypeAlias = Callable[[Observation], Values]


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        name: without Ray's prefix.
        unit: of its values; 1 for plain numbers.
        description: what it says.
        when: which jobs have it, and from when on.
        values: its values, by the value of `label`; empty, or None as a value, while there is none.
        label: the one label it has besides those that all metrics have; its values are few and known.
    """

    name: str
    unit: str
    description: str
    when: str
    values: Reader
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


def samples(seen: Observation) -> Iterator[Sample]:
    """The values to export for a run of any kind. Values that are not finite are left out, since Ray drops them;
    `lehr_not_finite` reports them instead."""
    for metric in METRICS:
        for name, value in metric.values(seen).items():
            if value is not None and math.isfinite(value):
                yield Sample(metric, {metric.label: name} if metric.label else {}, float(value))


def table() -> list[tuple[str, str, str, str, str, str]]:
    """The table for people: name in Prometheus, type, unit, labels, when, meaning."""
    return [
        (m.series, "gauge", m.unit, ", ".join(filter(None, (*LABELS, m.label))), m.when, m.description) for m in METRICS
    ]


# ── what a metric reads ───────────────────────────────────────────────────────────────────────────────────────────


def job(read: Callable[[Progress], Number]) -> Reader:
    """One number of any job's progress."""
    return lambda seen: {"": read(seen.progress)}


def training(read: Callable[[TrainingProgress], Number]) -> Reader:
    """One number of a training; nothing for other jobs."""
    return lambda seen: {"": read(seen.progress.training)} if seen.progress.training else {}


def overview(read: Callable[[Overview], Number]) -> Reader:
    """One number of a job without training steps of its own; nothing for a training."""
    return lambda seen: {"": read(seen.progress.overview)} if seen.progress.overview else {}


def epoch(*names: str) -> Reader:
    """The metric of the newest whole epoch under the first of these names that it has."""
    return job(lambda p: next((value for name in names if (value := p.metrics.get(name)) is not None), None))


def rungs(read: Callable[[Rung], int]) -> Reader:
    """A number of each rung of a search."""
    return lambda seen: {str(rung.epoch): read(rung) for rung in _overview(seen).rungs}


def _overview(seen: Observation) -> Overview:
    return seen.progress.overview or Overview()


def _share_done(progress: Progress) -> Number:
    known = progress.overview or (progress.training and progress.training.total_steps)
    return progress.share_done if known else None


def _skipped(progress: Progress) -> Number:
    if progress.training:
        return progress.training.skipped_images
    return progress.overview.unreadable if progress.overview else None


def _parts(seen: Observation) -> Values:
    return {part: seconds for part, seconds in seen.progress.seconds.items() if part not in ("total", "startup")}


def _own_metrics(seen: Observation) -> list[str]:
    names = listed(seen.progress.metrics, "validation")
    return sorted(names, key=lambda name: name != seen.progress.best.metric)[:MOST_METRICS]


def _best(seen: Observation) -> Values:
    return {seen.progress.best.metric: seen.progress.best.value}


def _recipe_step(seen: Observation) -> Values:
    step = _overview(seen).recipe_step
    return {step: 1} if step else {}


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────

_TRAINING = "while training"
_EPOCH = "after each epoch"
_SEARCH = "search"
_RECENT = "mean since the last synchronisation of the workers"

METRICS: tuple[Metric, ...] = (
    Metric("lehr_running", "1", "1 while the job runs", "every job", lambda _: {"": 1}),
    Metric(
        "lehr_progress_timestamp_seconds",
        "s since 1970",
        "when the job, or a run within it, last reported something new",
        "every job",
        lambda seen: {"": seen.changed},
    ),
    Metric("lehr_progress_ratio", "1", "share of the job that is done, 0 to 1", "every job", job(_share_done)),
    Metric("lehr_left_seconds", "s", "estimate of the time left", _TRAINING, job(lambda p: p.seconds_left)),
    Metric(
        "lehr_restarts",
        "1",
        "attempts after the first: resumed by hand or after a failure",
        _TRAINING,
        training(lambda t: max(0, t.attempt - 1)),
    ),
    Metric("lehr_workers", "worker", "workers of the running attempt", _TRAINING, training(lambda t: t.workers)),
    # training
    Metric("lehr_step", "step", "optimizer steps taken", _TRAINING, training(lambda t: t.step)),
    Metric(
        "lehr_epoch", "epoch", "epochs of training data seen, with fraction", _TRAINING, training(lambda t: t.epoch)
    ),
    Metric("lehr_train_loss", "1", f"training loss, {_RECENT}", _TRAINING, training(lambda t: t.loss)),
    Metric(
        "lehr_not_finite",
        "1",
        "1 if the training loss is NaN or infinite, else 0",
        _TRAINING,
        training(lambda t: None if t.loss is None else float(not math.isfinite(t.loss))),
    ),
    Metric(
        "lehr_learning_rate", "1", "learning rate of the latest step", _TRAINING, training(lambda t: t.learning_rate)
    ),
    Metric(
        "lehr_gradient_norm",
        "1",
        f"norm of the gradient before clipping, {_RECENT}",
        _TRAINING,
        training(lambda t: t.recent.gradient_norm),
    ),
    Metric(
        "lehr_examples_per_second",
        "example/s",
        "training examples over the time of their steps, since the last synchronisation of the workers",
        _TRAINING,
        training(lambda t: t.recent.examples_per_second),
    ),
    Metric(
        "lehr_step_seconds",
        "s",
        f"wall-clock time of a step, input included, {_RECENT}",
        _TRAINING,
        training(lambda t: t.recent.step_seconds),
    ),
    Metric(
        "lehr_communication_seconds",
        "s",
        "time per step in which workers exchange gradients and none is computed; a part of `compute`; measured in one "
        "step out of a hundred",
        "while training on several workers",
        training(lambda t: t.recent.communication_seconds),
    ),
    Metric(
        "lehr_part_seconds",
        "s",
        "time of the attempt so far, by part: input (waiting for a batch), compute (communication included), "
        "evaluation, records (reporting), checkpoints",
        _TRAINING,
        _parts,
        "part",
    ),
    Metric(
        "lehr_train_accuracy",
        "1",
        "accuracy on clean training images in evaluation mode, 0 to 1",
        _EPOCH,
        epoch("clean_train_accuracy", "train_accuracy"),
    ),
    Metric("lehr_validation_loss", "1", "loss on the validation split", _EPOCH, epoch("validation_loss")),
    Metric(
        "lehr_validation_accuracy",
        "1",
        "accuracy on the validation split, 0 to 1",
        _EPOCH,
        epoch("validation_accuracy"),
    ),
    Metric(
        "lehr_validation_metric",
        "1",
        f"the metrics that the job lists, on the validation split; at most {MOST_METRICS} of them",
        _EPOCH,
        lambda seen: {name: seen.progress.metrics[name] for name in _own_metrics(seen)},
        "metric",
    ),
    Metric(
        "lehr_best", "1", "best value so far of the metric that is optimised", "training and search", _best, "metric"
    ),
    Metric(
        "lehr_checkpoint_timestamp_seconds",
        "s since 1970",
        "when the newest checkpoint was saved; before the first, when the attempt began",
        _TRAINING,
        training(lambda t: t.checkpoint.time),
    ),
    Metric(
        "lehr_checkpoint_bytes",
        "byte",
        "size of the newest checkpoint",
        "after the attempt's first checkpoint",
        training(lambda t: t.checkpoint.bytes),
    ),
    Metric(
        "lehr_skipped_images",
        "image",
        "unreadable images skipped so far",
        "training and predict",
        job(_skipped),
    ),
    Metric(
        "lehr_gpu_memory_bytes",
        "byte",
        "peak memory of the first worker's tensors on its GPU",
        "while training on GPUs",
        training(lambda t: t.gpu_memory_bytes),
    ),
    # jobs made of jobs
    Metric(
        "lehr_children",
        "run",
        "runs within the run, by state: running, finished, ended (early, by a search), failed",
        "search, recipe, ensemble",
        lambda seen: _overview(seen).children,
        "state",
    ),
    Metric("lehr_rung_reached", "trial", "trials that reached the rung", _SEARCH, rungs(lambda r: r.reached), "epoch"),
    Metric(
        "lehr_rung_stopped",
        "trial",
        "trials that were stopped at the rung",
        _SEARCH,
        rungs(lambda r: r.stopped),
        "epoch",
    ),
    Metric(
        "lehr_epochs_spent", "epoch", "epochs trained, over all trials", _SEARCH, overview(lambda o: o.epochs_spent)
    ),
    Metric(
        "lehr_epochs_saved",
        "epoch",
        "epochs saved by stopping trials early, compared with training each to its end",
        _SEARCH,
        overview(lambda o: o.epochs_saved),
    ),
    Metric("lehr_recipe_step", "1", "1 for the recipe's current step", "recipe", _recipe_step, "step"),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
