"""A job that cannot start says why within seconds, in one sentence, and does not wait for ever."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.kubernetes.conftest import Node, until

pytestmark = pytest.mark.kubernetes

WORKERS = {"count": 1, "cpus": 1, "data_cpus": 0, "memory": "1Gi", "disk": "1Gi"}
SMALL = {"head": {"cpus": 1, "memory": "1Gi", "disk": "1Gi"}, "workers": WORKERS}
CASES = [
    ("image", {}, "the image lehr:0.1.0 cannot be pulled"),
    ("quota", {"workers": {**WORKERS, "memory": "300Gi"}}, "the quota lehr has no room for its pods"),
    (
        "account",
        {"service_account": "nosuch"},
        "its pods are refused: error looking up service account lehr/nosuch: serv",
    ),
    (
        "claim",
        {"volumes": {"missing": "/shared"}},
        "the claim missing does not exist, which volumes of the profile name",
    ),
    ("room", {"head": {**SMALL["head"], "cpus": 30}, "namespace": "roomy"}, "no node has room for the head"),
]


@pytest.mark.parametrize(("name", "changes", "sentence"), CASES, ids=[case[0] for case in CASES])
def test_status_says_why(node: Node, profile: Any, name: str, changes: dict[str, Any], sentence: str) -> None:
    where = ("--kubernetes", profile(**{**SMALL, **changes}))
    space = changes.get("namespace", "lehr")
    if space != "lehr":
        node.run("kubectl", "create", "namespace", space)
        claim = node.get("-n", "lehr", "pvc", "lehr-runs")
        claim.update(metadata={"name": "lehr-runs"}, status=None)
        claim["spec"].pop("volumeName", None)
        node.run("kubectl", "-n", space, "create", "-f", "-", stdin=json.dumps(claim))
    began = time.monotonic()
    submitted = node.lehr("submit", "jobs/train.yaml", f"name=bad-{name}", "workers=1", *where)
    assert submitted.returncode == 0, submitted.stderr
    told = until(60, lambda: sentence in (node.lehr("status", f"bad-{name}", *where).stdout))
    assert told, node.lehr("status", f"bad-{name}", *where).stdout
    print(f"{name}: told after {time.monotonic() - began:.0f} s")
    logs = node.lehr("logs", f"bad-{name}", *where)
    assert sentence in logs.stderr
    node.kubectl("-n", space, "delete", "rayjob", f"bad-{name}", "--wait=false")


def test_a_job_that_cannot_start_ends_with_the_reason(node: Node, profile: Any) -> None:
    where = ("--kubernetes", profile(**{**SMALL, "workers": {**WORKERS, "memory": "300Gi"}}, start="5s", retries=0))
    assert node.lehr("submit", "jobs/train.yaml", "name=late", "workers=1", *where).returncode == 0
    failed = until(60, lambda: "late  failed" in node.lehr("status", "late", *where).stdout)
    said = node.lehr("status", "late", *where).stdout
    assert failed, said
    assert "it could not start within 5 s, the profile's `start`" in said
    assert "the quota lehr has no room for its pods" in said, "and why"
    node.kubectl("-n", "lehr", "delete", "rayjob", "late", "--wait=false")
