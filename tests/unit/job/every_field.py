"""The fields of a job as its JSON Schema has them, and what can be seen of a job that obeys them. No Ray."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from lehr.data.door import LocalHost, cache_policy
from lehr.data.load import OpenedSources, splits
from lehr.data.streaming import ThreadDecoder
from lehr.errors import LehrError
from lehr.job import Job, TrainJob, from_dict, json_schema, to_dict
from lehr.kinds import check
from lehr.runs import Folder, RunFolder, saved, without_timing
from lehr.training.allocation import allocate
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan

Seen = Any
See = Callable[[Any], Seen]


# ── the schema as a list of paths ───────────────────────────────────────────────────────────────────────────────────


def paths_of(kind: str) -> list[str]:
    """Every field of a kind of job: `train.epochs`; `schedule<step>.gamma` for one of a schedule; `averages[].kind`."""
    schema = json_schema()
    for reference in schema["oneOf"]:
        (whole,) = _branches(schema, reference)
        if whole["properties"]["kind"]["default"] == kind:
            return list(dict.fromkeys(_walk(schema, whole, "")))
    raise AssertionError(kind)


def _walk(schema: Mapping[str, Any], part: Mapping[str, Any], at: str) -> Iterator[str]:
    for branch in _branches(schema, part):
        tag = branch.get("properties", {}).get("name", {}).get("const")
        for key, inner in branch.get("properties", {}).items():
            path = f"{at}<{tag}>.{key}" if tag and key != "name" else f"{at}.{key}" if at else key
            yield path
            yield from _walk(schema, inner, path)
        if isinstance(branch.get("items"), dict):
            yield from _walk(schema, branch["items"], f"{at}[]")
        if isinstance(branch.get("additionalProperties"), dict):
            yield from _walk(schema, branch["additionalProperties"], f"{at}.*")


def _branches(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    inner = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
    if not inner:
        yield part
    for each in inner or ():
        yield from _branches(schema, each)


# ── a row of the table ──────────────────────────────────────────────────────────────────────────────────────────────


class Field(NamedTuple):
    """A field, a value of it other than the usual one, and how its effect is seen.

    Attributes:
        path: as `paths_of` has it.
        given: other fields that both jobs have, such as those without which this one means nothing.
        see: what is compared; by default all that a tiny training leaves in its run folder.
        usual: what the other job has in its place; by default nothing.
    """

    path: str
    value: Any
    given: Mapping[str, Any] = {}
    see: See | None = None
    usual: Any = None


def effect(kind: str, base: Mapping[str, Any], field: Field, see: See) -> str:
    """What is wrong with a field: empty if its value changes what is seen."""
    path = field.path.replace("[]", ".0").replace("*", "optimizer.lr")
    path = ".".join(part.partition("<")[0] for part in path.split("."))
    common = {"kind": kind, **base}
    without = {**field.given, **({path: field.usual} if field.usual is not None else {})}
    given = {**field.given, path: field.value}
    if from_dict(common, without) == from_dict(common, given):
        return f"{field.path}: {field.value!r} is the usual value, or is dropped"
    before, after = (_seen(see, common, changes) for changes in (without, given))
    return f"{field.path}: {field.value!r} changes nothing" if before == after else ""


_looked_at: dict[tuple[See, str], Seen] = {}


def _seen(see: See, common: Mapping[str, Any], changes: Mapping[str, Any]) -> Seen:
    """What is seen of a job, or why it is refused."""
    try:
        job = made(common, changes)
        key = see, json.dumps({**to_dict(job), "name": job.name, "notes": ""})
        if key not in _looked_at:
            _looked_at[key] = see(job)
        return _looked_at[key]
    except LehrError as refused:
        return str(refused)


def made(common: Mapping[str, Any], changes: Mapping[str, Any]) -> Job:
    job = from_dict(common, changes)
    from lehr.trust import give

    give(to_dict(job))
    check(job)
    return job


# ── what can be seen of a training ──────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _plan(text: str) -> Plan:
    job = from_dict(json.loads(text))
    assert isinstance(job, TrainJob)
    opened = OpenedSources(job)
    data = opened.stream(ThreadDecoder(1)) if job.data.cache == "stream" else opened.decode()
    return Plan.make(job, splits(job, data))


def plan_of(job: Job) -> Plan:
    return _plan(json.dumps({**to_dict(job), "name": None}))


def trained(job: Job) -> Seen:
    """All that a training in this process leaves behind: its weights, record, events, checkpoints and model."""
    plan = plan_of(job)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Folder.at(folder), to_dict(plan.job))
        with contextlib.suppress(Exception):
            train(plan, run, Group())
        model = sorted(Path(folder, "model").glob("*"))
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in model if path.suffix == ".safetensors"]
        record = [without_timing(run.steps()).to_pylist(), without_timing(run.epochs()).to_pylist()]
        outcome = run.outcome()
        about = outcome and (outcome.status, outcome.best, outcome.metrics)
        return repr((digests, record, sorted(saved(run.folder)), about))


def rates(job: Job) -> Seen:
    """The learning rate of every step; `trained` shows once that a training has these rates."""
    plan = plan_of(job)
    return [plan.learning_rate(step) for step in range(plan.length.total_steps)]


def rows(job: Job) -> Seen:
    """Which rows are trained on, in which order, which are held out, and how they look when they are trained on."""
    plan = plan_of(job)
    batch = plan.splits.train.gather(plan.sampler.order(0))
    augmented = plan.augment(batch, 0)
    test = plan.splits.test
    held_out = [plan.splits.validation.ids.tolist(), test and test.ids.tolist()]
    return [batch.ids.tolist(), held_out, _digest(augmented.inputs), plan.splits.train.classes]


def network(job: Job) -> Seen:
    """The network on each of two workers: its layers, its layout in memory, and whether it is compiled."""
    model = prepare_model(plan_of(job), Group(0, 2))
    weights = [(name, value.is_contiguous(), _digest(value)) for name, value in model.named_parameters()]
    return [str(model), weights, model._compiled_call_impl is not None]


def compiled(job: Job) -> Seen:
    """Whether and how torch is asked to compile the network."""
    asked: list[Any] = []
    original = torch.nn.Module.compile
    torch.nn.Module.compile = lambda self, **options: asked.append(options)  # type: ignore[method-assign]
    try:
        prepare_model(plan_of(job), Group())
    finally:
        torch.nn.Module.compile = original  # type: ignore[method-assign]
    return asked


def placed(job: Job) -> Seen:
    """How many workers there are on a machine with 8 CPUs and 2 GPUs, and what each gets."""
    return allocate(cast(TrainJob, job), 8, 2)


def cached(job: Job) -> Seen:
    """Whether images are streamed, or copied to the GPU's memory."""
    section = cast(TrainJob, job).data.cache
    host = LocalHost()
    moved = False
    plan = plan_of(job)
    with contextlib.suppress(Exception):
        moved = plan.to(torch.device("meta")) is not plan
    return cache_policy(section, 100, *host.room()).streamed, moved


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()
