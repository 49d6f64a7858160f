"""Each finding of `lehr check`, from the facts that provoke it, with its sentence."""

from __future__ import annotations

from typing import Any

import pytest

from lehr.job import Job, from_dict, to_dict
from lehr.submission.backend import Request
from lehr.submission.check import Facts, Finding, Node, findings

VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.11.0", "lehr": "0.1.0"}


def node(name: str = "one (aaaaaa)", cpus: float = 8, gpus: float = 0, **fields: Any) -> Node:
    return Node(**{"name": name, "machine": name, "cpus": cpus, "gpus": gpus, "versions": VERSIONS, **fields})


def two(**fields: Any) -> list[Node]:
    return [node(), node("two (bbbbbb)", **fields)]


def look(job: dict[str, Any], facts: Facts, client: dict[str, str] = VERSIONS) -> list[Finding]:
    made: Job = from_dict({"kind": "train", "storage": "s3://bucket/runs", **job})
    return findings(made, Request("mine", to_dict(made), "/home/me", "/home/me", client=client), facts)


def test_on_a_sound_cluster_nothing_is_found() -> None:
    assert look({"workers": 2}, Facts(two())) == []
    assert look({}, Facts([node()])) == []
    assert look({"workers": 2, "storage": "./runs"}, Facts([node()])) == []
    assert look({"workers": {"count": 2, "gpus": 1}}, Facts([node(gpus=1), node("two (b)", gpus=1)])) == []
    assert look({"workers": 2, "storage": "file:///nfs/runs"}, Facts(two(marker=True))) == []


