"""A run becomes a RayService: reachable, with a token from a Secret, and as many replicas as asked for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.kuberay.schemas import check_pods, pod_templates

from lehr.cli.manifest import manifest
from lehr.errors import JobError
from lehr.kuberay import Profile
from lehr.kuberay.service import APPLICATION, service


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({"image": "lehr:1", "storage": "s3://bucket/runs", **fields})


def test_a_run_becomes_a_server_with_its_token_from_a_secret() -> None:
    (found,) = service("digits", profile(), replicas=3, secret="lehr-serve")
    config = yaml.safe_load(found["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert application["args"] == {"run": "s3://bucket/runs/digits", "replicas": 3, "gpus": 0.0, "cpus": 2.0}
    assert config["http_options"] == {"host": "0.0.0.0", "port": 8000}
    cluster = found["spec"]["rayClusterConfig"]
    assert cluster["workerGroupSpecs"][0]["replicas"] == 3
    for template in pod_templates(found):
        container = template["spec"]["containers"][0]
        token = [each for each in container["env"] if each["name"] == "LEHR_SERVE_TOKEN"]
        assert token == [
            {"name": "LEHR_SERVE_TOKEN", "valueFrom": {"secretKeyRef": {"name": "lehr-serve", "key": "token"}}}
        ]
        assert {"name": "serve", "containerPort": 8000} in container["ports"]
        assert "lifecycle" not in container
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    check_pods(found)


def test_replicas_get_the_gpus_of_the_profile() -> None:
    (found,) = service("s3://b/runs/x", profile(workers={"gpus": 1, "gpu": {}}), replicas=2, secret="t")
    (application,) = yaml.safe_load(found["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["gpus"] == 1.0
    group = found["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_what_it_runs_exists() -> None:
    pytest.importorskip("fastapi")
    from lehr.serving import ray_serve

    module, _, name = APPLICATION.partition(":")
    assert module == ray_serve.__name__
    assert list(inspect.signature(getattr(ray_serve, name)).parameters) == ["args"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"token_secret": None}, "a server needs a token: kubectl create secret generic lehr-serve"),
        ({"job": "/home/me/runs/digits"}, "is not within reach of the cluster's pods"),
        ({"upload": True}, "--upload: has no effect beside --serve"),
        ({"serve": False, "replicas": 2}, "--replicas: is for --serve alone"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    (tmp_path / "p.yaml").write_text("image: lehr:1\nstorage: s3://bucket/runs\n")
    given = {"job": "digits", "serve": True, "token_secret": "t", "profile": str(tmp_path / "p.yaml"), **options}
    with pytest.raises(JobError) as refused:
        manifest(**given)
    assert sentence in str(refused.value)
