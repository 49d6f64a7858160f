"""The image works on Kubernetes: containers are started here as a kubelet starts the pods of a manifest.

LEHR_IMAGE names the image (by default the one that `make image` builds), LEHR_DOCKER the command that runs containers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lehr.job import from_dict
from lehr.kuberay import Profile, manifest
from lehr.runs import Folder, Progress, TrainingProgress

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = os.environ.get("LEHR_IMAGE", f"lehr:{VERSION}")
TOKEN = uuid.uuid4().hex * 2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def docker() -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get("LEHR_DOCKER", ""), "podman", "docker"))), None)
    if not found:
        pytest.skip("neither podman nor docker is installed")
    if subprocess.run([found, "image", "inspect", IMAGE], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no image {IMAGE}; build it with: make image")
    return found


@pytest.fixture
def place(docker: str, tmp_path: Path) -> Iterator[Place]:
    place = Place(docker, tmp_path)
    yield place
    place.clean_up()


class Place:
    """Containers on one network, from the pods of a manifest, with the security settings of the pods."""

    def __init__(self, docker: str, folder: Path) -> None:
        self.docker, self.folder = docker, folder
        self.name = f"lehr-{uuid.uuid4().hex[:8]}"
        self.containers: list[str] = []
        self.network = False

    def pod(self, name: str, spec: dict[str, Any], config: dict[str, str], command: str, **env: str) -> None:
        """Starts the first container of a pod, with the command that KubeRay would give it."""
        if not self.network:
            self.run("network", "create", self.name)
            self.network = True
        container, user = spec["containers"][0], spec["securityContext"]
        locked = container["securityContext"]
        options = ["--network", self.name, "--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--shm-size", "1g"]
        options += ["--read-only"] if locked["readOnlyRootFilesystem"] else []
        options += [f"--cap-drop={each}" for each in locked["capabilities"]["drop"]]
        options += [] if locked["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
        variables = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        for key, value in {**variables, **env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}.items():
            options += ["--env", f"{key}={value}"]
        for mount in container["volumeMounts"]:
            volume = next(each for each in spec["volumes"] if each["name"] == mount["name"])
            path = self.folder / f"{name}-{mount['name']}"
            if "persistentVolumeClaim" in volume:
                path = self.folder / volume["persistentVolumeClaim"]["claimName"]
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
            for file, text in config.items() if "configMap" in volume else ():
                (path / file).write_text(text)
            options += ["--volume", f"{path}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}"]
        self.containers.append(f"{self.name}-{name}")
        host = ["--name", self.containers[-1], "--hostname", name, "--network-alias", name]
        self.run("run", "--detach", *host, *options, container["image"], "/bin/bash", "-c", "--", command)

    def run(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run([self.docker, *arguments], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        return self.run("exec", f"{self.name}-{name}", *command, check=check)

    def log(self, name: str) -> str:
        done = subprocess.run([self.docker, "logs", f"{self.name}-{name}"], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def wait(self, name: str, seconds: float) -> int:
        """The exit code of a container, once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = json.loads(self.run("inspect", f"{self.name}-{name}"))[0]["State"]
            if not state["Running"]:
                return int(state["ExitCode"])
            time.sleep(1)
        raise AssertionError(f"{name} is still running: {self.log(name)[-3000:]}")

    def clean_up(self) -> None:
        for container in self.containers:
            self.run("rm", "--force", "--time", "1", container, check=False)
        if self.network:
            self.run("network", "rm", self.name, check=False)


def start_cluster(place: Place, job: dict[str, Any]) -> None:
    """Starts the head, the workers and the submitter of a job, as KubeRay does."""
    profile = Profile.model_validate(
        {
            "image": IMAGE,
            "storage": "/shared/runs",
            "volumes": {"runs": "/shared"},
            "workers": {"cpus": 1, "data_cpus": 0, "memory": "3Gi"},
        }
    )
    config, rayjob = manifest(from_dict(job), profile)
    spec = rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    head = cluster["headGroupSpec"]
    parameters = " ".join(f"--{key}={value}" for key, value in head["rayStartParams"].items())
    start = "ulimit -n 65536; ray start --block --metrics-export-port=8080"
    place.pod(
        "head",
        head["template"]["spec"],
        config["data"],
        f"{start} --head --dashboard-host=0.0.0.0 --dashboard-agent-listen-port=52365 {parameters}",
        RAY_ADDRESS="127.0.0.1:6379",
    )
    (group,) = cluster["workerGroupSpecs"]
    for number in range(group["replicas"]):
        cpus = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
        wait = "until ray health-check --address head:6379 >/dev/null 2>&1; do sleep 1; done"
        place.pod(
            f"worker-{number}",
            group["template"]["spec"],
            {},
            f"{wait}; {start} --address=head:6379 --num-cpus={cpus}",
            RAY_ADDRESS="head:6379",
        )
    address = "--address http://head:8265"
    health = "wget --tries 1 -T 2 -q -O- http://head:8265/api/gcs_healthz | grep -q success"
    nodes = f"[ $(ray list nodes {address} 2>/dev/null | grep -c ALIVE) -gt {group['replicas']} ]"
    place.pod(
        "submitter",
        spec["submitterPodTemplate"]["spec"],
        {},
        f"until {health}; do sleep 1; done; until {nodes}; do sleep 1; done; "
        f"if ! ray job status {address} one >/dev/null 2>&1; "
        f"then ray job submit {address} --submission-id one --no-wait -- {spec['entrypoint']}; fi; "
        f"ray job logs {address} --follow one",
    )


