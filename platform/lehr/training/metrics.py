"""A job's metrics: found by name, tried on a few rows before the first step, and measured on whole splits.

All outputs and targets of a split are brought together on the first worker, in the order of the rows, and each metric
is computed once, on the whole. So it is exact for any number of workers and any batches, whatever it computes. This
takes memory for rows × classes numbers on the first worker, twice for a moment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lehr.data.targets import readable
from lehr.errors import JobError, LehrError
from lehr.extras import install
from lehr.job import MetricSection, Training, TrainJob, check_call, not_a_choice
from lehr.own_code import OwnCodeError, calling, raised, shape
from lehr.tasks.base import Task
from lehr.tasks.forms import PLACED, LabelKind, form_of
from lehr.tasks.metrics import METRICS, Metric, columns
from lehr.training.losses import first_two, parameters
from lehr.trust import Call, load

STAT_SCORES = ("StatScores", "MulticlassStatScores", "MultilabelStatScores")
"""Their five counts would be taken for those of five classes."""
MISSING = f"is a metric of torchmetrics, which is not installed; install it with: {install('metrics')}"


# ── finding them ────────────────────────────────────────────────────────────────────────────────────────────────────


def find_metric(job: Training, number: int, error: Callable[[str, str], JobError]) -> Callable[..., Any]:
    """The function or class that an entry of the job's metrics names.

    Raises:
        JobError: there is none of that name, or a library is missing.
    """
    entry, field = job.metrics[number], f"metrics.{number}.name"
    kind = form_of(job.task.name).labels
    if kind == "captions":
        what = f"{job.task.name} measures perplexity, BLEU-4, CIDEr and exact match by itself"
        raise error("metrics", f"{what}; leave them out, or write a task of your own: my_package.tasks:Task")
    if kind in PLACED:
        measures = "average precision, of all overlaps, sizes and classes,"
        what = f"{job.task.name} measures {measures if kind == 'boxes' else 'intersection over union'} by itself"
        raise error("metrics", f"{what}; leave them out, or write a task of your own: my_package.tasks:Task")
    ours = METRICS if kind == "class" else {}
    if entry.name in ours:
        return ours[entry.name]
    if ":" in entry.name:
        try:
            found = load(Call("metric", entry.name, entry.options))
        except ValueError as missing:
            raise error(field, str(missing)) from missing
        if not callable(found):
            raise error(field, f"{entry.name} is {shape(found)}; allowed: a function or a class")
        return found
    if not entry.name[:1].isupper():
        allowed = [
            *ours,
            "a class of torchmetrics such as F1Score"
            if kind != "numbers"
            else "a class of torchmetrics such as PearsonCorrCoef",
        ]
        what = "metric" if kind == "class" else f"metric of {job.task.name}"
        raise error(field, not_a_choice(entry.name, what, [*allowed, "my_package.module:name"]))
    if find_spec("torchmetrics") is None:
        raise error(field, f'"{entry.name}" {MISSING}')
    classes = _torchmetrics(kind)
    if entry.name not in classes:
        for_any = [name for name in classes if kind == "numbers" or f"{PREFIX[kind]}{name}" in classes]
        raise error(field, not_a_choice(entry.name, f"metric of torchmetrics for {OF_KIND[kind]}", for_any))
    return classes[entry.name]


PREFIX = {"class": "Multiclass", "classes": "Multilabel"}
OF_KIND = {"class": "one class per image", "classes": "several classes per image", "numbers": "numbers"}


def _torchmetrics(kind: LabelKind) -> dict[str, Callable[..., Any]]:
    """The classes of torchmetrics for such labels, by name. Importing them takes seconds."""
    from lehr.models.vision import torchvision

    torchvision()  # which torchmetrics imports
    if kind == "numbers":
        from torchmetrics import regression

        return {name: getattr(regression, name) for name in regression.__all__}
    from torchmetrics import classification as module

    others = ("Binary", "Multilabel" if kind == "class" else "Multiclass")
    names = [name for name in module.__all__ if not name.startswith(others) and name not in STAT_SCORES]
    return {name: getattr(module, name) for name in names}


def complete_metrics(job: Training, error: Callable[[str, str], JobError]) -> None:
    """Fills in which values of each metric are better, as it says itself: from then on the job alone answers that.

    Raises:
        JobError: there is no such metric, or one by which the job chooses does not say which values are better.
    """
    for number, entry in enumerate(job.metrics):
        if entry.better is None:
            found = find_metric(job, number, error)
            entry.__dict__["better"] = direction(entry, found, form_of(job.task.name).labels)
    early = job.train.early_stopping
    for field, column in (("metric", job.train.metric), ("early_stopping.metric", early and early.metric)):
        chosen_by = job.metric_entry(column) if column else None
        if chosen_by and chosen_by.better is None:
            what = f"{chosen_by.name} does not say which values are better, and train.{field} is {column}"
            raise error(f"metrics.{job.metrics.index(chosen_by)}", f"{what}; allowed: better: higher, or better: lower")


def direction(entry: MetricSection, found: object, kind: LabelKind) -> str | None:
    """`higher` or `lower`, as a metric says of itself; None where it does not."""
    if entry.name in METRICS:
        return "higher"
    if _is_torchmetrics(found) and kind in PREFIX:  # F1Score makes a MulticlassF1Score, which alone knows
        found = _torchmetrics(kind).get(f"{PREFIX[kind]}{getattr(found, '__name__', '')}", found)
    said = getattr(found, "higher_is_better", None)
    return ("higher" if said else "lower") if isinstance(said, bool) else None


# ── trying them ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Metrics:
    """The metrics of a job.

    Attributes:
        each: in the order of the job.
        names: the columns that they give, without the split.
    """

    each: tuple[Metric, ...] = ()
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.each)

    def measure(self, outputs: Tensor, targets: Tensor, task: Task[Any], classes: Sequence[str]) -> dict[str, float]:
        """What they measure on all rows of a split.

        Args:
            outputs: [rows, …] of the network, on any device. targets: [rows, …]; unreadable rows are left out.

        Raises:
            LehrError: the user's own metric failed, or measured something else than when it was tried.
        """
        known = readable(targets)
        outputs, targets = outputs[known].detach().cpu(), targets[known].cpu()
        found: dict[str, float] = {}
        probabilities = task.values(outputs) if any(each.takes_probabilities for each in self.each) else outputs
        outputs = task.for_metrics(outputs)
        targets = targets.long() if targets.dtype == torch.int8 else targets
        for each in self.each:
            given = probabilities if each.takes_probabilities else outputs
            value = each.compute(given.clone(), targets.clone())
            try:
                found |= columns(each.label, value, classes)
            except ValueError as error:
                raise LehrError(f"the metric {each.label} {error}") from error
        if self.names and set(found) != set(self.names):
            raise LehrError(
                f"the metrics measured {', '.join(found)} where they were to measure {', '.join(self.names)}; "
                "allowed: the same names every time"
            )
        return found


NONE = Metrics()


def make_metrics(job: TrainJob, task: Task[Any], classes: Sequence[str], dtype: torch.dtype) -> Metrics:
    """The job's metrics, tried on a few made-up rows, which tells the names of what they measure.

    Raises:
        JobError: one is unknown, refuses an option, returns what is no metric, or two have the same name.
        OwnCodeError: a user's own metric failed.
    """
    if not job.metrics:
        return NONE
    count = len(classes)
    rows = max(16, 2 * count)
    outputs, targets = task.example(count, rows, dtype)
    outputs = outputs.softmax(dim=1) if task.labels == "class" and task.values(outputs).equal(outputs) else outputs
    each: list[Metric] = []
    names: dict[str, str] = dict.fromkeys(task.metric_names, "")
    for number in range(len(job.metrics)):
        metric = _metric(job, number, count)
        try:
            found = Metrics((metric,)).measure(outputs, targets, task, classes)
        except OwnCodeError:
            raise
        except Exception as error:
            what = str(error) if isinstance(error, LehrError | ValueError) else raised(error)
            option, _, about = what.partition(": ")
            if option in job.metrics[number].options:
                raise job.error(f"metrics.{number}.{option}", about) from error
            raise job.error(f"metrics.{number}", what) from error
        for name in found:
            if name in names:
                what = f'"{name}" is measured already; allowed: another name, with label'
                raise job.error(f"metrics.{number}", what)
        names |= dict.fromkeys(found, metric.label)
        each.append(metric)
    return Metrics(tuple(each), tuple(name for name, label in names.items() if label))


def _metric(job: TrainJob, number: int, classes: int) -> Metric:
    """One entry of the job's metrics, ready to be computed. Raises JobError for an option that it does not have."""
    entry, field = job.metrics[number], f"metrics.{number}"
    found = find_metric(job, number, job.error)
    theirs = _is_torchmetrics(found)
    filled = FILLED[form_of(job.task.name).labels](classes) if theirs else {}
    taken = parameters(found)
    options = {**{name: value for name, value in filled.items() if name in taken}, **entry.options}
    given = () if inspect.isclass(found) else first_two(found)
    skip = (*given, *(name for name in filled if name in taken and name not in entry.options))
    check_call(found, entry.options, skip=skip, fields=("label", "better"), field=field, error=job.error)
    if not inspect.isclass(found):
        return Metric(entry.recorded_as, _function(found, options, entry.name))
    for method in ("update", "compute"):
        if not callable(getattr(found, method, None)) and not theirs:
            what = f"{entry.name} has no method {method}; allowed: a function, or a class with update and compute"
            raise job.error(f"{field}.name", what)
    return Metric(entry.recorded_as, _of_class(found, options, entry.name), takes_probabilities=theirs)


