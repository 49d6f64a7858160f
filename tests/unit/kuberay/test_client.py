"""Jobs are submitted, watched and stopped through the Kubernetes API, and each refusal is one sentence."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.kuberay.kubernetes_api import Cluster, Server, status

from lehr.errors import ClusterError, JobError
from lehr.job import from_dict, load
from lehr.kuberay import Profile, manifest, prepare
from lehr.kuberay.client import AlreadySubmitted, KubeRay
from lehr.kuberay.jobs import ClusterJob
from lehr.runs import Folder, RunFolder

PROFILE = Profile(image="lehr:1", namespace="team", storage="s3://bucket/runs")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def kuberay(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeRay]:
    server = Server(cluster)
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield KubeRay("team")
    server.close()


def objects(name: str = "Digits_1", **profile: Any) -> list[dict[str, Any]]:
    return manifest(from_dict({"kind": "train", "name": name}), PROFILE.model_copy(update=profile))


def set_status(cluster: Cluster, job: ClusterJob, **fields: Any) -> None:
    """From now on the cluster reports this of a job."""
    cluster.version += 1
    rayjob = cluster.objects["rayjobs", job.name]
    rayjob["status"] = {**rayjob.get("status", {}), **fields}
    rayjob["metadata"]["resourceVersion"] = str(cluster.version)


def pod(name: str, job: str, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"job-name": job}},
        "spec": {"containers": []},
        "status": {"phase": phase},
    }


def test_a_submitted_job_owns_its_configuration(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects())
    assert (job.run, job.storage, job.status, job.message) == ("Digits_1", "s3://bucket/runs", "pending", "starting")
    rayjob, config = cluster.objects["rayjobs", job.name], cluster.objects["configmaps", job.name]
    owner = config["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("RayJob", job.name, rayjob["metadata"]["uid"])
    assert kuberay.jobs() == [job]
    assert kuberay.status("Digits_1") == kuberay.status(job.name) == job


@pytest.mark.parametrize(
    ("deployment", "job_status", "expected"),
    [
        ("Initializing", "", "pending"),
        ("Running", "PENDING", "pending"),
        ("Running", "RUNNING", "running"),
        ("Retrying", "FAILED", "pending"),
        ("Suspended", "", "pending"),
        ("Complete", "SUCCEEDED", "finished"),
        ("Complete", "STOPPED", "stopped"),
        ("Failed", "FAILED", "failed"),
        ("ValidationFailed", "", "failed"),
    ],
)
def test_each_status_of_kuberay_becomes_one_of_lehr(
    cluster: Cluster, kuberay: KubeRay, deployment: str, job_status: str, expected: str
) -> None:
    job = kuberay.submit(objects())
    set_status(cluster, job, jobDeploymentStatus=deployment, jobStatus=job_status)
    assert kuberay.status("Digits_1").status == expected


def test_a_job_in_a_queue_says_what_it_waits_for(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects(queue="gpus"))
    set_status(cluster, job, jobDeploymentStatus="Suspended")
    assert kuberay.status(job.run).message == "waiting in the queue gpus"


def test_a_job_that_runs_is_not_submitted_twice(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects())
    set_status(cluster, job, jobDeploymentStatus="Running", jobStatus="RUNNING")
    with pytest.raises(
        AlreadySubmitted, match="Digits_1 is already on the cluster and running; attach to it, or stop it"
    ):
        kuberay.submit(objects())
    assert len(kuberay.jobs()) == 1


def test_a_job_that_ended_is_replaced_by_the_next_attempt(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects())
    set_status(cluster, job, jobDeploymentStatus="Failed", jobStatus="FAILED", message="out of luck")
    assert kuberay.status(job.run).message == "out of luck"
    again = kuberay.submit(objects())
    assert again.status == "pending"
    owner = cluster.objects["configmaps", job.name]["metadata"]["ownerReferences"][0]
    assert owner["uid"] == cluster.objects["rayjobs", job.name]["metadata"]["uid"]


def test_a_job_whose_configuration_is_refused_is_deleted(cluster: Cluster, kuberay: KubeRay) -> None:
    cluster.refuse = lambda method, path: 403 if "configmaps" in path else None
    with pytest.raises(ClusterError, match="you may not create configmaps in the namespace team"):
        kuberay.submit(objects())
    assert not cluster.objects


def test_a_watch_reports_each_change_once_and_ends_with_the_job(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects())
    stored = cluster.objects["rayjobs", job.name]

    def event(deployment: str, job_status: str, kind: str = "MODIFIED") -> dict[str, Any]:
        return {
            "type": kind,
            "object": {**stored, "status": {"jobDeploymentStatus": deployment, "jobStatus": job_status}},
        }

    cluster.watches = [
        [event("Running", "RUNNING"), event("Running", "RUNNING")],  # the server ends a watch when it likes
        [event("Running", "RUNNING"), event("Complete", "SUCCEEDED")],
    ]
    seen: list[str] = []
    for now in kuberay.watch("Digits_1"):
        seen.append(now.status)
        if now.status == "running":
            set_status(cluster, job, jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert seen == ["pending", "running", "finished"]


def test_a_watch_that_expired_starts_again(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects())
    gone = {"type": "ERROR", "object": status(410, "too old resource version: 101 (999)")}
    done = {**cluster.objects["rayjobs", job.name], "status": {"jobDeploymentStatus": "Complete"}}
    cluster.watches = [[gone], [gone], [{"type": "MODIFIED", "object": done}]]
    assert [now.status for now in kuberay.watch("Digits_1")] == ["pending", "finished"]


def test_a_watch_that_keeps_expiring_is_an_error(cluster: Cluster, kuberay: KubeRay) -> None:
    kuberay.submit(objects())
    gone = {"type": "ERROR", "object": status(410, "too old resource version: 101 (999)")}
    cluster.watches = [[gone]] * 10
    with pytest.raises(ClusterError, match=r"history is too short to watch digits-1-\w+; look once with: lehr status"):
        list(kuberay.watch("Digits_1"))


def test_a_job_deleted_during_a_watch_is_an_error(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects())
    cluster.watches = [[{"type": "DELETED", "object": cluster.objects["rayjobs", job.name]}]]
    with pytest.raises(ClusterError, match="Digits_1 was deleted from the cluster"):
        list(kuberay.watch("Digits_1"))


def test_the_log_is_that_of_the_newest_attempt(cluster: Cluster, kuberay: KubeRay) -> None:
    job = kuberay.submit(objects())
    with pytest.raises(ClusterError, match="Digits_1 has no log yet: it is pending, starting"):
        list(kuberay.logs("Digits_1"))
    cluster.put("pods", pod("first", job.name, "Failed"))
    cluster.put("pods", pod("second", job.name))
    cluster.put("pods", pod("of-another", "another"))
    cluster.log = "epoch 1/2\nepoch 2/2  loss 0.1 ± 0\n"
    assert "".join(kuberay.logs("Digits_1", follow=True)) == cluster.log
    assert cluster.requests[-1][1].startswith("/api/v1/namespaces/team/pods/second/log?follow=true")


def test_a_stop_asks_the_run_to_save_and_lets_the_job_end(cluster: Cluster, kuberay: KubeRay, tmp_path: Path) -> None:
    storage = str(tmp_path / "runs")
    job = kuberay.submit(
        manifest(
            from_dict({"name": "digits"}),
            PROFILE.model_copy(update={"storage": storage, "volumes": {"a": str(tmp_path)}}),
        )
    )
    run = RunFolder.create(Folder.at(storage).child("digits"), {"kind": "train"})
    kuberay.stop("digits")
    assert run.stop_requested() == "lehr stop"
    assert ("rayjobs", job.name) in cluster.objects


def test_a_stop_where_only_pods_reach_the_run_suspends_the_job_which_is_then_told_as_stopped(
    cluster: Cluster, kuberay: KubeRay, tmp_path: Path
) -> None:
    profile = {"storage": str(tmp_path / "runs"), "volumes": {"a": str(tmp_path)}}
    job = kuberay.submit(objects("digits", **profile))
    kuberay.stop("digits")
    assert cluster.objects["rayjobs", "digits"]["spec"]["suspend"] is True
    set_status(cluster, job, jobDeploymentStatus="Suspended")
    assert (kuberay.status("digits").status, kuberay.why("digits")) == ("stopped", "")
    again = kuberay.again("digits")
    assert again.status == "pending", "it is submitted once more, as it was"
    rayjob = cluster.objects["rayjobs", "digits"]
    assert "suspend" not in rayjob["spec"]
    assert again.job == job.job


def test_a_job_that_a_person_stopped_through_its_run_folder_is_not_finished(
    cluster: Cluster, kuberay: KubeRay, tmp_path: Path
) -> None:
    storage = str(tmp_path / "runs")
    job = kuberay.submit(objects("digits", storage=storage, volumes={"a": str(tmp_path)}))
    RunFolder.create(Folder.at(storage).child("digits"), {"kind": "train"})
    kuberay.stop("digits")
    set_status(cluster, job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert kuberay.status("digits").status == "stopped"


@pytest.mark.parametrize("how", ["in a queue", "with the rights of an earlier version"])
def test_a_job_that_cannot_be_suspended_is_deleted(
    cluster: Cluster, kuberay: KubeRay, tmp_path: Path, how: str
) -> None:
    queue = {"queue": "gpus"} if how == "in a queue" else {}
    if not queue:
        cluster.refuse = lambda method, path: 403 if method == "PATCH" else None
    kuberay.submit(objects("digits", storage=str(tmp_path / "runs"), volumes={"a": str(tmp_path)}, **queue))
    kuberay.stop("digits")
    assert not [key for key in cluster.objects if key[0] == "rayjobs"]
    assert cluster.requests[-1] == (
        "DELETE",
        "/apis/ray.io/v1/namespaces/team/rayjobs/digits?propagationPolicy=Foreground",
    )


def test_a_manifest_says_where_the_jobs_modules_are(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("model: nets:Net\n")
    (tmp_path / "nets.py").write_text("class Net: ...\n")
    (_, rayjob), modules = prepare(load(tmp_path / "digits.yaml"), PROFILE)
    assert modules is not None
    environment = yaml.safe_load(rayjob["spec"]["runtimeEnvYAML"])
    assert environment["working_dir"] == f"s3://bucket/runs/packages/{modules.name}"


def test_modules_travel_in_the_manifest_where_only_pods_reach_the_storage(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("model: nets:Net\n")
    (tmp_path / "nets.py").write_text("class Net: ...\n")
    profile = PROFILE.model_copy(update={"storage": "/shared/runs", "volumes": {"runs": "/shared"}})
    (config, rayjob), modules = prepare(load(tmp_path / "digits.yaml"), profile)
    assert modules is not None
    assert base64.b64decode(config["binaryData"]["module-0"]) == b"class Net: ...\n"
    spec = rayjob["spec"]["submitterPodTemplate"]["spec"]
    (volume,) = [each["configMap"] for each in spec["volumes"] if each["name"] == "modules"]
    assert volume == {"name": "digits", "items": [{"key": "module-0", "path": "lehr-job/nets.py"}]}
    assert yaml.safe_load(rayjob["spec"]["runtimeEnvYAML"])["working_dir"] == "/etc/lehr-modules"
    (tmp_path / "large.py").write_text("#" * 700_000)
    with pytest.raises(JobError, match="take 683 KiB, and its storage /shared/runs is a volume that only pods reach"):
        prepare(load(tmp_path / "digits.yaml"), profile)


def test_a_namespace_that_does_not_exist_is_told(cluster: Cluster, kuberay: KubeRay) -> None:
    assert kuberay.jobs() == []
    cluster.namespaces = ()
    with pytest.raises(ClusterError, match="there is no namespace team, which the profile names; list them with: kub"):
        kuberay.jobs()


def test_a_check_creates_nothing(cluster: Cluster, kuberay: KubeRay) -> None:
    kuberay.check(objects())
    assert not cluster.objects
    assert all("dryRun=All" in path for _, path in cluster.requests)
    cluster.operator = False
    with pytest.raises(ClusterError, match="KubeRay is not installed there"):
        kuberay.check(objects())


REFUSALS = [
    (401, "jobs", "you are not logged in there; log in again"),
    (403, "jobs", "you may not list rayjobs in the namespace team; ask for the role lehr-user there"),
    (403, "submit", "you may not create rayjobs in the namespace team"),
    (403, "delete", "you may not delete rayjobs in the namespace team"),
    (403, "status", "you may not get rayjobs in the namespace team"),
    (
        404,
        "status",
        'there is no digits in the namespace team (rayjobs "digits" not found); list its jobs with: lehr jobs',
    ),
    (404, "delete", "there is no digits in the namespace team"),
    (404, "logs", "there is no digits in the namespace team"),
]


@pytest.mark.parametrize(("code", "what", "sentence"), REFUSALS)
def test_every_refusal_is_one_sentence(cluster: Cluster, kuberay: KubeRay, code: int, what: str, sentence: str) -> None:
    if code != 404:
        cluster.refuse = lambda method, path: code
    with pytest.raises(ClusterError) as refused:
        attempt(kuberay, what)
    assert sentence in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("what", ["jobs", "submit", "status", "delete", "stop", "watch"])
def test_a_missing_operator_is_one_sentence(cluster: Cluster, kuberay: KubeRay, what: str) -> None:
    cluster.operator = False
    with pytest.raises(ClusterError, match=r"KubeRay is not installed there; cluster/kuberay/README\.md shows how"):
        attempt(kuberay, what)


def attempt(kuberay: KubeRay, what: str) -> None:
    actions: dict[str, Any] = {
        "jobs": kuberay.jobs,
        "submit": lambda: kuberay.submit(objects("digits")),
        "status": lambda: kuberay.status("digits"),
        "delete": lambda: kuberay.delete("digits"),
        "stop": lambda: kuberay.stop("digits"),
        "watch": lambda: list(kuberay.watch("digits")),
        "logs": lambda: list(kuberay.logs("digits")),
    }
    actions[what]()


def test_a_cluster_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Cluster())
    server.close()
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    with pytest.raises(ClusterError, match=f"{server.address}: no Kubernetes cluster answers there"):
        KubeRay().jobs()


def test_no_configured_cluster_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(
        ClusterError, match="no Kubernetes cluster is configured here: there is neither a kubeconfig nor"
    ):
        KubeRay()


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)
    with pytest.raises(ClusterError, match=r"install it with: pip install .*\[kubernetes\]'"):
        KubeRay()
