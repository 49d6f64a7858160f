"""What a cluster lacks for a job: findings as pure functions of what `lehr.submission.inspection` saw of the cluster.

No Ray is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lehr.job import Job, Training
from lehr.submission.backend import Request
from lehr.submission.check_result import Finding
from lehr.training.allocation import WorkerResources, allocate, capacity


@dataclass(frozen=True)
class NodeInspection:
    """What was seen on one node of a cluster. Errors are sentences; empty where there is none.

    Attributes:
        name: its host and the first digits of Ray's node id.
        machine: names one boot of one machine; several nodes on one machine share its disk.
        cpus, gpus: what Ray may give out there.
        versions: by package.
        storage_error: why the job's storage cannot be written there.
        sees_marker: whether a file is there that the head wrote into the storage; None where the storage failed.
        data_errors: by field of the job (`data.path`), why what it names cannot be read there.
    """

    name: str = ""
    machine: str = ""
    cpus: float = 0.0
    gpus: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    storage_error: str = ""
    sees_marker: bool | None = None
    data_errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """What was seen of a cluster, for one job.

    Attributes:
        nodes: those that answered.
        unresponsive: names of those that did not.
        limits: by resource, what the cluster can grow to; empty where it does not grow.
        model_error: why the job's model could not be built on a worker; empty where it could.
    """

    nodes: Sequence[NodeInspection]
    unresponsive: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    model_error: str = ""

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    @property
    def sizes(self) -> list[tuple[float, float]]:
        """(CPUs, GPUs) of each node."""
        return [(node.cpus, node.gpus) for node in self.nodes]


def findings(job: Job, request: Request, seen: Inspection) -> tuple[Finding, ...]:
    """Everything a cluster lacks for a job, starting with what would make it fail."""
    found = [finding for rule in RULES for finding in rule(job, request, seen)]
    return tuple(sorted(found, key=lambda finding: finding.level != "refused"))


def _unresponsive(job: Job, request: Request, seen: Inspection) -> Iterator[Finding]:
    if seen.unresponsive:
        yield Finding(
            "refused" if not seen.nodes else "warning",
            f"{_named(seen.unresponsive)} did not answer",
            "workers placed there would not start",
            "check that node, or remove it from the cluster",
        )


def _storage(job: Job, request: Request, seen: Inspection) -> Iterator[Finding]:
    failing = [node for node in seen.nodes if node.storage_error]
    if failing:
        names = _named([node.name for node in failing])
        yield Finding(
            "refused",
            f"{job.storage} cannot be written from {names}: {failing[0].storage_error}",
            "every node must reach the run folder",
            "give the nodes credentials and network access, or use another storage",
        )
        return
    apart = [node.name for node in seen.nodes if node.sees_marker is False]
    if apart and "://" not in job.storage:
        yield Finding(
            "refused",
            f"storage is {job.storage}, a path on each node's own disk: {_named(apart)} does not see the head's folder",
            "workers would not find each other's files",
            "use s3://… or gs://…, or a path on a file system that all nodes share",
        )
    elif apart:
        yield Finding(
            "refused",
            f"{job.storage} is not the same folder on {_named(apart)} as on the head",
            "workers would not find each other's files",
            "mount one shared file system on all nodes, or use s3://… or gs://…",
        )


def _room(job: Job, request: Request, seen: Inspection) -> Iterator[Finding]:
    workers = worker_resources(job, seen)
    if workers is None or not seen.nodes:
        return
    least = workers.least
    fitting = capacity(seen.sizes, workers.cpus, workers.gpus)
    if fitting >= least:
        return
    for name, each, total in (("GPU", workers.gpus, seen.gpus), ("CPU", workers.cpus, seen.cpus)):
        most = max(total, seen.limits.get(name, 0.0))
        if least * each > most:
            has = f"the cluster has {total:g}" + (f" and can grow to {most:g}" if most > total else "")
            yield Finding(
                "refused",
                f"{_workers(least)} with {_count(each, name)} each need {least * each:g}, and {has}",
                "the job would wait forever",
                _smaller(name, least, fitting, int(total)),
            )
            return
    if any(map(math.isinf, seen.limits.values())):
        yield Finding(
            "warning",
            f"the cluster has room for {fitting} of {_workers(least)} now",
            "it grows by itself, and the job waits until they fit",
            "start it as it is; if it waits long, ask the cluster's owner how far it grows",
        )
    if not seen.limits:
        size = _count(workers.cpus, "CPU") + (f" and {_count(workers.gpus, 'GPU')}" if workers.gpus else "")
        do_not_fit = "does not fit" if least == 1 else "each do not fit"
        yield Finding(
            "refused",
            f"{_workers(least)} with {size} {do_not_fit} onto the nodes, which have room for {fitting}",
            "a worker must fit onto one node, so the job would wait forever",
            "lower workers.cpus or workers.gpus, or use fewer workers",
        )


def _smaller(resource: str, least: int, fitting: int, total: int) -> str:
    """How to ask for less of a resource, where `fitting` workers fit."""
    ways = [f"workers={fitting}"] if fitting else []
    if resource == "CPU" and total >= least:
        ways.append(f"workers.cpus={total // least}")
    if resource == "GPU" and not total:
        ways.append("workers.gpus=0")
    return f"set {' or '.join(ways)}" if ways else "use a larger cluster"


def _data_cpus(job: Job, request: Request, seen: Inspection) -> Iterator[Finding]:
    workers = worker_resources(job, seen)
    if workers is None or not seen.nodes or seen.limits:
        return
    taken = workers.least * workers.cpus
    if taken <= seen.cpus < taken + 1:
        yield Finding(
            "warning",
            f"the workers take {taken:g} of the cluster's {seen.cpus:g} CPUs",
            "none is left for loading data: loading alternates with training, and Ray Data in your own code would hang "
            "silently",
            "leave one CPU free: use fewer workers, or lower workers.cpus",
        )


def _versions(job: Job, request: Request, seen: Inspection) -> Iterator[Finding]:
    if not seen.nodes:
        return
    first = seen.nodes[0]
    for node in seen.nodes[1:]:
        if different := _different(first.versions, node.versions):
            yield Finding(
                "refused",
                _mismatch(different, first.versions, node.versions, f"on {first.name}", f"on {node.name}"),
                "all workers of a run need the same versions",
                "use the same image on all nodes",
            )
            return
    if different := _different(request.client, first.versions):
        yield Finding(
            "warning",
            _mismatch(different, request.client, first.versions, "here", "on the cluster"),
            "the job may behave differently there",
            "install the same versions on both",
        )


def _data(job: Job, request: Request, seen: Inspection) -> Iterator[Finding]:
    failing: dict[str, list[NodeInspection]] = {}
    for node in seen.nodes:
        for name in node.data_errors:
            failing.setdefault(name, []).append(node)
    for name, nodes in failing.items():
        where = "any node" if len(nodes) == len(seen.nodes) else _named([node.name for node in nodes])
        yield Finding(
            "refused",
            f"{name} cannot be read on {where}: {nodes[0].data_errors[name]}",
            "data are not uploaded, apart from small files in the working folder",
            "put them on storage that the whole cluster reaches (s3://…, gs://…, a shared file system)",
        )


def _model(job: Job, request: Request, seen: Inspection) -> Iterator[Finding]:
    if seen.model_error and not any(node.data_errors for node in seen.nodes):
        yield Finding(
            "refused",
            seen.model_error,
            "the job would fail as soon as its workers start",
            "fix the job, or install what it needs on the cluster",
        )


Rule = Callable[[Job, Request, Inspection], Iterator[Finding]]
RULES: tuple[Rule, ...] = (_unresponsive, _storage, _room, _data_cpus, _versions, _data, _model)


def worker_resources(job: Job, seen: Inspection) -> WorkerResources | None:
    """What each worker of the job would get on this cluster; None for a kind of job without workers of its own."""
    training = training_of(job)
    return allocate(training, seen.cpus, seen.gpus, nodes=seen.sizes) if training else None


def training_of(job: Job) -> Training | None:
    """The training of a job: its own, or what its trials have in common."""
    found = job if isinstance(job, Training) else getattr(job, "base", None)
    return found if isinstance(found, Training) else None


def _different(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The packages whose versions do not go together."""
    return [name for name in one if _significant(name, one) != _significant(name, other)]


def _significant(name: str, versions: Mapping[str, str]) -> str:
    """What must agree: of Python and torch the first two numbers, of Ray and lehr all; no local suffix (`+cu130`)."""
    version = versions.get(name, "none").partition("+")[0]
    return ".".join(version.split(".")[:2]) if name in ("python", "torch") else version


def _mismatch(names: Sequence[str], one: Mapping[str, str], other: Mapping[str, str], here: str, there: str) -> str:
    """`Torch is 2.11.0 on node one but 2.9.1 on node two`, for each of the packages."""
    return ", and ".join(
        f"{name.capitalize()} is {one[name]} {here} but {other.get(name, 'missing')} {there}" for name in names
    )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more nodes" if len(names) > 3 else "")


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def _workers(count: int) -> str:
    return _count(count, "worker")
