"""Waiting for resources on a shared cluster: a job says what it waits for, and starts once all its workers fit.

Ray's placement groups do the waiting. Ray grants a group as a whole or not at all, and the group keeps its resources
until it is removed, so a job that runs is not starved by one that came later. In which order waiting jobs are served is
up to Ray; priorities and fair shares are the business of a queue such as Kueue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, cast

import ray
from ray.util import placement_group, remove_placement_group

from lehr.errors import LehrError
from lehr.ray_cluster.growth import cluster_status, never_fits
from lehr.ray_cluster.namespaces import run_of
from lehr.training.allocation import WorkerResources

FIRST_SECONDS = 1.0  # a cluster with room answers within this time, and nothing needs to be said
POLL_SECONDS = 5.0
CERTAIN = 3  # polls in a row in which the idle cluster cannot place the workers, until that is said
FRAGMENTED = "as many are free, but not where workers fit"

Held = Sequence[tuple[str, Mapping[str, float]]]
"""(holder, resources), for everyone who holds some."""


class Bundle(TypedDict):
    """One bundle of a placement group."""

    unit_resources: Mapping[str, float]


class PlacementGroup(TypedDict):
    """What is read of a placement group in Ray's state API."""

    creator_job_id: str
    bundles: Sequence[Bundle] | None


class Actor(TypedDict):
    """What is read of an actor in Ray's state API."""

    job_id: str
    ray_namespace: str | None
    placement_group_id: str | None
    required_resources: Mapping[str, float] | None


def wait_for(workers: WorkerResources, say: Callable[[str], None]) -> None:
    """Returns once the cluster has room for a job's workers (the fewest that may start); says what is missing.

    Raises:
        LehrError: the cluster grows, but never to what the workers need.
    """
    group = placement_group(_bundles(workers), strategy="PACK")
    try:
        shown = last = ""
        wait, in_vain = FIRST_SECONDS, 0
        while not group.wait(wait):
            sentence = missing(workers)
            # Resources that are free may just not be granted yet. Only where that lasts, they are in too small pieces.
            if sentence != shown and (FRAGMENTED not in sentence or sentence == last):
                say(sentence)
                shown = sentence
            last, wait = sentence, POLL_SECONDS
            in_vain = in_vain + 1 if never_fits(cluster_status(), group.id.hex()) else 0
            if in_vain == CERTAIN:
                raise LehrError(too_large(workers))
    finally:
        remove_placement_group(group)


def too_large(workers: WorkerResources) -> str:
    """What a cluster says that grows, but never to what these workers need."""
    each = " and ".join(f"{count:g} {name}s" for name, count in _bundles(workers)[0].items())
    many = f"{workers.least} workers with {each} each" if workers.least > 1 else f"a worker with {each}"
    return (
        f"the cluster can never grow to {many}: no group of its nodes has room for that; use fewer workers, or lower "
        "workers.cpus or workers.gpus"
    )


def queued(workers: WorkerResources) -> str:
    """What this job's worker group waits for; empty where it waits for nothing."""
    from ray.util.state import list_placement_groups

    mine = ("creator_job_id", "=", ray.get_runtime_context().get_job_id())
    try:
        groups = list_placement_groups(filters=[mine], limit=1000, timeout=5)
    except Exception:  # the sentence is only shown
        return ""
    return missing(workers) if any(group.state in ("PENDING", "RESCHEDULING") for group in groups) else ""


def missing(workers: WorkerResources) -> str:
    """What a job with these workers waits for on the connected cluster, now."""
    return waiting(_needs(workers), ray.available_resources(), resource_holders())


def waiting(needs: Mapping[str, float], free: Mapping[str, float], held: Held) -> str:
    """`waiting for 4 GPUs: 2 free, 2 held by run X`, about the resource that is shortest."""
    short = [name for name, count in needs.items() if free.get(name, 0.0) < count]
    name = next((each for each in ("GPU", *short) if each in short), "")
    if not name:
        wanted = " and ".join(f"{count:g} {unit}s" for unit, count in needs.items())
        return f"waiting for {wanted}: {FRAGMENTED}"
    by_holder = [f"{resources[name]:g} held by {holder}" for holder, resources in held if resources.get(name)]
    count = needs[name]
    parts = ", ".join([f"{free.get(name, 0.0):g} free", *by_holder])
    return f"waiting for {count:g} {name}{'' if count == 1 else 's'}: {parts}"


def resource_holders() -> Held:
    """Who holds what on the connected cluster; empty where its dashboard does not answer."""
    from ray.util.state import list_actors, list_placement_groups

    try:
        groups = list_placement_groups(filters=[("state", "=", "CREATED")], detail=True, limit=1000, timeout=5)
        actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=1000, timeout=5)
    except Exception:  # the waiting itself does not depend on it
        return []
    return holders_of(
        [cast(PlacementGroup, vars(group)) for group in groups], [cast(Actor, vars(actor)) for actor in actors]
    )


def holders_of(groups: Sequence[PlacementGroup], actors: Sequence[Actor]) -> Held:
    """Who holds what, from Ray's lists of placement groups and actors. Each resource is counted once."""
    runs = {actor["job_id"]: f"run {run}" for actor in actors if (run := run_of(actor["ray_namespace"]))}
    held: dict[str, dict[str, float]] = {}

    def add(job: str, resources: Mapping[str, float]) -> None:
        of_holder = held.setdefault(runs.get(job, "another job"), {})
        for name in ("CPU", "GPU"):
            of_holder[name] = of_holder.get(name, 0.0) + resources.get(name, 0.0)

    for group in groups:
        for bundle in group["bundles"] or ():
            add(group["creator_job_id"], bundle["unit_resources"])
    for actor in actors:
        if not actor["placement_group_id"]:
            add(actor["job_id"], actor["required_resources"] or {})
    return [(holder, resources) for holder, resources in sorted(held.items()) if any(resources.values())]


def _needs(workers: WorkerResources) -> dict[str, float]:
    needs = {"CPU": workers.least * workers.cpus, "GPU": workers.least * workers.gpus}
    return {name: count for name, count in needs.items() if count}


def _bundles(workers: WorkerResources) -> list[dict[str, float]]:
    bundle = {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}
    return [dict(bundle) for _ in range(workers.least)]