FILLED: dict[LabelKind, Callable[[int], dict[str, Any]]] = {
    "class": lambda count: {"task": "multiclass", "num_classes": count},
    "classes": lambda count: {"task": "multilabel", "num_labels": count},
    "numbers": lambda count: {},
}
"""By what a row is labelled with, the options of a class of torchmetrics that lehr fills in."""


def _is_torchmetrics(found: object) -> bool:
    return inspect.isclass(found) and found.__module__.startswith("torchmetrics.")


def _function(found: Callable[..., Any], options: Mapping[str, Any], name: str) -> Callable[[Tensor, Tensor], object]:
    if name in METRICS:
        return lambda outputs, targets: found(outputs, targets, **options)

    def compute(outputs: Tensor, targets: Tensor) -> object:
        with calling(name, outputs=outputs, targets=targets, **options):
            return found(outputs, targets, **options)

    return compute


def _of_class(found: Callable[..., Any], options: Mapping[str, Any], name: str) -> Callable[[Tensor, Tensor], object]:
    """A metric that is made, updated with the whole split, and computed."""

    def compute(outputs: Tensor, targets: Tensor) -> object:
        with calling(name, outputs=outputs, targets=targets, **options) if ":" in name else nullcontext():
            made = found(**options)
            for part in (made, *getattr(made, "modules", list)()):
                if hasattr(part, "distributed_available_fn"):  # it has all rows, and the other workers do not call it
                    part.distributed_available_fn = lambda: False
            made.update(outputs, targets)
            return made.compute()

    return compute
