"""Why a job waits, or what befell its pods, in one sentence: what Kubernetes knows of it. Pure functions.

The fields are those of Kubernetes' `PodStatus`, KubeRay's `RayClusterStatus` and `Event`:
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodStatus
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Thing = Mapping[str, Any]

PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
BROKEN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
EVENTS = ("FailedMount", "FailedAttachVolume", "FailedCreate", "FailedCreatePodSandBox")
"""Reasons of events about pods that cannot start and whose own status does not say why."""
LONGEST = 400


def why_waiting(rayjob: Thing, pods: Iterable[Thing] = (), events: Iterable[Thing] = ()) -> str:
    """What keeps a job from starting; empty where nothing is known to do so.

    Args:
        pods: those of the job's cluster and its submitter.
        events: those of the namespace; only those about this job and its pods are read.
    """
    pods = list(pods)
    found = _first(
        _suspended(rayjob), _refused_pods(rayjob), _events(rayjob, pods, events, ("FailedCreate",)), _no_room(pods),
        _containers(pods), _events(rayjob, pods, events, EVENTS), _head(rayjob),
    )  # fmt: skip
    return _shortened(found)


def never_started(rayjob: Thing, events: Iterable[Thing] = ()) -> str:
    """Why a job failed that got no pods in time: what kept it from starting at the end. Empty if it did start."""
    message = str(_status(rayjob).get("message", ""))
    if "preRunningDeadlineSeconds" not in message:
        return ""
    seconds = (rayjob.get("spec") or {}).get("preRunningDeadlineSeconds", "")
    why = _first(
        _refused_pods(rayjob), _head(rayjob), _events(rayjob, [], events, (*EVENTS, "Failed", "FailedScheduling"))
    )
    return _shortened(f"it could not start within {seconds} s, the profile's `start`{': ' + why if why else ''}")


def what_befell(rayjob: Thing, pods: Iterable[Thing] = (), events: Iterable[Thing] = ()) -> str:
    """What ended pods of a job: full memory, an eviction, a lost node; empty where nothing is known."""
    pods = list(pods)
    return _shortened(_first(_ended_pods(pods), _deleted_pods(rayjob, pods, events)))


def _first(*found: Iterator[str]) -> str:
    return next((sentence for each in found for sentence in each), "")


def _suspended(rayjob: Thing) -> Iterator[str]:
    queue = (rayjob["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    suspended = (rayjob.get("spec") or {}).get("suspend") or _status(rayjob).get("jobDeploymentStatus") == "Suspended"
    if suspended and queue:
        yield f"waiting in the queue {queue}"
    elif suspended:
        name, namespace = rayjob["metadata"]["name"], rayjob["metadata"].get("namespace", "default")
        yield (
            f"suspended by somebody; it goes on with: kubectl -n {namespace} patch rayjob {name} --type=merge "
            """-p '{"spec": {"suspend": false}}'"""
        )


def _refused_pods(rayjob: Thing) -> Iterator[str]:
    """Pods that the API server refuses: a quota, a missing account, a policy."""
    for condition in _conditions(_status(rayjob).get("rayClusterStatus") or {}, "ReplicaFailure", "True"):
        yield _refusal(str(condition.get("message") or condition.get("reason")))


def _refusal(message: str) -> str:
    text = message.partition("\n")[2] or message
    if quota := re.search(r"exceeded quota: (\S+), requested: (.*)", text):
        return f"the quota {quota[1]} has no room for its pods: requested {quota[2]}"
    return f"its pods are refused: {re.sub(r'^pods .* is forbidden: ', '', text)}"


def _no_room(pods: Iterable[Thing]) -> Iterator[str]:
    for pod in pods:
        for condition in _conditions(pod.get("status") or {}, "PodScheduled", "False"):
            said = re.split(r"[.,] +(?:no new claims|preemption:)", str(condition.get("message", "")))[0].rstrip(". ")
            missing = re.search(r'persistentvolumeclaim "([^"]+)" not found', said)
            if missing:
                yield f"the claim {missing[1]} does not exist, which volumes of the profile names"
            else:
                yield f"no node has room for {_called(pod)}: {said}"


def _containers(pods: Iterable[Thing]) -> Iterator[str]:
    for pod in pods:
        for container in _containers_of(pod):
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason, message = waiting.get("reason", ""), str(waiting.get("message", "")).strip()
            if reason in PULL:
                yield f"the image {container.get('image', '')} cannot be pulled: {_innermost(message) or reason}"
            elif reason in BROKEN:
                yield f"{_called(pod)} cannot start: {message or reason}"


def _head(rayjob: Thing) -> Iterator[str]:
    """As KubeRay tells of the head's pod, where its pods could not be listed."""
    for condition in _conditions(_status(rayjob).get("rayClusterStatus") or {}, "HeadPodReady", "False"):
        if condition.get("reason") in (*PULL, *BROKEN):
            yield f"its head cannot start: {_innermost(str(condition.get('message', '')))}"


