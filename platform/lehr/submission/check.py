"""What a cluster lacks for a job: findings as pure functions of facts that `lehr.submission.inspection` gathers on it.

No Ray is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lehr.job import Job, Training
from lehr.submission.backend import Request
from lehr.training.allocation import WorkerResources, allocate, capacity

CHECKED = "Checked in "
"""How the line begins that says that a cluster was looked over."""

FINDING = ("refused: ", "warning: ")
"""How the lines begin that say what was found."""

Level = Literal["refused", "warning"]


@dataclass(frozen=True)
class Node:
    """What one node of a cluster found. Problems are sentences; empty where there is none.

    Attributes:
        name: its host and the first digits of Ray's id.
        machine: names one boot of one machine; several nodes on one share its disk.
        cpus, gpus: what Ray may give out there.
        versions: by package.
        storage: why the job's storage cannot be written there.
        marker: whether a file is there that the head wrote into the storage; None where this node could not write one.
        data: by field of the job (`data.path`), why it cannot be read there.
    """

    name: str
    machine: str
    cpus: float
    gpus: float
    versions: Mapping[str, str] = field(default_factory=dict)
    storage: str = ""
    marker: bool | None = None
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a cluster is like.

    Attributes:
        nodes: those that answered.
        silent: names of those that did not.
        limits: by resource, what the cluster can grow to; empty where it does not grow.
        dashboard: whether Ray's state can be asked for.
        model: why the job's model could not be built on a worker; empty where it could.
        streamed: whether the job's data are streamed.
    """

    nodes: Sequence[Node]
    silent: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    dashboard: bool = True
    model: str = ""
    streamed: bool = False

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)


@dataclass(frozen=True)
class Finding:
    """What is wrong, why it matters, what to do. `refused` would fail; a `warning` would not."""

    level: Level
    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.why}; {self.remedy}"


def findings(job: Job, request: Request, facts: Facts) -> list[Finding]:
    """Everything a cluster lacks for a job, what would make it fail first."""
    found = [finding for rule in RULES for finding in rule(job, request, facts)]
    return sorted(found, key=lambda finding: finding.level != "refused")


