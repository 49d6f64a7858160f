"""Every overlay of cluster/kuberay builds, fits the schemas, and follows the policies of the team's namespace."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.kuberay.schemas import check_core, check_custom, check_pods, pod_templates

ROOT = Path(__file__).parents[3]
KUBERAY = ROOT / "cluster/kuberay"
OVERLAYS = [KUBERAY / "base", *sorted((KUBERAY / "overlays").iterdir())]
CUSTOM = {"ray.io", "kueue.x-k8s.io", "monitoring.coreos.com"}
CLUSTER_WIDE = {"Namespace", "ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass"}

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)


@cache
def built(overlay: Path) -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("kubectl, which builds kustomizations, is not installed")
    done = subprocess.run([kubectl, "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def group(thing: dict[str, Any]) -> str:
    return thing["apiVersion"].rpartition("/")[0]


def test_kinds_of_kubernetes_itself_are_valid(overlay: Path) -> None:
    own = [thing for thing in built(overlay) if group(thing) not in CUSTOM]
    assert len(own) >= 8
    for thing in own:
        check_core(thing)


def test_pods_inside_other_kinds_are_valid(overlay: Path) -> None:
    assert [template for thing in built(overlay) for template in pod_templates(thing)]
    for thing in built(overlay):
        check_pods(thing)


def test_custom_kinds_fit_their_definitions(overlay: Path) -> None:
    checked = [check_custom(thing) for thing in built(overlay) if group(thing) in CUSTOM]
    if not any(checked):
        pytest.skip("the definitions of these kinds are not available; set LEHR_KUBERAY_CRDS to their folder")


def test_pods_follow_the_restricted_standard(overlay: Path) -> None:
    for template in (template for thing in built(overlay) for template in pod_templates(thing)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            locked = container["securityContext"]
            assert locked["allowPrivilegeEscalation"] is False
            assert locked["readOnlyRootFilesystem"] is True
            assert locked["capabilities"] == {"drop": ["ALL"]}
            assert re.search(r":[\w.-]+$|@sha256:", container["image"])
            assert not container["image"].endswith(":latest")
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert resources["limits"]["ephemeral-storage"]
        assert all(volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"] if "emptyDir" in volume)


def test_no_file_holds_a_secret(overlay: Path) -> None:
    assert not [thing for thing in built(overlay) if thing["kind"] == "Secret"]
    assert not re.search(r"(?i)(password|secret_?access_?key|token):\s*\S{8}", yaml.safe_dump_all(built(overlay)))


def test_everything_is_in_the_teams_namespace_or_cluster_wide(overlay: Path) -> None:
    for thing in built(overlay):
        expected = None if thing["kind"] in CLUSTER_WIDE else "lehr"
        assert thing["metadata"].get("namespace") == expected, thing["kind"]


def test_roles_allow_nothing_by_wildcard(overlay: Path) -> None:
    roles = [thing for thing in built(overlay) if thing["kind"] in ("Role", "ClusterRole")]
    assert [role["kind"] for role in roles] == ["Role"]
    for rule in roles[0]["rules"]:
        assert not {"*", "secrets", "pods/exec"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}


def test_dashboard_and_client_ports_are_open_only_to_labelled_pods_and_namespaces(overlay: Path) -> None:
    policies = {
        thing["metadata"]["name"]: thing["spec"] for thing in built(overlay) if thing["kind"] == "NetworkPolicy"
    }
    assert policies["ray-ingress"]["podSelector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    for rule in policies["ray-ingress"]["ingress"]:
        assert rule["from"]  # a rule without it is open to everyone
        for place in rule["from"]:
            labels = {**place.get("podSelector", {}), **place.get("namespaceSelector", {})}["matchLabels"]
            assert labels
    open_to_all = [rule for rule in policies["ray-egress"]["egress"] if "to" not in rule]
    ports = {(port["port"], port.get("protocol", "TCP")) for rule in open_to_all for port in rule["ports"]}
    assert ports == {(53, "UDP"), (53, "TCP"), (443, "TCP"), (6443, "TCP")}


def test_the_shared_cluster_is_set_up_as_kuberay_requires(overlay: Path) -> None:
    (cluster,) = [thing["spec"] for thing in built(overlay) if thing["kind"] == "RayCluster"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert all(group["minReplicas"] == 0 for group in cluster["workerGroupSpecs"])
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        assert spec["restartPolicy"] == "Never"
        assert spec["serviceAccountName"] == "lehr"  # which opens the storage, for drivers on the head too
        limits = spec["containers"][0]["resources"]["limits"]
        taints = {toleration["key"] for toleration in spec.get("tolerations", [])}
        assert ("nvidia.com/gpu" in limits) == ("nvidia.com/gpu" in taints)


def test_the_alerts_are_those_of_plain_prometheus(overlay: Path) -> None:
    rules = [thing["spec"] for thing in built(overlay) if thing["kind"] == "PrometheusRule"]
    plain = ROOT / "cluster/monitoring/prometheus/lehr.rules.yml"
    if not rules or not plain.exists():
        pytest.skip("no alerts in this overlay" if plain.exists() else "the alerts of plain Prometheus are missing")
    assert rules == [yaml.safe_load(plain.read_text())]
