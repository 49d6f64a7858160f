"""A run behind HTTP on Kubernetes: a RayService, which KubeRay keeps running and replaces without a gap.

A pure function. Probes are KubeRay's own: a pod gets requests once Serve's proxy on it answers.
"""

from __future__ import annotations

import yaml

from lehr.errors import JobError
from lehr.job.text import show
from lehr.kuberay.cluster_spec import LABELS, Manifest, WorkerPods, serving_cluster
from lehr.kuberay.manifest import RUN, kubernetes_name
from lehr.kuberay.profile import Profile

APPLICATION = "lehr.serving.ray_serve:application"
PORT = 8000
TOKEN = "LEHR_SERVE_TOKEN"


def service(
    run: str, profile: Profile, *, replicas: int = 1, secret: str, ray_version: str | None = None
) -> list[Manifest]:
    """The RayService that answers what a run says of images, on port 8000.

    Args:
        run: its address, or its name in the profile's storage.
        replicas: pods that answer, each with the whole model.
        secret: the Secret whose key `token` requests must bring.
        ray_version: Ray's version in the image, by default the one installed here.

    Raises:
        JobError: pods do not reach the run.
    """
    address = run_address(run, profile)
    name = kubernetes_name(address.rpartition("/")[2])
    pods = WorkerPods(replicas, replicas, 1, profile.workers.cpus, int(profile.workers.gpus > 0))
    application = {
        "name": "lehr",
        "route_prefix": "/",
        "import_path": APPLICATION,
        "args": {"run": address, "replicas": replicas, "gpus": float(pods.gpus), "cpus": profile.workers.cpus},
    }
    config = {"http_options": {"host": "0.0.0.0", "port": PORT}, "applications": [application]}
    token = {"name": TOKEN, "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}}
    return [
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayService",
            "metadata": {
                "name": name,
                "namespace": profile.namespace,
                "labels": dict(LABELS),
                "annotations": {RUN: address},
            },
            "spec": {
                "serveConfigV2": yaml.safe_dump(config, sort_keys=False),
                "excludeHeadPodFromServeSvc": True,  # the head has no replica
                "rayClusterConfig": serving_cluster(profile, pods, token, ray_version),
            },
        }
    ]


def run_address(run: str, profile: Profile) -> str:
    """The address of a run that every pod reaches. Raises JobError where there is none."""
    address = run.rstrip("/") if "/" in run else f"{profile.storage}/{run}" if profile.storage else run
    if not profile.reaches(address):
        raise JobError(
            f"{show(run)} is not within reach of the cluster's pods; allowed: an address such as "
            "s3://bucket/runs/NAME, or the name of a run in the profile's storage",
            field="RUN",
        )
    return address