def _silent(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    if facts.silent:
        yield Finding(
            "refused" if not facts.nodes else "warning",
            f"{_named(facts.silent)} did not answer",
            "a worker that is put there would not start",
            "look at that node, or take it out of the cluster",
        )


def _storage(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    failing = [node for node in facts.nodes if node.storage]
    if failing:
        yield Finding(
            "refused",
            f"{job.storage} cannot be written from {_named([node.name for node in failing])}: {failing[0].storage}",
            "the run folder holds everything a run leaves",
            "give the nodes credentials and a way to it, or name another storage",
        )
        return
    if "://" not in job.storage and len(facts.nodes) > 1:
        yield Finding(
            "refused",
            f"storage is {job.storage}, a path on each node's own disk, and the cluster has {len(facts.nodes)} nodes",
            "every node would see another folder",
            "use s3://… or gs://…, or file:///… for a file system that all nodes share",
        )
    elif any(node.marker is False for node in facts.nodes):
        apart = [node.name for node in facts.nodes if node.marker is False]
        yield Finding(
            "refused",
            f"{job.storage} is another folder on {_named(apart)} than on the head",
            "workers would not find what others wrote",
            "mount one file system there on all nodes, or use s3://… or gs://…",
        )


def _room(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    share = share_of(job, facts)
    if share is None or not facts.nodes:
        return
    least = share.least
    nodes = [(node.cpus, node.gpus) for node in facts.nodes]
    here = capacity(nodes, share.cpus, share.gpus)
    if here >= least:
        return
    for name, each in (("GPU", share.gpus), ("CPU", share.cpus)):
        there = facts.gpus if name == "GPU" else facts.cpus
        most = max(there, facts.limits.get(name, 0.0))
        if least * each > most:
            has = f"the cluster has {there:g}" + (f" and can grow to {most:g}" if most > there else "")
            yield Finding(
                "refused",
                f"{_workers(least)} with {_count(each, name)} each need {least * each:g}, and {has}",
                "the job would wait for ever",
                _less(name, least, here, int(there)),
            )
            return
    if not facts.limits:
        yield Finding(
            "refused",
            f"{_workers(least)} with {_count(share.cpus, 'CPU')}"
            + (f" and {_count(share.gpus, 'GPU')}" if share.gpus else "")
            + f" each {'does' if least == 1 else 'do'} not fit onto the nodes: there is room for {here}",
            "a worker cannot be spread over nodes, and the job would wait for ever",
            "ask for less with workers.cpus or workers.gpus, or for fewer workers",
        )


def _less(name: str, least: int, here: int, there: int) -> str:
    """How to ask for less of a resource, where `here` workers fit."""
    ways = [f"workers={here}"] if here else []
    if name == "CPU" and there >= least:
        ways.append(f"workers.cpus={there // least}")
    if name == "GPU" and not there:
        ways.append("workers.gpus=0")
    return f"ask for less with {' or '.join(ways)}" if ways else "send it to a larger cluster"


def _data_cpus(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    share = share_of(job, facts)
    if share is None or not facts.nodes or facts.limits:
        return
    least = share.least
    taken = least * share.cpus
    if taken <= facts.cpus < taken + 1:
        yield Finding(
            "warning",
            f"the workers take {taken:g} of the cluster's {facts.cpus:g} CPUs",
            "none is left for reading data beside them: reading takes turns with training, and Ray Data in code of "
            "your own would wait for ever without a word",
            "leave one: fewer workers, or workers.cpus lower",
        )


def _versions(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    if not facts.nodes:
        return
    first = facts.nodes[0]
    for node in facts.nodes[1:]:
        apart = [name for name in first.versions if _short(name, first.versions) != _short(name, node.versions)]
        if apart:
            yield Finding(
                "refused",
                f"{_pairs(apart, first.versions, node.versions, first.name, node.name)}",
                "workers of one run must compute and talk alike",
                "give all nodes the same image",
            )
            return
    apart = [name for name in request.client if _short(name, request.client) != _short(name, first.versions)]
    if apart:
        yield Finding(
            "warning",
            _pairs(apart, request.client, first.versions, "this machine", "the cluster"),
            "the job may do there what it does not do here",
            "install the versions of one side on the other",
        )


def _dashboard(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    if not facts.dashboard and needs_dashboard(job):
        yield Finding(
            "refused",
            "the cluster's dashboard does not answer",
            "Ray frees the resources of trials that ASHA ends early only through it, and the search would hang",
            "start the head with its dashboard",
        )


def _data(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    failing: dict[str, list[Node]] = {}
    for node in facts.nodes:
        for name in node.data:
            failing.setdefault(name, []).append(node)
    for name, nodes in failing.items():
        where = "any node" if len(nodes) == len(facts.nodes) else _named([node.name for node in nodes])
        yield Finding(
            "refused",
            f"{name} cannot be read on {where}: {nodes[0].data[name]}",
            "data stay where they are, apart from small files in the working folder",
            "put them on storage that the whole cluster reaches (s3://…, gs://…, a shared file system)",
        )


def _model(job: Job, request: Request, facts: Facts) -> Iterator[Finding]:
    if facts.model and not any(node.data for node in facts.nodes):
        yield Finding(
            "refused",
            facts.model,
            "the job would fail as soon as its workers start",
            "mend the job, or install on the cluster what it needs",
        )


Rule = Callable[[Job, Request, Facts], Iterator[Finding]]
RULES: tuple[Rule, ...] = (_silent, _storage, _room, _data_cpus, _versions, _dashboard, _data, _model)


def share_of(job: Job, facts: Facts) -> WorkerResources | None:
    """What each worker of the job would get on this cluster; None for a kind of job without workers of its own."""
    training = training_of(job)
    if training is None:
        return None
    nodes = [(node.cpus, node.gpus) for node in facts.nodes]
    return allocate(training, facts.cpus, facts.gpus, facts.streamed, nodes)


def training_of(job: Job) -> Training | None:
    """The training of a job: its own, or what its trials have in common."""
    found = job if isinstance(job, Training) else getattr(job, "base", None)
    return found if isinstance(found, Training) else None


def needs_dashboard(job: Job) -> bool:
    """Whether the job ends trials early."""
    return job.kind in ("search", "recipe")


def _short(name: str, versions: Mapping[str, str]) -> str:
    """Of Python and torch the first two numbers count, of Ray and lehr all; local suffixes (`+cu130`) never do."""
    version = versions.get(name, "none").partition("+")[0]
    return ".".join(version.split(".")[:2]) if name in ("python", "torch") else version


def _pairs(names: Sequence[str], one: Mapping[str, str], other: Mapping[str, str], here: str, there: str) -> str:
    words = ", ".join(f"{name.capitalize()} is {one[name]} and {other.get(name, 'missing')}" for name in names)
    return f"{words} on {here} and {there}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more nodes" if len(names) > 3 else "")


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def _workers(count: int) -> str:
    return _count(count, "worker")