def _ended_pods(pods: Iterable[Thing]) -> Iterator[str]:
    for pod in pods:
        status = pod.get("status") or {}
        for container in _containers_of(pod):
            for state in (container.get("state") or {}, container.get("lastState") or {}):
                if (state.get("terminated") or {}).get("reason") == "OOMKilled":
                    yield _out_of_memory(_called(pod), _memory(pod, container.get("name", "")))
        if status.get("reason") == "Evicted":
            yield f"{_called(pod)} was evicted: {str(status.get('message', '')).strip().rstrip('.')}"
        for condition in _conditions(status, "DisruptionTarget", "True"):
            said = str(condition.get("message") or condition.get("reason")).rstrip(".")
            yield f"{_called(pod)} is taken away: {said}"


def _deleted_pods(rayjob: Thing, pods: Iterable[Thing], events: Iterable[Thing]) -> Iterator[str]:
    """Pods that KubeRay has replaced already: only its events still know how they ended."""
    for event in _of_job(rayjob, pods, events):
        if "Reason:OOMKilled" in event.get("message", ""):
            yield _out_of_memory("the head" if event.get("reason") == "DeletedHeadPod" else "a worker", "")
        elif event.get("reason") == "Evicted" or event.get("reason") == "TaintManagerEviction":
            yield f"a pod was evicted: {event.get('message', '').strip().rstrip('.')}"


def _events(rayjob: Thing, pods: Iterable[Thing], events: Iterable[Thing], reasons: tuple[str, ...]) -> Iterator[str]:
    for event in _of_job(rayjob, pods, events):
        if event.get("reason") in reasons:
            message = str(event.get("message", "")).strip()
            yield _refusal(message) if "forbidden" in message else f"its pods cannot start: {message}"


def _of_job(rayjob: Thing, pods: Iterable[Thing], events: Iterable[Thing]) -> Iterator[Thing]:
    """The events about a job and what belongs to it, newest first."""
    cluster = _status(rayjob).get("rayClusterName") or rayjob["metadata"]["name"]
    names = {rayjob["metadata"]["name"], cluster, *(pod["metadata"]["name"] for pod in pods)}
    mine = [
        event
        for event in events
        if (name := (event.get("involvedObject") or {}).get("name", "")) in names or name.startswith(f"{cluster}-")
    ]
    return iter(sorted(mine, key=lambda event: str(event.get("lastTimestamp") or ""), reverse=True))


def _out_of_memory(who: str, limit: str) -> str:
    has = f" (its limit is {limit})" if limit else ""
    field = "head" if "head" in who else "workers"
    return f"{who} was killed since its memory was full{has}: raise {field}.memory in the profile, or use less"


def _memory(pod: Thing, container: str) -> str:
    containers = (pod.get("spec") or {}).get("containers") or ()
    found = [each for each in containers if each.get("name") == container]
    return str(((found[0].get("resources") or {}).get("limits") or {}).get("memory", "")) if found else ""


def _called(pod: Thing) -> str:
    kind = (pod["metadata"].get("labels") or {}).get("ray.io/node-type")
    return {"head": "the head", "worker": "a worker"}.get(str(kind), "the submitter")


def _containers_of(pod: Thing) -> list[Thing]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _conditions(status: Thing, kind: str, value: str) -> Iterator[Thing]:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == value:
            yield condition


def _status(rayjob: Thing) -> Thing:
    return rayjob.get("status") or {}


def _innermost(message: str) -> str:
    """The end of a chain of causes: `failed to pull …: failed to resolve …: not found` says what the last part says."""
    text = message.rpartition("failed to resolve reference ")[2]
    return text.partition(": ")[2] or text


def _shortened(sentence: str) -> str:
    text = " ".join(sentence.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
