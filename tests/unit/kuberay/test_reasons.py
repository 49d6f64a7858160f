"""Why a job waits and how its pods ended, in one sentence, from what a real cluster answered.

`tests/golden/kubernetes-waiting.json` was recorded from Kubernetes 1.34 with KubeRay 1.7, within 35 s of each
submission, and shortened. How pods end is as Kubernetes and KubeRay document it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lehr.kuberay.reasons import never_started, what_befell, why_waiting

RECORDED = json.loads((Path(__file__).parents[2] / "golden/kubernetes-waiting.json").read_text())
JOB = {"metadata": {"name": "mine"}, "status": {"rayClusterName": "mine-x"}}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nopull", 'the image lehr:0.1.0 cannot be pulled: failed to do request: Head "https://registry.example.com/'),
        (
            "quota",
            "the quota lehr has no room for its pods: requested requests.cpu=1,requests.memory=300Gi, used: requ",
        ),
        ("claim", "the claim missing-claim does not exist, which volumes of the profile names"),
        (
            "account",
            'its pods are refused: error looking up service account lehr/nosuch: serviceaccount "nosuch" not f',
        ),
        ("suspended", "suspended by somebody; it goes on with: kubectl -n lehr patch rayjob suspended --type=merge -p"),
        ("late", "no node has room for a worker: 0/1 nodes are available: 1 Insufficient cpu"),
    ],
)
def test_why_a_job_waits_is_one_sentence(name: str, sentence: str) -> None:
    found = why_waiting(RECORDED[name]["rayjob"], RECORDED[name]["pods"])
    assert found.startswith(sentence)
    assert found.isprintable()
    assert len(found) <= 400


def test_what_only_the_rayjob_knows_is_told_where_pods_may_not_be_listed() -> None:
    assert why_waiting(RECORDED["quota"]["rayjob"]).startswith("the quota lehr has no room")
    assert why_waiting(RECORDED["nopull"]["rayjob"]).startswith("its head cannot start: failed to do request")


def pod(kind: str = "worker", **status: Any) -> dict[str, Any]:
    limits = {"resources": {"limits": {"memory": "3Gi"}}}
    return {
        "metadata": {"name": f"mine-x-{kind}-1", "labels": {"ray.io/node-type": kind}},
        "spec": {"containers": [{"name": "ray-worker", **limits}]},
        "status": status,
    }


def event(reason: str, message: str, name: str = "mine-x", time: str = "2030-01-02T03:04:05Z") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"name": name}, "lastTimestamp": time}


TERMINATED = (
    "Ray container terminated status: &ContainerStateTerminated{ExitCode:137,Signal:0,Reason:OOMKilled,Message:,}"
)
KILLED = {"name": "ray-worker", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}


@pytest.mark.parametrize(
    ("pods", "events", "sentence"),
    [
        ([pod()], [], ""),
        ([pod(containerStatuses=[KILLED])], [], "a worker was killed since its memory was full (its limit is 3Gi): r"),
        ([pod("head", containerStatuses=[KILLED])], [], "the head was killed since its memory was full"),
        (
            [pod(reason="Evicted", message="The node was low on resource: ephemeral-storage.")],
            [],
            "a worker was evicted: The node was low on resource: ephemeral-storage",
        ),
        (
            [pod(conditions=[{"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}])],
            [],
            "a worker is taken away: Eviction API: evicting",
        ),
        (
            [],
            [event("DeletedWorkerPod", f"Deleted worker Pod lehr/mine-x-cpu-worker-1; {TERMINATED}")],
            "a worker was killed since its memory was full: raise workers.memory in the profile",
        ),
        (
            [],
            [event("DeletedHeadPod", f"Deleted head Pod lehr/mine-x-head-1; {TERMINATED}")],
            "the head was killed since",
        ),
        ([], [event("DeletedWorkerPod", "Reason:OOMKilled", name="another-x")], ""),
        # an exit code of 0 beside the reason, as container runtimes now and then report it
        (
            [
                pod(
                    containerStatuses=[
                        {"name": "ray-worker", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 0}}}
                    ]
                )
            ],
            [],
            "a worker was killed since its memory was full",
        ),
    ],
)
def test_what_ended_a_pod_is_named(pods: list[Any], events: list[Any], sentence: str) -> None:
    found = what_befell(JOB, pods, events)
    assert found.startswith(sentence) if sentence else found == ""


def test_a_volume_that_cannot_be_mounted_and_a_submitter_that_is_refused_are_told_by_events() -> None:
    mount = event(
        "FailedMount", 'MountVolume.SetUp failed for volume "job": configmap "mine" not found', "mine-x-head-1"
    )
    assert why_waiting(JOB, [pod("head")], [mount]).startswith("its pods cannot start: MountVolume.SetUp failed")
    refused = event(
        "FailedCreate", 'Error creating: pods "mine-1" is forbidden: exceeded quota: lehr, requested: x', "mine"
    )
    assert why_waiting(JOB, [], [refused]) == "the quota lehr has no room for its pods: requested x"
    assert why_waiting(JOB, [], [{**refused, "involvedObject": {"name": "another"}}]) == ""


def test_a_job_that_never_got_its_pods_says_so_and_why() -> None:
    failed = json.loads(json.dumps(RECORDED["quota"]["rayjob"]))
    failed["spec"] = {"preRunningDeadlineSeconds": 600}
    failed["status"]["message"] = "The RayJob has passed the preRunningDeadlineSeconds."
    said = never_started(failed)
    assert said.startswith("it could not start within 600 s, the profile's `start`: the quota lehr has no room for its")
    assert never_started(RECORDED["quota"]["rayjob"]) == ""