def progress(place: Place, name: str) -> Progress:
    return Progress.read(Folder.at(place.folder / f"runs/runs/{name}"))


def training(place: Place, name: str) -> TrainingProgress:
    return progress(place, name).training or TrainingProgress()


def test_the_image_trains_the_digits_on_a_read_only_file_system_without_a_network(docker: str) -> None:
    options = ["--rm", "--read-only", "--tmpfs", "/tmp:rw,mode=1777,size=1g", "--network", "none", "--cap-drop=ALL"]
    command = ["lehr", "run", "jobs/train.yaml", "--debug"]
    done = subprocess.run([docker, "run", *options, IMAGE, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "All epochs done" in done.stdout
    best = float(done.stdout.partition("Best validation accuracy: ")[2].partition("%")[0])
    assert best > 97


def test_the_image_has_the_commands_that_kuberay_needs_and_does_not_run_as_root(docker: str) -> None:
    command = "id -u; command -v ray lehr wget pgrep pkill python; bash -lc 'command -v ray'; touch /venv/x 2>&1"
    done = subprocess.run(
        [docker, "run", "--rm", IMAGE, "bash", "-c", command], capture_output=True, text=True, check=False
    )
    user, *found = done.stdout.split("\n")
    assert user == "1000"
    assert len([line for line in found if line.startswith("/")]) == 7
    assert "Permission denied" in done.stdout


def test_the_image_has_the_templates(docker: str) -> None:
    new = "lehr new transfer-offline /tmp/job.yaml && cat /tmp/job.yaml"
    done = subprocess.run(
        [docker, "run", "--rm", "--network", "none", IMAGE, "bash", "-c", new],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "kind: transfer" in done.stdout, done.stderr


def test_a_job_finishes_on_the_pods_of_its_manifest(place: Place) -> None:
    start_cluster(place, {"name": "digits", "train": {"epochs": 3}, "workers": {"count": 2}})
    assert place.wait("submitter", 400) == 0, place.log("submitter")[-4000:]
    assert "Job 'one' succeeded" in place.log("submitter")
    assert progress(place, "digits").status == "finished"
    assert training(place, "digits").epochs_done == 3
    health = place.inside(
        "worker-0", "wget", "-q", "-O-", "http://localhost:52365/api/local_raylet_healthz", check=False
    )
    assert "success" in health
    metrics = place.inside("head", "wget", "-q", "-O-", "http://localhost:8080/metrics")
    assert "ray_node_cpu_count" in metrics
    assert TOKEN not in place.log("head") + place.log("submitter") + metrics


def test_a_head_that_must_go_saves_first_and_the_next_cluster_resumes(place: Place, docker: str) -> None:
    train = {"epochs": 200, "checkpoint": {"every": "50ep"}}
    job = {"name": "digits", "train": train, "workers": {"count": 1}}
    start_cluster(place, job)
    deadline = time.monotonic() + 300
    while training(place, "digits").epochs_done < 2:
        assert time.monotonic() < deadline, place.log("submitter")[-3000:]
        time.sleep(1)
    config, rayjob = manifest(from_dict(job), Profile.model_validate({"image": IMAGE, "storage": "s3://any/where"}))
    del config
    template = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    pre_stop = template["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    started = time.monotonic()
    place.inside("head", *pre_stop, check=False)
    assert time.monotonic() - started < template["terminationGracePeriodSeconds"]
    assert progress(place, "digits").status == "stopped"
    saved = training(place, "digits").step
    assert saved > 0
    checkpoints = sorted(path.name for path in (place.folder / "runs/runs/digits/checkpoints").iterdir())
    assert checkpoints[-1] == f"step-{saved:010d}-0001"

    next_cluster = Place(docker, place.folder)
    place.clean_up()
    try:
        start_cluster(next_cluster, {**job, "train": {**train, "early_stopping": None}})
        deadline = time.monotonic() + 300
        while training(next_cluster, "digits").step <= saved:
            assert time.monotonic() < deadline, next_cluster.log("submitter")[-3000:]
            time.sleep(1)
        second_attempt = yaml.safe_load((place.folder / "runs/runs/digits/attempts/0002.json").read_text())
        assert second_attempt
    finally:
        next_cluster.clean_up()
