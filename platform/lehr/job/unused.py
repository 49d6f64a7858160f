"""What a job says and nothing would obey: a setting that others in the same job rule out is refused, never ignored.

Only values other than the default count, so that the job of a finished run, in which every default is written down,
stays the job that it was. The trials of a search or a recipe are not checked: they are derived by a rule, not written
by a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel

from lehr.job.base import Job
from lehr.job.ensemble import EnsembleJob
from lehr.job.folds import FoldsJob
from lehr.job.predict import OF_PREDICTIONS, PredictJob
from lehr.job.recipe import STEPS, RecipeJob
from lehr.job.search import SearchJob, first_rung
from lehr.job.text import show
from lehr.job.training import Training, TrainJob
from lehr.job.transfer import TransferJob

Found = Iterator[tuple[str, str]]
"""Dotted fields without an effect, each with the reason and what to write instead."""


def refuse_unused(job: Job) -> None:
    """Raises JobError for the first setting of a job that would change nothing."""
    for field, why in _FINDERS[job.kind](job):
        raise job.error(field, f"has no effect {why}")


def unused_in_debug(job: Job) -> list[str]:
    """What a job says of its workers, which it has none of in one process without Ray: `workers.gpus=1`."""
    holder: Any = getattr(job, "base", job)
    workers, at = holder.workers, "base." if hasattr(job, "base") else ""
    values = [(name, getattr(workers, name)) for name in said(workers, *type(workers).model_fields)]
    return [f"{at}workers.{name}={show(value)}" for name, value in values if (name, value) != ("count", 1)]


def said(section: BaseModel, *names: str, default: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Those of the fields that have another value than their default.

    Args:
        default: the defaults that depend on other fields.
    """
    for name in names:
        usual = (default or {}).get(name, type(section).model_fields[name].get_default(call_default_factory=True))
        if getattr(section, name) != usual:
            yield name


def _training(job: Training, at: str = "") -> Found:
    """Of one training; `at` is `base.` inside another kind of job."""
    if job.optimizer.decay_norms and not job.optimizer.weight_decay:
        yield f"{at}optimizer.decay_norms", "without optimizer.weight_decay; remove it"
    if job.data.cache in ("memory", "device"):
        for name in said(job.data, "shards"):
            yield f"{at}data.{name}", f"with data.cache: {job.data.cache}, which streams nothing; remove it"
    if job.data.fold or isinstance(job, FoldsJob):
        for name in said(job.data, "validation"):
            why = "with folds, which hold out each row once" if isinstance(job, FoldsJob) else "with data.fold"
            yield f"{at}data.{name}", f"{why}; remove it, or type {at}data.validation= as well"
    elif isinstance(job.data.validation, str) and job.data.validation != "auto":
        for name in said(job.data, "group", "stratify"):
            why = "with data.validation, rows of their own; type data.validation=0.2, or remove it"
            yield f"{at}data.{name}", why


def _train(job: Job) -> Found:
    yield from _training(cast(TrainJob, job))


def _folds(job: Job) -> Found:
    yield from _training(cast(FoldsJob, job))
    if cast(FoldsJob, job).data.fold:
        yield "data.fold", "with folds, which trains all of them; remove one of both"


def _search(job: Job) -> Found:
    search = cast(SearchJob, job)
    stopping = search.stopping
    of_rule = {"asha": ("least",), "median": ("factor",), "none": ("first", "factor", "least")}[stopping.name]
    rule = "asha" if stopping.name == "none" else {"asha": "median", "median": "asha"}[stopping.name]
    for name in said(stopping, *of_rule, default={"first": first_rung(search.base)}):
        yield f"stopping.{name}", f"with stopping: {stopping.name}; remove it, or write stopping: {rule}"
    if search.method != "grid":
        for path, dimension in search.space.items():
            if dimension.points is not None:
                yield f"space.{path}.points", f"with method: {search.method}; remove it, or write method: grid"
    for path in search.space:
        if path.split(".")[0] in ("kind", "name", "notes", "notify", "storage", "time_limit", "tracking", "workers"):
            yield f"space.{path}", "on what a trial learns; set it in base, or for the whole search"


