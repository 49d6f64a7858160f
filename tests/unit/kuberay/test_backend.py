"""The commands for jobs do on Kubernetes what they do on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.kuberay.kubernetes_api import Cluster, Server

from lehr.cli.options import going_on
from lehr.cli.stop import stop
from lehr.job import load
from lehr.kuberay.backend import Kubernetes
from lehr.kuberay.client import ClusterError
from lehr.submission.backend import Backend, Submission, newest
from lehr.submission.submit import decide, request_of


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


def says(cluster: Cluster, submission: Submission, deployment: str, of_the_job: str) -> None:
    rayjob = cluster.objects["rayjobs", submission.id]
    rayjob["status"] = {"jobDeploymentStatus": deployment, "jobStatus": of_the_job}


def test_a_job_is_sent_once_joined_and_sent_again_when_it_failed(cluster: Cluster, backend: Kubernetes) -> None:
    request = request_of(backend.job, Path.cwd())  # type: ignore[arg-type]
    known: Backend = backend
    assert decide(request, newest(known, "mine"), known.address) == "send"
    sent = known.submit(request)
    assert (sent.run, sent.status) == ("mine", "pending")
    assert sent.request is not None
    assert sent.request.job["storage"] == "s3://bucket/runs", "where the cluster's profile puts run folders"
    assert decide(request, newest(known, "mine"), known.address) == "attach"
    assert known.submit(request).id == sent.id
    assert len(known.jobs()) == 1
    assert known.logs(sent) == ""

    says(cluster, sent, "Failed", "FAILED")
    assert known.get(sent).status == "failed"
    assert decide(request, newest(known, "mine"), known.address) == "send"
    says(cluster, sent, "Complete", "SUCCEEDED")
    assert decide(request, newest(known, "mine"), known.address) == "finished"


def test_a_job_whose_run_folder_only_pods_reach_is_stopped_by_deleting_it(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods_only = tmp_path / "pods-only.yaml"
    pods_only.write_text("image: lehr:1\nnamespace: team\nstorage: /only-pods/runs\nvolumes: {runs: /only-pods}\n")
    there = Kubernetes(str(pods_only), backend.job)
    sent = there.submit(request_of(backend.job, Path.cwd()))  # type: ignore[arg-type]
    says(cluster, sent, "Running", "RUNNING")
    stop("mine", kubernetes=str(pods_only), wait=True)
    assert capsys.readouterr().out == f"mine has ended. Go on with: lehr submit JOB --kubernetes {pods_only}\n"
    assert there.get(sent).status == "stopped"
    assert not [key for key in cluster.objects if key[0] == "rayjobs"]


def test_what_goes_on_with_a_job_is_a_command_that_takes_its_cluster() -> None:
    assert going_on("mine", None) == "lehr resume mine"
    assert going_on("mine", "team.yaml") == "lehr submit JOB --kubernetes team.yaml"


def test_a_cluster_without_a_profile_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEHR_PROFILE", raising=False)
    with pytest.raises(ClusterError, match="--kubernetes FILE"):
        Kubernetes(None)
