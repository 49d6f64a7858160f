"""The RayCluster of a job: its pods, under the restricted pod security standard, and how they end.

The fields are those of KubeRay 1.7. Probes, `/dev/shm`, Ray's start command, the token and the addresses are added by
KubeRay, and are not written here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from lehr.kuberay.profile import Nodes, Profile, Toleration

Manifest = dict[str, Any]

DISK = "ephemeral-storage"
LABELS = {"app.kubernetes.io/managed-by": "lehr", "app.kubernetes.io/name": "lehr"}
JOB_FOLDER = "/etc/lehr"
MODULES_FOLDER = "/etc/lehr-modules"
HEAD_START = 5
"""Seconds that a cluster which goes as a whole has for saving, before a worker's pod warns the run on its own."""
USER = 1000  # of the image
PORTS = {
    "gcs-server": 6379,
    "dashboard": 8265,
    "client": 10001,
    "metrics": 8080,
    "as-metrics": 44217,
    "dash-metrics": 44227,
}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}
"""The security context of every container."""


@dataclass(frozen=True)
class WorkerPods:
    """The worker pods of a job: how many, from `least` to `most`, and what each has.

    Attributes:
        workers: training workers in each pod.
        cpus: CPU cores of each training worker; the profile's `data_cpus` are added to their sum.
        gpus: GPUs of each pod.
    """

    least: int
    most: int
    workers: int
    cpus: float
    gpus: int


def cluster_spec(profile: Profile, pods: WorkerPods, config: str, ray_version: str) -> Manifest:
    """The `rayClusterSpec`: a head that does not train, and the pods that do. `config` names the job's ConfigMap."""
    autoscaled = pods.least != pods.most or profile.workers.spot is not None
    head = _pod(
        profile, "ray-head", _resources(profile.head.cpus, profile.head.memory, profile.head.disk), PORTS, _STOP_DRIVER
    )
    _place(head["spec"], profile.head)
    job = {"name": config, "items": [{"key": "job.yaml", "path": "job.yaml"}]}
    head["spec"]["volumes"].append({"name": "job", "configMap": job})
    head["spec"]["containers"][0]["volumeMounts"].append({"name": "job", "mountPath": JOB_FOLDER, "readOnly": True})
    head["spec"]["automountServiceAccountToken"] = autoscaled  # only the autoscaler talks to Kubernetes
    cluster: Manifest = {
        "rayVersion": ray_version,
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head},
        "workerGroupSpecs": _groups(profile, pods),
    }
    if profile.authentication:
        cluster["authOptions"] = {"mode": "token"}
    if autoscaled:
        cluster["enableInTreeAutoscaling"] = True
        cluster["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": profile.idle,
            "securityContext": RESTRICTED,
            "volumeMounts": list(_SCRATCH),
        }
    return cluster


def serving_cluster(profile: Profile, pods: WorkerPods, token: Manifest, ray_version: str | None) -> Manifest:
    """The `rayClusterConfig` of a RayService: like that of a job, with the token and Serve's port, and without hooks:
    a replica has nothing to save."""
    cluster = cluster_spec(profile, pods, "", ray_version or version("ray"))
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        container = spec["containers"][0]
        del container["lifecycle"]
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "job"]
        container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "job"]
        container["env"] = [*container["env"], token]
        container["ports"] = [*container["ports"], {"name": "serve", "containerPort": 8000}]
    return cluster


def _groups(profile: Profile, pods: WorkerPods) -> list[Manifest]:
    """The worker group; with spot nodes two groups, of which Ray's autoscaler fills the spot group first.

    Where no spot node becomes available in time, the autoscaler turns to the other group. Both groups start empty: the
    cluster would never be ready if a group waited for nodes that never come.
    """
    offered = profile.workers
    resources = _resources(pods.workers * pods.cpus + offered.data_cpus, offered.memory, offered.disk)
    nodes: list[Nodes] = [offered]
    if pods.gpus and offered.gpu:
        resources = {kind: {**amounts, offered.gpu.resource: pods.gpus} for kind, amounts in resources.items()}
        taint = Toleration(key=offered.gpu.resource)
        nodes += [offered.gpu, Nodes(tolerate=[taint])]

    def group(name: str, least: int, nodes: list[Nodes]) -> Manifest:
        hook = finish_work(profile.grace)
        template = _pod(profile, "ray-worker", resources, {"metrics": PORTS["metrics"]}, hook)
        _place(template["spec"], *nodes)
        replicas = {"replicas": least, "minReplicas": least, "maxReplicas": pods.most}
        return {"groupName": name, **replicas, "rayStartParams": {}, "template": template}

    name = "gpu" if pods.gpus else "cpu"
    if offered.spot is None:
        return [group(name, pods.least, nodes)]
    return [{**group("spot", 0, [*nodes, offered.spot]), "priority": 10}, group(name, 0, nodes)]


# Kubernetes runs these before it ends a pod, and kills the pod when its grace period is over. The driver saves a
# checkpoint at SIGTERM; the workers' pods, which are ended at the same time, stay until it is saved. (Neither pattern
# matches the command that contains it.)
_STOP_DRIVER = "pkill -TERM -f /[b]in/lehr; while pgrep -f /[b]in/lehr >/dev/null; do sleep 1; done"