def _ensemble(job: Job) -> Found:
    ensemble = cast(EnsembleJob, job)
    yield from _other_seed(ensemble, ensemble.base)
    why = "in an ensemble, whose trainings are of equal length; write base.train."
    for name in said(ensemble.base.train, "early_stopping", "stop_on"):
        yield f"base.train.{name}", f"{why}{name}: null"
    if ensemble.method == "average" and ensemble.base.train.averaging:
        yield "base.train.averaging", "with method: average; write it into averages"
    schedule = ensemble.base.schedule
    if ensemble.method == "snapshot" and schedule.name not in ("constant", "cosine", "cyclic"):
        what = f"{schedule.name} with method: snapshot, which has cycles"
        yield "base.schedule", f"of {what}; write schedule: cosine, or cyclic with its options"
    elif ensemble.method == "snapshot" and schedule.name != "cyclic":
        for name in said(schedule, *(name for name in type(schedule).model_fields if name not in ("name", "warmup"))):
            what = "with method: snapshot, which has cycles; write"
            yield f"base.schedule.{name}", f"{what} base.schedule: {{name: cyclic, {name}: …}} instead of cycles"


def _recipe(job: Job) -> Found:
    recipe = cast(RecipeJob, job)
    section = recipe.recipe
    yield from _other_seed(recipe, recipe.base)
    if recipe.base.optimizer.scale_lr:
        what = "in a recipe, which finds the learning rate for this batch size"
        yield "base.optimizer.scale_lr", f"{what}; write base.optimizer.scale_lr: null"
    first = STEPS.index(recipe.first_step)
    if section.start_at == "overfit" and recipe.first_step != "overfit":
        yield "recipe.start_at", f"with base.task: {recipe.base.task.name}, whose rows have no one class; remove it"
    no_rates = "recipe.learning_rates" if section.learning_rates else "recipe.start_at: coarse" if first > 2 else ""
    if section.range_test and no_rates:
        yield "recipe.range_test", f"with {no_rates}, which leaves the step learning_rate out; remove one of them"
    last = section.stop_after
    if last and (STEPS.index(last) < first or (last == "learning_rate" and no_rates)):
        beside = no_rates if last == "learning_rate" and no_rates else f"recipe.start_at: {section.start_at}"
        yield "recipe.stop_after", f"with {beside}, which leaves the step {last} out; remove one of them"


def _transfer(job: Job) -> Found:
    transfer = cast(TransferJob, job)
    yield from _other_seed(transfer, transfer.base)
    if transfer.strategy == "auto":
        return
    if transfer.compare_scratch and "scratch" in transfer.strategy:
        yield "compare_scratch", "with strategy scratch, which is trained anyway; remove it"
    for name in ("features", "finetune"):
        section: BaseModel = getattr(transfer, name)
        if name not in transfer.strategy:
            for field in said(section, *type(section).model_fields):
                yield f"{name}.{field}", f"with strategy: [{', '.join(transfer.strategy)}]; remove it, or add {name}"


def _predict(job: Job) -> Found:
    predict = cast(PredictJob, job)
    if predict.seed:
        yield "seed", "on a prediction, which draws nothing; remove it"
    why = "on a prediction, which uses every image, prepared as for the training of its run; remove it"
    for name in said(predict.data, *(name for name in type(predict.data).model_fields if name not in OF_PREDICTIONS)):
        yield f"data.{name}", why
    if not isinstance(predict.workers.count, int) and predict.workers.count != "auto":
        yield "workers.count", "as a range on a prediction; write one number, or auto"
    for name in said(predict.workers, "retries"):
        yield f"workers.{name}", "on a prediction, whose lost parts Ray repeats; remove it"


def _other_seed(job: Job, base: Training) -> Found:
    """A seed of the job beside another one of its base, which is that of every training."""
    if job.seed not in (0, base.seed):
        yield "seed", f"beside base.seed: {base.seed}; remove one of them"


def _with_base(finder: Callable[[Job], Found]) -> Callable[[Job], Found]:
    def found(job: Job) -> Found:
        yield from finder(job)
        yield from _training(job.base, "base.")  # type: ignore[attr-defined]

    return found


_FINDERS: Mapping[str, Callable[[Job], Found]] = {
    "train": _train,
    "folds": _folds,
    "search": _with_base(_search),
    "recipe": _with_base(_recipe),
    "ensemble": _with_base(_ensemble),
    "transfer": _with_base(_transfer),
    "predict": _predict,
}
