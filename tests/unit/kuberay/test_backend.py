"""The commands treat jobs on Kubernetes like jobs on a Ray cluster."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kuberay.kubernetes_api import Cluster, Server

from lehr.cli.logs import logs
from lehr.cli.manifest import manifest
from lehr.cli.resume import resume
from lehr.cli.status import status as show_status
from lehr.cli.stop import stop
from lehr.cli.submit import submit
from lehr.errors import ClusterError, JobError, LehrError
from lehr.job import load
from lehr.kuberay.backend import Kubernetes, notes, of_job
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


def test_a_job_whose_run_folder_only_pods_reach_is_stopped_and_stays_listed(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pods_only = tmp_path / "pods-only.yaml"
    pods_only.write_text("image: lehr:1\nnamespace: team\nstorage: /only-pods/runs\nvolumes: {runs: /only-pods}\n")
    there = Kubernetes(str(pods_only), backend.job)
    sent = there.submit(request_of(backend.job, Path.cwd()))  # type: ignore[arg-type]
    set_status(cluster, sent, "Running", "RUNNING")
    stop("mine", kubernetes=str(pods_only), wait=False)
    assert cluster.objects["rayjobs", "mine"]["spec"]["suspend"] is True
    set_status(cluster, sent, "Suspended", "")
    stop("mine", kubernetes=str(pods_only), wait=True)
    assert capsys.readouterr().out.splitlines()[-1] == "mine is already stopped."
    assert there.get(sent).status == "stopped"
    resume("mine", kubernetes=str(pods_only))
    assert capsys.readouterr().out.startswith("Resumed mine on http")
    assert there.get(sent).status == "pending"
    assert "suspend" not in cluster.objects["rayjobs", "mine"]["spec"]


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


def submitted(cluster: Cluster) -> dict[str, Any]:
    return cluster.objects["rayjobs", "mine"]["spec"]


def head_of(spec: dict[str, Any]) -> dict[str, Any]:
    return spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


OBEYED: dict[str, tuple[Any, Callable[[dict[str, Any]], object], object]] = {
    "fresh": (True, lambda spec: "--fresh-once" in spec["entrypoint"], True),
    "retries": (3, lambda spec: spec["backoffLimit"], 3),  # the profile says 7, and 3 is the default elsewhere
    "stop_wait": (120, lambda spec: head_of(spec)["terminationGracePeriodSeconds"], 120),
    "env": (
        ["MODE=fast"],
        lambda spec: {"name": "MODE", "value": "fast"} in head_of(spec)["containers"][0]["env"],
        True,
    ),
    "include": ([Path("more.txt")], lambda spec: "runtimeEnvYAML" in spec, True),
    "overrides": (
        ["name=mine", "workers=5"],
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"],
        5,
    ),
}
REFUSED = {"pip": Path("r.txt"), "folder": Path(), "check": False, "cluster": "http://head:8265"}
SHOWN = {"follow", "wait", "dry_run"}
"""What only changes what is shown, or that nothing is sent; tests of their own hold them."""
ELSEWHERE = {"job", "kubernetes", "trust"}


def test_every_option_of_submit_is_obeyed_or_refused_on_kubernetes() -> None:
    """A new option needs a line above."""
    assert {*OBEYED, *REFUSED, *SHOWN, *ELSEWHERE} == set(inspect.signature(submit).parameters)


@pytest.mark.parametrize("option", OBEYED)
def test_an_option_of_submit_changes_the_rayjob(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.txt").write_text("x")
    profile = tmp_path / "seven.yaml"
    profile.write_text("image: lehr:1\nnamespace: team\nstorage: /r/runs\nvolumes: {r: /r}\nretries: 7\ngrace: 30s\n")
    given, seen, expected = OBEYED[option]
    submit(str(tmp_path / "mine.yaml"), kubernetes=str(profile), wait=False)
    assert seen(submitted(cluster)) != expected
    cluster.objects.clear()
    submit(str(tmp_path / "mine.yaml"), kubernetes=str(profile), wait=False, **{option: given})
    assert seen(submitted(cluster)) == expected


@pytest.mark.parametrize("option", [*REFUSED, "wait beside follow"])
def test_an_option_that_kubernetes_would_not_heed_is_refused(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, option: str
) -> None:
    given = {"follow": True, "wait": False} if " " in option else {option: REFUSED[option]}
    with pytest.raises(JobError, match=r"--(no-)?[a-z]+: (is not for Kubernetes|has no effect beside)"):
        submit(str(tmp_path / "mine.yaml"), kubernetes=str(tmp_path / "profile.yaml"), **given)
    assert not cluster.objects


@pytest.mark.parametrize("status", ["finished", "running"])
def test_a_changed_job_under_a_known_name_is_not_taken_for_the_same(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = str(tmp_path / "profile.yaml")
    submit(str(tmp_path / "mine.yaml"), kubernetes=profile, wait=False)
    (sent,) = backend.jobs()
    set_status(cluster, sent, *(("Complete", "SUCCEEDED") if status == "finished" else ("Running", "RUNNING")))
    submit(str(tmp_path / "mine.yaml"), kubernetes=profile, wait=False)
    assert ("is finished" if status == "finished" else "this is the same job") in capsys.readouterr().out
    changed = ["name=mine", "optimizer.lr=1"]
    if status == "running":
        with pytest.raises(LehrError, match=r"with other settings \(optimizer\.lr: .* -> 1"):
            submit(str(tmp_path / "mine.yaml"), changed, kubernetes=profile, wait=False)
    else:
        submit(str(tmp_path / "mine.yaml"), changed, kubernetes=profile, wait=False)
        assert "Submitted mine" in capsys.readouterr().out
        assert '"lr":1' in cluster.objects["rayjobs", "mine"]["metadata"]["annotations"]["lehr/job"]
    assert "train" in [each.request.job["kind"] for each in backend.jobs() if each.request]


def test_status_and_logs_say_why_a_job_waits(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = str(tmp_path / "profile.yaml")
    submit(str(tmp_path / "mine.yaml"), kubernetes=profile, wait=False)
    recorded = json.loads((Path(__file__).parents[2] / "golden/kubernetes-waiting.json").read_text())["quota"]
    cluster.objects["rayjobs", "mine"]["status"] = recorded["rayjob"]["status"]
    capsys.readouterr()
    show_status("mine", kubernetes=profile)
    assert "the quota lehr has no room for its pods" in capsys.readouterr().out
    logs("mine", kubernetes=profile)
    assert "mine is pending: the quota lehr has no room for its pods" in capsys.readouterr().err


def test_the_log_is_what_the_job_printed_once_and_without_rays_lines() -> None:
    log = (
        "2030-11-30 19:09:57,133\tSUCC cli.py:66 -- \x1b[32m-----------------\x1b[39m\n"
        "2030-11-30 19:09:57,133\tSUCC cli.py:67 -- \x1b[32mJob 't1-rfl6x' submitted successfully\x1b[39m\n"
        "2030-11-30 19:09:56,960\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
        "Running entrypoint for job t1-rfl6x: lehr on-cluster /etc/lehr/job.yaml\n"
        "epoch 1/2  loss 0.1\nthe sentence why\n"
        "2030-11-30 19:10:06,483\tERR cli.py:75 -- \x1b[31mJob 't1-rfl6x' failed\x1b[39m\n"
        "2030-11-30 19:10:06,483\tINFO cli.py:89 -- Status message: Job entrypoint command failed with code 70\n"
        "epoch 1/2  loss 0.1\nthe sentence why\n"
    )
    assert of_job(log) == "epoch 1/2  loss 0.1\nthe sentence why\n"


def test_a_finished_run_says_how_it_starts_over(
    cluster: Cluster, backend: Kubernetes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = backend.submit(request_of(backend.job, Path.cwd()))  # type: ignore[arg-type]
    set_status(cluster, sent, "Complete", "SUCCEEDED")
    submit(str(tmp_path / "mine.yaml"), kubernetes=str(tmp_path / "profile.yaml"))
    assert "To start over, submit its job file: lehr submit JOB --fresh" in capsys.readouterr().out


def test_a_dry_run_lists_the_modules_and_names_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile.yaml").write_text("image: lehr:1\nstorage: s3://b/r\nenv: {MODE: fast}\nsecret: keys\n")
    (tmp_path / "mine.yaml").write_text("kind: train\nmodel: {name: 'nets:Net'}\n")
    (tmp_path / "nets.py").write_text("def Net(channels, outputs): ...\n")
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
    assert resume_command("mine", backend) == f"lehr resume mine {backend.option}"
    assert command("attach", "mine", backend) == f"lehr attach mine {backend.option}"
    assert backend.option.startswith("--kubernetes ")


def test_a_cluster_without_a_profile_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEHR_PROFILE", raising=False)
    with pytest.raises(ClusterError, match="--kubernetes FILE"):
        Kubernetes(None)
