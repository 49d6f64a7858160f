"""Each finding of `lehr check`, with its sentence, from an inspection that provokes it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lehr.job import Job, from_dict, to_dict
from lehr.submission.backend import Request
from lehr.submission.check import Inspection, NodeInspection, findings
from lehr.submission.check_result import Finding

VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.11.0", "lehr": "0.1.0"}


def node(name: str = "one (aaaaaa)", cpus: float = 8, gpus: float = 0, **fields: Any) -> NodeInspection:
    return NodeInspection(**{"name": name, "machine": name, "cpus": cpus, "gpus": gpus, "versions": VERSIONS, **fields})


def two(**fields: Any) -> list[NodeInspection]:
    return [node(), node("two (bbbbbb)", **fields)]


def check(job: dict[str, Any], seen: Inspection, client: dict[str, str] = VERSIONS) -> tuple[Finding, ...]:
    made: Job = from_dict({"kind": "train", "storage": "s3://bucket/runs", **job})
    return findings(made, Request("mine", to_dict(made), "/home/me", "/home/me", client=client), seen)


def test_nothing_is_found_on_a_healthy_cluster() -> None:
    assert check({"workers": 2}, Inspection(two())) == ()
    assert check({}, Inspection([node()])) == ()
    assert check({"workers": 2, "storage": "./runs"}, Inspection([node()])) == ()
    assert check({"workers": 2, "storage": "./runs"}, Inspection(two(sees_marker=True))) == (), "one machine"
    assert check({"workers": {"count": 2, "gpus": 1}}, Inspection([node(gpus=1), node("two (b)", gpus=1)])) == ()
    assert check({"workers": 2, "storage": "file:///nfs/runs"}, Inspection(two(sees_marker=True))) == ()


CASES: list[tuple[str, dict[str, Any], Inspection, str, str]] = [
    (
        "storage that cannot be written",
        {},
        Inspection(two(storage_error="s3://bucket/runs/x: cannot write: ACCESS_DENIED")),
        "refused",
        "s3://bucket/runs cannot be written from two (bbbbbb): s3://bucket/runs/x: cannot write: ACCESS_DENIED; every "
        "node must reach the run folder; give the nodes credentials and network access, or use another storage",
    ),
    (
        "a local path with several nodes",
        {"storage": "/home/me/runs"},
        Inspection(two(sees_marker=False)),
        "refused",
        "storage is /home/me/runs, a path on each node's own disk: two (bbbbbb) does not see the head's folder; "
        "workers would not find each other's files; use s3://… or gs://…, or a path on a file system that all nodes "
        "share",
    ),
    (
        "a shared folder that is not shared",
        {"storage": "file:///mnt/runs"},
        Inspection(two(sees_marker=False)),
        "refused",
        "file:///mnt/runs is not the same folder on two (bbbbbb) as on the head; workers would not find each other's "
        "files; mount one shared file system on all nodes, or use s3://… or gs://…",
    ),
    (
        "more GPUs than there are",
        {"workers": {"count": 4, "gpus": 1}},
        Inspection([node(gpus=2)]),
        "refused",
        "4 workers with 1 GPU each need 4, and the cluster has 2; the job would wait forever; set workers=2",
    ),
    (
        "GPUs where there are none",
        {"workers": {"count": 2, "gpus": 1}},
        Inspection(two()),
        "refused",
        "2 workers with 1 GPU each need 2, and the cluster has 0; the job would wait forever; set workers.gpus=0",
    ),
    (
        "more GPUs than the cluster can grow to",
        {"workers": {"count": 8, "gpus": 1}},
        Inspection([node(gpus=2)], limits={"CPU": 64, "GPU": 4}),
        "refused",
        "8 workers with 1 GPU each need 8, and the cluster has 2 and can grow to 4; the job would wait forever; set "
        "workers=2",
    ),
    (
        "more CPUs than there are",
        {"workers": {"count": 4, "cpus": 4}},
        Inspection(two(cpus=4)),
        "refused",
        "4 workers with 4 CPUs each need 16, and the cluster has 12; the job would wait forever; set workers=3 or "
        "workers.cpus=3",
    ),
    (
        "workers larger than a node",
        {"workers": {"count": 1, "cpus": 12}},
        Inspection(two()),
        "refused",
        "1 worker with 12 CPUs does not fit onto the nodes, which have room for 0; a worker must fit onto one node, so "
        "the job would wait forever; lower workers.cpus or workers.gpus, or use fewer workers",
    ),
    (
        "no CPU left for data",
        {"workers": {"count": 2, "cpus": 4}},
        Inspection([node()]),
        "warning",
        "the workers take 8 of the cluster's 8 CPUs; none is left for loading data: loading alternates with "
        "training, and Ray Data in your own code would hang silently; leave one CPU free: use fewer workers, or lower "
        "workers.cpus",
    ),
    (
        "nodes of other versions",
        {},
        Inspection(two(versions={**VERSIONS, "torch": "2.9.1", "lehr": "0.2.0"})),
        "refused",
        "Torch is 2.11.0 on one (aaaaaa) but 2.9.1 on two (bbbbbb), and Lehr is 0.1.0 on one (aaaaaa) but 0.2.0 on "
        "two (bbbbbb); all workers of a run need the same versions; use the same image on all nodes",
    ),
    (
        "data that one node lacks",
        {"data": {"source": "images", "path": "/data/photos"}},
        Inspection(two(data_errors={"data.path": "/data/photos does not exist there"})),
        "refused",
        "data.path cannot be read on two (bbbbbb): /data/photos does not exist there; data are not uploaded, apart "
        "from small files in the working folder; put them on storage that the whole cluster reaches (s3://…, gs://…, a "
        "shared file system)",
    ),
    (
        "a model that cannot be built",
        {},
        Inspection([node()], model_error='job.yaml:3: model.name: "my.Net" cannot be imported'),
        "refused",
        'job.yaml:3: model.name: "my.Net" cannot be imported; the job would fail as soon as its workers start; fix '
        "the job, or install what it needs on the cluster",
    ),
    (
        "a node that does not answer",
        {},
        Inspection([node()], unresponsive=["two (bbbbbb)"]),
        "warning",
        "two (bbbbbb) did not answer; workers placed there would not start; check that node, or remove it from the "
        "cluster",
    ),
]


@pytest.mark.parametrize(("job", "seen", "level", "sentence"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_each_finding_says_what_why_and_what_to_do(
    job: dict[str, Any], seen: Inspection, level: str, sentence: str
) -> None:
    found = check(job, seen)
    assert [(each.level, str(each)) for each in found] == [(level, f"{level}: {sentence}")]


def test_other_versions_on_this_machine_are_a_warning_and_patch_releases_are_not() -> None:
    (found,) = check({}, Inspection([node()]), {**VERSIONS, "python": "3.13.1"})
    assert found.level == "warning"
    assert found.what == "Python is 3.13.1 here but 3.11.9 on the cluster"
    assert check({}, Inspection([node()]), {**VERSIONS, "python": "3.11.2", "torch": "2.11.1+cu130"}) == ()
    (found,) = check({}, Inspection([node()]), {**VERSIONS, "ray": "2.60.1"})
    assert "Ray is 2.60.1 here but 2.60.0 on the cluster" in found.what


def test_a_cluster_that_can_grow_may_be_too_small_at_first() -> None:
    assert check({"workers": {"count": 4, "gpus": 1}}, Inspection([node(gpus=0)], limits={"CPU": 64, "GPU": 8})) == ()


def test_a_job_for_an_autoscaled_cluster_without_workers_waits_for_them() -> None:
    (found,) = check({"workers": 2}, Inspection([node(cpus=0)], limits={"CPU": math.inf, "GPU": math.inf}))
    assert found.level == "warning"
    assert str(found).startswith(
        "warning: the cluster has room for 0 of 2 workers now; it grows by itself, and the job"
    )
    (found,) = check({"workers": 2}, Inspection([node(cpus=0)]))
    assert found.level == "refused", "a cluster that does not grow"


def test_what_would_fail_comes_first() -> None:
    seen = Inspection([node(cpus=2)], unresponsive=["three"], model_error="no such module")
    assert [each.level for each in check({"workers": {"count": 2, "cpus": 1}}, seen)] == [
        "refused", "warning", "warning",
    ]  # fmt: skip
