"""The job for a folder of photographs: what starts it, how long it is, and how a person would write it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lehr import trust
from lehr.errors import JobError, RunError
from lehr.formatting import count_of, format_seconds
from lehr.job import Job, Training, TrainJob, TransferJob, from_dict, to_dict
from lehr.models.find import find
from lehr.models.fit import check_weights
from lehr.models.lite import has_code, lite_file, to_install
from lehr.models.pretrained import NotDownloaded, is_file, needs_download
from lehr.models.weights import recipe_for
from lehr.photos.folder import Photographs, look_at
from lehr.photos.plan import BATCH, USUAL_MINUTES, Costs, Length, Work, fit_length, validation_share
from lehr.photos.speed import measure
from lehr.photos.typed import OF_A_TRANSFER, Overrides, of_training, of_transfer, told_as_typed
from lehr.transfer.strategy_jobs import backbone_network, backbone_recipe, backbone_weights

NETWORK = "resnet18"
LITE = "efficientnet_lite0"  # whose weights come from a package index, where nothing else can be downloaded
SIDE = 64  # pixels, without pretrained weights
FIRST_LOOK = 2.0  # minutes
BUSY = 1.25  # times as long as alone, from which on a range is said


@dataclass(frozen=True)
class PhotoJob:
    """A job for a folder of photographs.

    Attributes:
        job: the job, with the changes that the user made.
        said: the same as a person would write it.
        told: what was understood and decided; a sentence each.
    """

    job: Job
    said: Mapping[str, Any]
    told: tuple[str, ...]


def photo_job(
    folder: str,
    overrides: Overrides,
    minutes: float | None = None,
    *,
    named: str = "",
    again: str = "lehr fine-tune",
    imports: float = 4.0,
    say: Callable[[str], None] = print,
) -> PhotoJob:
    """Looks at the folder and at this machine, and makes the job that fits both.

    Args:
        folder: of photographs, as the user gives it.
        overrides: changes to the job, by the fields of a training (`train.epochs`, `model.weights`) or of a transfer.
        minutes: that it may take; None: what the data want, up to `USUAL_MINUTES`.
        named: the name of its run, where the changes name none.
        again: the command and its folder, for what to type.
        imports: seconds that this process took to import torch and the like.
        say: hears what was understood and decided, and what takes a while.

    Raises:
        JobError: the folder holds no classes, or a change cannot be had.
        LehrError: weights that the user names cannot be had.
    """
    with told_as_typed(overrides):
        return _photo_job(folder, overrides, minutes, named, again, imports, say)


def _photo_job(
    folder: str,
    overrides: Overrides,
    minutes: float | None,
    named: str,
    again: str,
    imports: float,
    say: Callable[[str], None],
) -> PhotoJob:
    for field in ("kind", "data.path", "data.source", "extends"):
        if field in overrides or f"base.{field}" in overrides:
            raise JobError("is what this command decides; remove it", field=field, where="command line")
    job = from_dict(_pretrained(folder), overrides=of_transfer(overrides), named=named)
    assert isinstance(job, TransferJob)
    trust.give(to_dict(job))
    photographs = look_at(job.base.data)  # before anything is downloaded
    for line in photographs.told:
        say(line)
    start, network = _start(job, overrides, again, say)
    say(start)
    found = bool(network)
    if network not in ("", NETWORK):
        job = from_dict(_pretrained(folder, network), overrides=of_transfer(overrides), named=named)
        trust.give(to_dict(job))
    if not found:
        job = from_dict(_scratch(folder), overrides=of_training(overrides), named=named)
        trust.give(to_dict(job))
    training = _training(job)
    network, options, size = _network(job)
    speed = partial(measure, network, options, size, len(photographs.counts), ways=2 if found else 1)
    try:
        costs = speed(decode=photographs.seconds, imports=imports)
    except ValueError as error:  # no such network, or an option that it does not have
        raise job.error("backbone" if found else "model", str(error)) from error
    work = _work(photographs, training.data.validation, costs)
    # Without minutes the job is the same however busy the machine is; with them, they are to be kept as it is now.
    kept = work if minutes is None else replace(work, costs=costs.as_busy)
    length = fit_length(kept, USUAL_MINUTES if minutes is None else minutes, pretrained=found)
    said = _pretrained(photographs.folder, network) if found else _scratch(photographs.folder)
    _fit(said, photographs, length)
    changes = (of_transfer if found else of_training)(overrides)
    job = from_dict(said, overrides=changes, named=named)
    for path, value in changes.items():
        _set(said, path.split("."), value)
    told = (*photographs.told, start, *_about_time(job, length, work, minutes, again))
    say(told[-1])
    return PhotoJob(job, said, told)


def is_changed(job: Job, overrides: Overrides) -> bool:
    """Whether these changes would make another job of one that was made here before."""
    made = to_dict(job)
    changes = (of_transfer if isinstance(job, TransferJob) else of_training)(overrides)
    try:
        return to_dict(from_dict(made, overrides=changes)) != made
    except JobError:  # it is of the other kind
        return True


# ── what starts it ──────────────────────────────────────────────────────────────────────────────────────────────────


def _start(job: TransferJob, overrides: Overrides, again: str, say: Callable[[str], None]) -> tuple[str, str]:
    """A sentence about the weights to start from, and the backbone's name; empty where there are no weights.

    Raises JobError where the user named weights, or what needs them, and they cannot be had.
    """
    try:
        options = backbone_network(job)
    except (ValueError, RunError) as error:
        raise job.error("backbone", str(error)) from error
    network, weights = options.pop("name"), backbone_weights(job)
    if needs_download(weights, network):
        say(f"Downloading the weights of {network}, once")
    try:
        find(network, options)
    except ValueError as error:
        raise job.error("backbone.name", str(error)) from error
    try:
        check_weights(weights, job.storage, network, options, f"{again} model.weights")
        source = weights if is_file(weights) else backbone_recipe(job, network).source
        return f"Start: {network}, pretrained{f' ({source})' if source else ''}", job.backbone.name
    except (ValueError, RunError) as error:
        asked = [path for path in overrides if path.split(".")[0] in (*OF_A_TRANSFER, "model")]
        if not isinstance(error, NotDownloaded) or asked:
            raise job.error("backbone.weights", str(error)) from error
        if lite_file(LITE) and has_code():
            return f"Start: {LITE}, pretrained (its package is installed), since {error.problem}", LITE
        why = f"Start: from scratch, which takes many more photographs to be as good, since {error.problem}"
        index = f"or, from a package index: {to_install(LITE)}; then {again} model={LITE}"
        return f"{why}\nWith weights: {error.remedy}; {index}", ""


def _training(job: Job) -> Training:
    if isinstance(job, TransferJob):
        return job.base
    assert isinstance(job, TrainJob)
    return job


def _network(job: Job) -> tuple[str, dict[str, Any], tuple[int, int]]:
    """Name, options and input size of the network."""
    if isinstance(job, TransferJob):
        network = backbone_network(job)
        recipe = backbone_recipe(job, network["name"])
        options = {key: value for key, value in network.items() if key != "name"}
        return network["name"], options, recipe.size or (224, 224)
    assert isinstance(job, TrainJob)
    return job.model.name, job.model.options, recipe_for(job).size or (SIDE, SIDE)


def _work(found: Photographs, validation: object, costs: Costs) -> Work:
    """What there is to train on."""
    train, own = found.rows["train"], found.rows.get("validation")
    share = validation if isinstance(validation, float) else validation_share(train)
    held = round(share * train) if own is None else own
    return Work(max(1, train - held if own is None else train), held, found.rows.get("test", 0), costs)


# ── what the job says ───────────────────────────────────────────────────────────────────────────────────────────────


def _pretrained(folder: str, network: str = NETWORK) -> dict[str, Any]:
    return {
        "kind": "transfer",
        "backbone": {"name": network, "weights": "pretrained"},
        "strategy": ["features", "finetune"],
        "base": {
            "data": {"source": "images", "path": folder, "augment": ["flip"]},
            "optimizer": "adamw",
            "schedule": {"name": "cosine", "warmup": "10%"},
            "train": {"epochs": 1, "batch_size": BATCH},
        },
    }


def _scratch(folder: str) -> dict[str, Any]:
    return {
        "kind": "train",
        "data": {"source": "images", "path": folder, "image_size": SIDE, "augment": ["flip", "shift"]},
        "model": {"name": "small_cnn", "width": 32, "norm": "batch"},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        "schedule": {"name": "cosine", "warmup": "10%"},
        "train": {"epochs": 1, "batch_size": BATCH},
    }


def _fit(said: dict[str, Any], found: Photographs, length: Length) -> None:
    """Writes what was found and decided into the job."""
    training = said.get("base", said)
    training["train"]["epochs"] = length.epochs
    if length.strategies:
        said["strategy"] = list(length.strategies)
    data = training["data"]
    if "validation" not in found.rows:
        data["validation"] = validation_share(found.rows["train"])
    if length.limit:
        data["limit"] = length.limit
    if found.unreadable and len(found.unreadable) > 0.01 * found.looked_at:
        data["skip_unreadable"] = found.skipped


def _set(said: dict[str, Any], path: list[str], value: Any) -> None:
    """Writes a change into the job as a person would write it."""
    first, *rest = path
    known = said.get(first)
    if rest:
        inner = known if isinstance(known, dict) else {} if known is None else {"name": known}
        _set(inner, rest, value)
        value = inner
    if value is None:
        said.pop(first, None)
    else:
        said[first] = value


# ── how long it is ──────────────────────────────────────────────────────────────────────────────────────────────────


def _about_time(job: Job, length: Length, work: Work, minutes: float | None, again: str) -> list[str]:
    """How long it takes, of what, and what to type for less or more."""
    training = _training(job)
    epochs, limit = training.train.epochs, training.data.limit
    strategies = length.strategies
    if isinstance(job, TransferJob) and job.strategy != "auto":
        strategies = tuple(job.strategy)
    seconds = work.seconds(strategies, epochs, limit)
    of = f"{count_of(epochs, 'epoch')} from scratch" if not strategies else _in_words(strategies, epochs)
    if limit:
        of += f" of {limit:,} photographs"
    takes = about(seconds, work.costs.busy * seconds)
    others = ", as other programs use it" if " to " in takes else ""
    line = f"Takes {takes} on this machine{others}: {of}"
    whole = fit_length(work, float("inf"), pretrained=bool(length.strategies))
    if whole.epochs > epochs or limit or len(whole.strategies) > len(strategies):
        most = work.costs.busy * whole.seconds
        line += f"; in full {about(whole.seconds, most)}: {again} --minutes {max(1, round(most / 60 + 0.5))}"
    elif minutes is None and seconds > 1.5 * 60 * FIRST_LOOK:
        line += f"; for a first look: {again} --minutes {FIRST_LOOK:g}"
    return [line]


def _in_words(strategies: tuple[str, ...], epochs: int) -> str:
    words = {
        "features": "a head on frozen features",
        "finetune": f"{count_of(epochs, 'epoch')} of fine-tuning",
        "scratch": f"{count_of(epochs, 'epoch')} from scratch",
    }
    return " and ".join(words[each] for each in strategies)


def about(seconds: float, at_most: float = 0.0) -> str:
    """`about 40 s`, `about 6 minutes`, `about 1 h 40 min`; `2 to 5 minutes` where the second one is larger.

    Args:
        at_most: what it takes while the machine stays as busy as it is.
    """
    if at_most > BUSY * seconds:
        unit, name = (1.0, "s") if at_most < 55 else (60.0, "minutes") if at_most < 5400 else (3600.0, "hours")
        low, high = (_rounded(each / unit) for each in (seconds, at_most))
        if low != high:
            return f"{low:g} to {high:g} {name}"
    if seconds < 55:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {count_of(round(seconds / 60), 'minute')}"
    return f"about {format_seconds(600 * round(seconds / 600))}"


def _rounded(value: float) -> float:
    """To a half below 3, to one below 20, else to five: no more than can be known."""
    step = 0.5 if value < 3 else 1.0 if value < 20 else 5.0
    return max(step, step * round(value / step))
