"""A real API server with KubeRay's definitions strictly accepts what lehr creates; rights are as the guide says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lehr.kuberay import load_profile, manifest, to_yaml
from lehr.kuberay.service import service
from tests.kubernetes.conftest import Node
from tests.unit.kuberay.test_manifest import PROFILES, TEMPLATES, template_job

pytestmark = pytest.mark.kubernetes


def test_every_template_is_accepted_on_every_kind_of_cluster(node: Node) -> None:
    for file in PROFILES:
        where = load_profile(file)
        objects = [each for path in TEMPLATES for each in manifest(template_job(path, where), where)]
        text = to_yaml(objects)
        made = node.kubectl("create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-", stdin=text)
        assert len(made.split()) == len(objects), file.name


def test_a_field_that_the_operator_does_not_know_is_refused_and_not_ignored(node: Node) -> None:
    _, rayjob = manifest(template_job(TEMPLATES[0], load_profile(PROFILES[0])), load_profile(PROFILES[0]))
    rayjob["spec"]["preRunningDeadline"] = 3
    done = node.run("kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(rayjob))
    assert 'unknown field "spec.preRunningDeadline"' in done.stderr


@pytest.mark.parametrize("file", PROFILES, ids=lambda path: path.stem)
def test_a_model_server_is_accepted(node: Node, file: Path) -> None:
    text = to_yaml(service(f"{load_profile(file).storage}/digits", load_profile(file), replicas=3, secret="tokens"))
    words = ("create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-")
    assert node.kubectl(*words, stdin=text).strip() == "rayservice.ray.io/digits"


def test_the_overlays_are_accepted_and_applied_again_change_nothing(node: Node) -> None:
    """What the autoscaler has scaled stays so, with the selector that the guide names."""
    node.kubectl("apply", "--validate=strict", "-k", "cluster/kuberay/overlays/local")
    scaled = [{"op": "replace", "path": "/spec/workerGroupSpecs/0/replicas", "value": 1}]
    node.kubectl("-n", "lehr", "patch", "raycluster", "team", "--type=json", "-p", json.dumps(scaled))
    node.kubectl("apply", "-k", "cluster/kuberay/overlays/local", "-l", "lehr/shared-cluster!=team")
    groups = node.get("-n", "lehr", "raycluster", "team")["spec"]["workerGroupSpecs"]
    assert groups[0]["replicas"] == 1
    node.kubectl("-n", "lehr", "delete", "raycluster", "team")


def test_a_member_of_the_team_may_do_what_lehr_does_and_nobody_else(node: Node, profile: Any) -> None:
    where = profile()
    accepted = node.lehr("check", "jobs/train.yaml", "--kubernetes", where, user="alice")
    assert accepted.returncode == 0, accepted.stderr
    assert "the cluster accepts the job" in accepted.stdout
    for words in (("check", "jobs/train.yaml"), ("submit", "jobs/train.yaml"), ("jobs",)):
        refused = node.lehr(*words, "--kubernetes", where, user="mallory")
        assert refused.returncode == 1
        assert "in the namespace lehr; ask for the role lehr-user there" in refused.stderr
    for what in ("secrets", "pods/exec", "configmaps"):
        allowed = node.run("kubectl", "-n", "lehr", "auth", "can-i", "create", what, user="alice").stdout.strip()
        assert allowed == ("yes" if what == "configmaps" else "no")


def test_a_namespace_that_does_not_exist_is_told_by_every_command(node: Node, profile: Any) -> None:
    where = profile(namespace="nosuch")
    for words in (("jobs",), ("submit", "jobs/train.yaml"), ("check", "jobs/train.yaml"), ("status", "train")):
        done = node.lehr(*words, "--kubernetes", where)
        assert done.returncode == 1
        assert "there is no namespace nosuch, which the profile names" in done.stderr, words


def test_the_verbs_mean_what_the_guide_says(node: Node, profile: Any, tmp_path: Path) -> None:
    """Submit, again, changed, over, stop and resume, by a member of the team; no pod of it ever starts."""
    where = ("--kubernetes", profile())

    def lehr(*words: str) -> str:
        done = node.lehr(*words, *where, user="alice")
        return done.stdout + done.stderr

    def rayjob() -> Any:
        return node.get("-n", "lehr", "rayjob", "verbs")

    assert "Submitted verbs" in lehr("submit", "jobs/train.yaml", "name=verbs")
    first = rayjob()["metadata"]["uid"]
    assert "with other settings (optimizer.lr" in lehr("submit", "jobs/train.yaml", "name=verbs", "optimizer.lr=1")
    assert "cannot start over" in lehr("submit", "jobs/train.yaml", "name=verbs", "--fresh")
    assert ["verbs", "pending", "train"] in [line.split()[:3] for line in lehr("jobs").splitlines()]
    assert "verbs has stopped. Resume with: lehr resume verbs" in lehr("stop", "verbs")
    assert "stopped on" in lehr("status", "verbs")
    assert "Resumed verbs" in lehr("resume", "verbs")
    assert rayjob()["metadata"]["uid"] != first
    assert "suspend" not in rayjob()["spec"] or not rayjob()["spec"]["suspend"]
    lehr("stop", "verbs")
    assert "Submitted verbs" in lehr("submit", "jobs/train.yaml", "name=verbs", "--fresh", "--retries", "2")
    assert "--fresh-once" in rayjob()["spec"]["entrypoint"]
    assert rayjob()["spec"]["backoffLimit"] == 2
    job = yaml.safe_load(node.get("-n", "lehr", "configmap", "verbs")["data"]["job.yaml"])
    assert job["name"] == "verbs"
    node.kubectl("-n", "lehr", "delete", "rayjob", "verbs")