CASES: list[tuple[str, dict[str, Any], Facts, str, str]] = [
    (
        "storage that cannot be written",
        {},
        Facts(two(storage="s3://bucket/runs/x: cannot write: ACCESS_DENIED")),
        "refused",
        "s3://bucket/runs cannot be written from two (bbbbbb): s3://bucket/runs/x: cannot write: ACCESS_DENIED; the "
        "run folder holds everything a run leaves; give the nodes credentials and a way to it, or name another storage",
    ),
    (
        "a local path with several nodes",
        {"storage": "/home/me/runs"},
        Facts(two()),
        "refused",
        "storage is /home/me/runs, a path on each node's own disk, and the cluster has 2 nodes; every node would see "
        "another folder; use s3://… or gs://…, or file:///… for a file system that all nodes share",
    ),
    (
        "a shared folder that is not shared",
        {"storage": "file:///mnt/runs"},
        Facts(two(marker=False)),
        "refused",
        "file:///mnt/runs is another folder on two (bbbbbb) than on the head; workers would not find what others "
        "wrote; mount one file system there on all nodes, or use s3://… or gs://…",
    ),
    (
        "more GPUs than there are",
        {"workers": {"count": 4, "gpus": 1}},
        Facts([node(gpus=2)]),
        "refused",
        "4 workers with 1 GPU each need 4, and the cluster has 2; the job would wait for ever; ask for less with "
        "workers=2",
    ),
    (
        "GPUs where there are none",
        {"workers": {"count": 2, "gpus": 1}},
        Facts(two()),
        "refused",
        "2 workers with 1 GPU each need 2, and the cluster has 0; the job would wait for ever; ask for less with "
        "workers.gpus=0",
    ),
    (
        "more GPUs than the cluster can grow to",
        {"workers": {"count": 8, "gpus": 1}},
        Facts([node(gpus=2)], limits={"CPU": 64, "GPU": 4}),
        "refused",
        "8 workers with 1 GPU each need 8, and the cluster has 2 and can grow to 4; the job would wait for ever; ask "
        "for less with workers=2",
    ),
    (
        "more CPUs than there are",
        {"workers": {"count": 4, "cpus": 4}},
        Facts(two(cpus=4)),
        "refused",
        "4 workers with 4 CPUs each need 16, and the cluster has 12; the job would wait for ever; ask for less with "
        "workers=3 or workers.cpus=3",
    ),
    (
        "workers larger than a node",
        {"workers": {"count": 1, "cpus": 12}},
        Facts(two()),
        "refused",
        "1 worker with 12 CPUs each does not fit onto the nodes: there is room for 0; a worker cannot be spread over "
        "nodes, and the job would wait for ever; ask for less with workers.cpus or workers.gpus, or for fewer workers",
    ),
    (
        "no CPU left for data",
        {"workers": {"count": 2, "cpus": 4}},
        Facts([node()]),
        "warning",
        "the workers take 8 of the cluster's 8 CPUs; none is left for reading data beside them: reading takes turns "
        "with training, and Ray Data in code of your own would wait for ever without a word; leave one: fewer workers, "
        "or workers.cpus lower",
    ),
    (
        "nodes of other versions",
        {},
        Facts(two(versions={**VERSIONS, "torch": "2.9.1", "lehr": "0.2.0"})),
        "refused",
        "Torch is 2.11.0 and 2.9.1, Lehr is 0.1.0 and 0.2.0 on one (aaaaaa) and two (bbbbbb); workers of one run must "
        "compute and talk alike; give all nodes the same image",
    ),
    (
        "no dashboard for a search",
        {"kind": "search", "space": {"optimizer.lr": [0.1, 0.2]}},
        Facts([node()], dashboard=False),
        "refused",
        "the cluster's dashboard does not answer; Ray frees the resources of trials that ASHA ends early only through "
        "it, and the search would hang; start the head with its dashboard",
    ),
    (
        "data that one node lacks",
        {"data": {"source": "images", "path": "/data/photos"}},
        Facts(two(data={"data.path": "/data/photos does not exist there"})),
        "refused",
        "data.path cannot be read on two (bbbbbb): /data/photos does not exist there; data stay where they are, apart "
        "from small files in the working folder; put them on storage that the whole cluster reaches (s3://…, gs://…, a "
        "shared file system)",
    ),
    (
        "a model that cannot be built",
        {},
        Facts([node()], model='job.yaml:3: model.name: "my.Net" cannot be imported'),
        "refused",
        'job.yaml:3: model.name: "my.Net" cannot be imported; the job would fail as soon as its workers start; mend '
        "the job, or install on the cluster what it needs",
    ),
    (
        "a node that is silent",
        {},
        Facts([node()], silent=["two (bbbbbb)"]),
        "warning",
        "two (bbbbbb) did not answer; a worker that is put there would not start; look at that node, or take it out of "
        "the cluster",
    ),
]


@pytest.mark.parametrize(("job", "facts", "level", "sentence"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_each_finding_says_what_why_and_what_to_do(
    job: dict[str, Any], facts: Facts, level: str, sentence: str
) -> None:
    found = look(job, facts)
    assert [(each.level, str(each)) for each in found] == [(level, sentence)]


def test_other_versions_on_this_machine_are_a_warning_and_patch_releases_are_not() -> None:
    (found,) = look({}, Facts([node()]), {**VERSIONS, "python": "3.13.1"})
    assert found.level == "warning"
    assert found.what == "Python is 3.13.1 and 3.11.9 on this machine and the cluster"
    assert look({}, Facts([node()]), {**VERSIONS, "python": "3.11.2", "torch": "2.11.1+cu130"}) == []
    (found,) = look({}, Facts([node()]), {**VERSIONS, "ray": "2.60.1"})
    assert "Ray is 2.60.1 and 2.60.0" in found.what


def test_a_cluster_that_can_grow_may_be_too_small_now() -> None:
    assert look({"workers": {"count": 4, "gpus": 1}}, Facts([node(gpus=0)], limits={"CPU": 64, "GPU": 8})) == []


def test_what_is_refused_comes_first() -> None:
    facts = Facts([node(cpus=2)], silent=["three"], model="no such module")
    assert [each.level for each in look({"workers": {"count": 2, "cpus": 1}}, facts)] == [
        "refused", "warning", "warning",
    ]  # fmt: skip
