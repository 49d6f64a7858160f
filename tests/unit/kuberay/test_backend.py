"""The commands treat jobs on Kubernetes like jobs on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.kuberay.kubernetes_api import Cluster, Server

from lehr.cli.manifest import manifest
from lehr.cli.stop import stop
from lehr.cli.submit import submit
from lehr.errors import ClusterError, JobError
from lehr.job import load
from lehr.kuberay.backend import Kubernetes, notes
from lehr.submission.backend import Backend, Submission, command, newest, resume_command
from lehr.submission.ray_jobs import RayJobs
from lehr.submission.submit import next_action, request_of


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def backend(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    server = Server(cluster)
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    (tmp_path / "profile.yaml").write_text("image: lehr:1\nnamespace: team\nstorage: s3://bucket/runs\n")
    (tmp_path / "mine.yaml").write_text("kind: train\nstorage: ./runs\n")
    yield Kubernetes(str(tmp_path / "profile.yaml"), load(tmp_path / "mine.yaml"))
    server.close()


def set_status(cluster: Cluster, submission: Submission, deployment: str, job: str) -> None:
    rayjob = cluster.objects["rayjobs", submission.id]
    rayjob["status"] = {"jobDeploymentStatus": deployment, "jobStatus": job}


def test_a_running_job_is_attached_to_and_a_failed_one_is_submitted_again(
    cluster: Cluster, backend: Kubernetes
) -> None:
    request = request_of(backend.job, Path.cwd())  # type: ignore[arg-type]
    known: Backend = backend
    assert next_action(request, newest(known, "mine"), known) == "submit"
    sent = known.submit(request)
    assert (sent.run, sent.status) == ("mine", "pending")
    assert sent.request is not None
    assert sent.request.job["storage"] == "s3://bucket/runs", "where the cluster's profile puts run folders"
    assert next_action(request, newest(known, "mine"), known) == "attach"
    assert known.submit(request).id == sent.id
    assert len(known.jobs()) == 1
    assert known.logs(sent) == ""

    set_status(cluster, sent, "Failed", "FAILED")
    assert known.get(sent).status == "failed"
    assert next_action(request, newest(known, "mine"), known) == "submit"
    set_status(cluster, sent, "Complete", "SUCCEEDED")
    assert next_action(request, newest(known, "mine"), known) == "nothing"


def test_a_job_whose_run_folder_only_pods_reach_is_stopped_by_deleting_it(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods_only = tmp_path / "pods-only.yaml"
    pods_only.write_text("image: lehr:1\nnamespace: team\nstorage: /only-pods/runs\nvolumes: {runs: /only-pods}\n")
    there = Kubernetes(str(pods_only), backend.job)
    sent = there.submit(request_of(backend.job, Path.cwd()))  # type: ignore[arg-type]
    set_status(cluster, sent, "Running", "RUNNING")
    stop("mine", kubernetes=str(pods_only), wait=True)
    assert capsys.readouterr().out == f"mine has stopped. Resume with: lehr submit JOB --kubernetes {pods_only}\n"
    assert there.get(sent).status == "stopped"
    assert not [key for key in cluster.objects if key[0] == "rayjobs"]


def test_no_secret_gets_into_a_manifest(cluster: Cluster, backend: Kubernetes) -> None:
    request = request_of(backend.job, Path.cwd())  # type: ignore[arg-type]
    with pytest.raises(JobError, match="--env: HF_TOKEN would be readable in every manifest; put it into a Secret and"):
        backend.submit(replace(request, env={"HF_TOKEN": "canary"}))
    with pytest.raises(JobError, match="--env: RAY_ADDRESS is set by KubeRay"):
        backend.submit(replace(request, env={"RAY_ADDRESS": "x"}))
    assert not cluster.objects
    sent = backend.submit(replace(request, env={"MODE": "fast"}))
    head = cluster.objects["rayjobs", sent.id]["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert {"name": "MODE", "value": "fast"} in head["template"]["spec"]["containers"][0]["env"]


def test_an_image_that_may_change_is_told(backend: Kubernetes) -> None:
    backend.submit(request_of(backend.job, Path.cwd()))  # type: ignore[arg-type]
    (note,) = backend.notes
    assert note.startswith("image: lehr:1 is a tag, which may name another image tomorrow; pin the one")
    pinned = backend.profile.model_copy(update={"image": "lehr@sha256:" + "0" * 64})
    assert notes(pinned, None) == []


def test_an_option_that_kubernetes_would_not_heed_is_refused(tmp_path: Path) -> None:
    job, profile = str(tmp_path / "mine.yaml"), str(tmp_path / "profile.yaml")
    (tmp_path / "mine.yaml").write_text("kind: train\n")
    for options in ({"pip": tmp_path / "r.txt"}, {"folder": tmp_path}, {"fresh": True}):
        with pytest.raises(JobError, match=f"--{next(iter(options))}: is not for Kubernetes; "):
            submit(job, kubernetes=profile, **options)


def test_a_finished_run_says_how_it_starts_over(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = backend.submit(request_of(backend.job, Path.cwd()))  # type: ignore[arg-type]
    set_status(cluster, sent, "Complete", "SUCCEEDED")
    submit(str(tmp_path / "mine.yaml"), kubernetes=str(tmp_path / "profile.yaml"))
    assert "delete the run with lehr rm, and then its RayJob: kubectl delete rayjob mine." in capsys.readouterr().out


def test_a_dry_run_lists_the_modules_and_names_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile.yaml").write_text("image: lehr:1\nstorage: s3://b/r\nenv: {MODE: fast}\nsecret: keys\n")
    (tmp_path / "mine.yaml").write_text("kind: train\nmodel: {name: 'nets:Net'}\n")
    (tmp_path / "nets.py").write_text("x = 1\n")
    (tmp_path / "elsewhere.py").symlink_to("/etc/hostname")
    manifest(str(tmp_path / "mine.yaml"), profile=str(tmp_path / "profile.yaml"), dry_run=True)
    printed = capsys.readouterr().out
    assert "1 KiB  nets.py\n1 file, 1 KiB, from " in printed
    assert "elsewhere.py  leads out of the folder: to /etc/hostname" in printed
    assert "environment variables of the profile: MODE; from a Secret: keys\n" in printed
    assert printed.endswith("Nothing was sent.\n")
    assert "fast" not in printed
    submit(str(tmp_path / "mine.yaml"), kubernetes=str(tmp_path / "profile.yaml"), dry_run=True, env=["A=b"])
    printed = capsys.readouterr().out
    assert "environment variables: A\n" in printed
    assert "environment variables of the profile: MODE; from a Secret: keys\n" in printed


def test_a_command_in_a_message_names_the_cluster(backend: Kubernetes) -> None:
    default, named = RayJobs("http://head:8265"), RayJobs("http://head:8265", option="--cluster http://head:8265")
    assert resume_command("mine", default) == "lehr resume mine"
    assert resume_command("mine", named) == "lehr resume mine --cluster http://head:8265"
    assert resume_command("mine", backend) == f"lehr submit JOB {backend.option}"
    assert command("attach", "mine", backend) == f"lehr attach mine {backend.option}"
    assert backend.option.startswith("--kubernetes ")


def test_a_cluster_without_a_profile_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEHR_PROFILE", raising=False)
    with pytest.raises(ClusterError, match="--kubernetes FILE"):
        Kubernetes(None)
