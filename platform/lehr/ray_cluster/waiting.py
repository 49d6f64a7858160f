"""Waiting on a cluster that others use too: a job sees why it waits, and starts when all its workers fit at once.

Ray's placement groups do the waiting: a group is given its resources all at once or not at all, and keeps them until it
gives them back, so a job that runs is not starved by one that came later. Who comes first among those that wait is
Ray's affair; priorities and fair shares are the business of a queue such as Kueue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.util import placement_group, remove_placement_group

from lehr.submission.backend import NAMESPACE
from lehr.training.allocation import WorkerResources

FIRST_SECONDS = 1.0  # a cluster with room answers at once, and nothing needs to be said
LOOK_SECONDS = 5.0
SCATTERED = "as many are free, but not where workers fit"

Held = Sequence[tuple[str, Mapping[str, float]]]
"""(run, resources) of everybody who holds some."""


def wait_for(share: WorkerResources, say: Callable[[str], None]) -> None:
    """Returns once the cluster has room for all of a job's workers (the fewest that may start); says what it lacks."""
    group = placement_group(_bundles(share), strategy="PACK")
    try:
        said = last = ""
        wait = FIRST_SECONDS
        while not group.wait(wait):
            sentence = what_for(share)
            # What is free may just not be given yet; where that lasts, it is in pieces that are too small.
            if sentence != said and (SCATTERED not in sentence or sentence == last):
                say(sentence)
                said = sentence
            last, wait = sentence, LOOK_SECONDS
    finally:
        remove_placement_group(group)


def what_for(share: WorkerResources) -> str:
    """What a job with this share waits for, on the connected cluster, now."""
    return waiting(_needs(share), ray.available_resources(), holders())


def queued(share: WorkerResources) -> str:
    """What this job's worker group waits for, if it has asked for resources and not been given them; else nothing."""
    from ray.util.state import list_placement_groups

    mine = ("creator_job_id", "=", ray.get_runtime_context().get_job_id())
    try:
        groups = list_placement_groups(filters=[mine], limit=1000, timeout=5)
    except Exception:  # nothing depends on what is said here
        return ""
    return what_for(share) if any(group.state in ("PENDING", "RESCHEDULING") for group in groups) else ""


def waiting(needs: Mapping[str, float], free: Mapping[str, float], held: Held) -> str:
    """`waiting for 4 GPUs: 2 free, 2 held by run X`, about the resource that is shortest."""
    short = [name for name, count in needs.items() if free.get(name, 0.0) < count]
    name = next((each for each in ("GPU", *short) if each in short), "")
    if not name:
        wanted = " and ".join(f"{count:g} {unit}s" for unit, count in needs.items())
        return f"waiting for {wanted}: {SCATTERED}"
    by_run = [f"{resources[name]:g} held by {run}" for run, resources in held if resources.get(name)]
    whole = needs[name]
    parts = ", ".join([f"{free.get(name, 0.0):g} free", *by_run])
    return f"waiting for {whole:g} {name}{'' if whole == 1 else 's'}: {parts}"


def holders() -> list[tuple[str, Mapping[str, float]]]:
    """Who holds what on the connected cluster, by run; empty where its dashboard does not answer."""
    from ray.util.state import list_actors, list_placement_groups

    try:
        groups = list_placement_groups(filters=[("state", "=", "CREATED")], detail=True, limit=1000, timeout=5)
        actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=1000, timeout=5)
    except Exception:  # the waiting itself does not depend on it
        return []
    return shares_of([vars(group) for group in groups], [vars(actor) for actor in actors])


def shares_of(groups: Sequence[Mapping[str, Any]], actors: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """Who holds what, from Ray's lists of placement groups and actors."""
    runs = {
        actor["job_id"]: f"run {actor['ray_namespace'].removeprefix(NAMESPACE)}"
        for actor in actors
        if (actor["ray_namespace"] or "").startswith(NAMESPACE)
    }
    held: dict[str, dict[str, float]] = {}

    def add(job: str, resources: Mapping[str, float]) -> None:
        mine = held.setdefault(runs.get(job, "another job"), {})
        for name in ("CPU", "GPU"):
            mine[name] = mine.get(name, 0.0) + resources.get(name, 0.0)

    for group in groups:
        for bundle in group["bundles"] or ():
            add(group["creator_job_id"], bundle["unit_resources"])
    for actor in actors:
        if not actor["placement_group_id"]:
            add(actor["job_id"], actor["required_resources"] or {})
    return [(run, resources) for run, resources in sorted(held.items()) if any(resources.values())]


def _needs(share: WorkerResources) -> dict[str, float]:
    needs = {"CPU": share.least * share.cpus, "GPU": share.least * share.gpus}
    return {name: count for name, count in needs.items() if count}


def _bundles(share: WorkerResources) -> list[dict[str, float]]:
    bundle = {"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})}
    return [dict(bundle) for _ in range(share.least)]