def finish_work(grace: int) -> str:
    """The hook of a worker's pod: returns when nothing works there any more.

    If the whole cluster goes, the driver has the run saved, which takes a moment. If only this pod goes (an eviction, a
    spot node), nobody else would tell the run: after `HEAD_START` seconds Ray is told that the node is about to be
    taken away, and the workers save and leave. Idle processes and Ray's agents, which live as long as the pod, do not
    count.
    """
    working = "pgrep -af '^ray::' | grep -Evq ' ray::(IDLE|DashboardAgent|RuntimeEnvAgent)'"
    return (
        f"working() {{ {working}; }}; for _ in {{1..{HEAD_START}}}; do working || exit 0; sleep 1; done; "
        f"timeout 20 python -m lehr.ray_cluster.draining {grace}; while working; do sleep 1; done"
    )


_SCRATCH = ({"name": "tmp", "mountPath": "/tmp"}, {"name": "ray-logs", "mountPath": "/tmp/ray"})


def _pod(profile: Profile, name: str, resources: Manifest, ports: dict[str, int], pre_stop: str) -> Manifest:
    """A pod of the cluster, under the restricted pod security standard."""
    variables = {**profile.env, "RAY_JOB_STOP_WAIT_TIME_S": str(profile.grace)}
    container: Manifest = {
        "name": name,
        "image": profile.image,
        "resources": resources,
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "env": [{"name": key, "value": value} for key, value in sorted(variables.items())],
        "lifecycle": {"preStop": {"exec": {"command": ["bash", "-c", pre_stop]}}},
        "securityContext": RESTRICTED,
        "volumeMounts": list(_SCRATCH),
    }
    limit = {"sizeLimit": resources["limits"][DISK]}  # of each; together they may not take more than that either
    volumes: list[Manifest] = [{"name": each["name"], "emptyDir": dict(limit)} for each in _SCRATCH]
    if profile.secret:
        container["envFrom"] = [{"secretRef": {"name": profile.secret}}]
    for number, (claim, mount) in enumerate(profile.volumes.items()):
        volumes.append({"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}})
        container["volumeMounts"].append({"name": f"volume-{number}", "mountPath": mount})
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": profile.grace,
        "automountServiceAccountToken": False,
        # Process 1 is then Kubernetes' own, which reaps what lost its parent: Ray waits two minutes for a driver that
        # has ended and that nobody reaped.
        "shareProcessNamespace": True,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if profile.service_account:
        spec["serviceAccountName"] = profile.service_account
    if profile.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in profile.pull_secrets]
    annotations = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}  # never moved to free a node
    return {"metadata": {"labels": dict(LABELS), "annotations": annotations}, "spec": spec}


def submitter(profile: Profile, config: str = "", modules: Mapping[str, str] | None = None) -> Manifest:
    """The pod that submits the job to Ray and follows its log. KubeRay adds its command.

    Args:
        config: the ConfigMap that holds the user's own modules.
        modules: by key of that ConfigMap, the file's path in `MODULES_FOLDER`, from where the pod uploads it to Ray.
    """
    pod = _pod(profile, "ray-job-submitter", _resources(0.5, "512Mi", "1Gi"), {}, "true")
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    for unneeded in ("lifecycle", "env", "envFrom", "ports"):
        container.pop(unneeded, None)
    container["volumeMounts"], spec["volumes"] = container["volumeMounts"][:1], spec["volumes"][:1]
    spec.pop("serviceAccountName", None)
    del spec["terminationGracePeriodSeconds"], spec["shareProcessNamespace"]
    if modules:
        items = [{"key": key, "path": path} for key, path in modules.items()]
        spec["volumes"].append({"name": "modules", "configMap": {"name": config, "items": items}})
        mount = {"name": "modules", "mountPath": MODULES_FOLDER, "readOnly": True}
        container["volumeMounts"] = [*container["volumeMounts"], mount]
    _place(spec, profile.head)
    return pod


def _place(spec: Manifest, *nodes: Nodes) -> None:
    """Restricts a pod to nodes that fit all of `nodes`."""
    select = {key: value for each in nodes for key, value in each.select.items()}
    taints = list(dict.fromkeys(taint for each in nodes for taint in each.tolerate))
    if select:
        spec["nodeSelector"] = select
    if taints:
        spec["tolerations"] = [_toleration(taint) for taint in taints]


def _toleration(taint: Toleration) -> Manifest:
    match = {"operator": "Exists"} if taint.value is None else {"operator": "Equal", "value": taint.value}
    return {"key": taint.key, **match, "effect": taint.effect}


def _resources(cpus: float, memory: str, disk: str) -> Manifest:
    """Equal requests and limits: nothing is promised that others may take, and Ray counts what the pod really has."""
    amounts = {"cpu": int(cpus) if cpus == int(cpus) else f"{math.ceil(cpus * 1000)}m", "memory": memory, DISK: disk}
    return {"requests": amounts, "limits": dict(amounts)}
