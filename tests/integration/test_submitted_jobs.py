"""Jobs submitted to a real Ray cluster of three nodes, with a token, and with run folders on an S3 server (moto)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from tests.s3 import BUCKET, s3_environment, s3_server

from lehr.job.templates import names
from lehr.models.vision import torchvision
from lehr.runs import Progress

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

STORAGE = f"s3://{BUCKET}"
SHORT = ["base.train.epochs=1", "base.data.limit=330"]
JOB = """\
kind: train
data: {source: digits, limit: 330}
model: {name: my_nets:Net, width: 8}
optimizer: {lr: 0.05, momentum: 0.9}
train: {epochs: 3, batch_size: 64, checkpoint: {every: 3step}}
workers: {count: 2}
"""
NETS = """\
from torch import nn
class Net(nn.Sequential):
    def __init__(self, channels: int, outputs: int, width: int = 4):
        super().__init__(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, outputs))
"""
NEEDS_TOKEN = """\
import os
import my_nets
assert os.environ["NODE_TOKEN"], "a secret that was set where the nodes started reaches the job"
Net = my_nets.Net
"""
TOKEN = "0123456789abcdef0123456789abcdef"
CANARY = "canary5d41402abc4b2a76"
"""Stands for a secret: nothing may write it anywhere."""
Lehr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def environment(place: Path) -> Iterator[dict[str, str]]:
    """The environment of the commands: an S3 server, a token, and a state folder of its own."""
    (place / "token").write_text(TOKEN)
    with s3_server() as endpoint:
        yield {
            **os.environ,
            **s3_environment(endpoint),
            "LEHR_STORAGE": f"{STORAGE}/runs",
            "LEHR_STATE": str(place / "state"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(place / "token"),
            "NODE_TOKEN": CANARY,
        }


@pytest.fixture(scope="module")
def s3(place: Path, environment: dict[str, str]) -> Any:
    """A client of the S3 server, which has images in a folder and in Parquet; a backbone is in the working folder."""
    client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
                          aws_access_key_id="x", aws_secret_access_key="x")  # fmt: skip
    pixels = np.random.default_rng(0)
    for number in range(60):
        file = place / f"photos/{('red', 'green', 'blue')[number % 3]}/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = pixels.integers(0, 128, (32, 32, 3), np.uint8)
        image[..., number % 3] += 100
        Image.fromarray(image).save(file)
        client.upload_file(str(file), BUCKET, str(file.relative_to(place)))
    torch.save(torchvision().models.shufflenet_v2_x0_5().state_dict(), place / "backbone.pth")
    packed = subprocess.run(
        [sys.executable, "-m", "lehr", "data", "pack", "photos", f"{STORAGE}/cifar10"],
        cwd=place, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert packed.returncode == 0, packed.stderr
    return client


@pytest.fixture(scope="module")
def lehr(place: Path, environment: dict[str, str]) -> Iterator[Lehr]:
    """The lehr command, while a cluster of three nodes is running."""
    (place / "job.yaml").write_text(JOB)
    (place / "my_nets.py").write_text(NETS)

    def call(*words: str, timeout: float = 300, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lehr", *words], capture_output=True, text=True, timeout=timeout, check=False,
            cwd=place, env={**environment, **changes},
        )  # fmt: skip

    up = call("cluster", "up", "--nodes", "3", "--cpus", "2")
    assert up.returncode == 0, up.stderr
    record = json.loads((place / "state/cluster.json").read_text())
    leaders = [int(leader.split("-")[0]) for leader in record["leaders"]]
    yield call
    down = call("cluster", "down")
    assert down.returncode == 0, down.stderr
    left = [p for p in psutil.process_iter() if _session(p) in leaders and p.status() != psutil.STATUS_ZOMBIE]
    assert left == []


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return -1


def progress(lehr: Lehr, run: str) -> Progress:
    shown = lehr("status", run, "--json")
    return Progress.from_json(json.loads(shown.stdout)["progress"] if shown.returncode == 0 else {})


def step(lehr: Lehr, run: str) -> int:
    """The optimizer step that a training has reached."""
    training = progress(lehr, run).training
    return training.step if training else 0


def until(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(1)


def test_a_check_of_a_healthy_cluster_finds_no_problems(lehr: Lehr) -> None:
    checked = lehr("check", "job.yaml")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("No problems found: the job can run there.")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["storage=s3://no-such-bucket/runs"], "refused: s3://no-such-bucket/runs cannot be written from "),
        (["workers.count=9"], "refused: 9 workers with 1 CPU each need 9, and the cluster has 6"),
        (["workers.gpus=1"], "refused: 2 workers with 1 GPU each need 2, and the cluster has 0"),
        (["workers={count: 3, cpus: 2}"], "warning: the workers take 6 of the cluster's 6 CPUs"),
        (["model=my_nets:Nett"], "my_nets"),
        (
            ["data={source: images, path: s3://lehr-tests/nothing}"],
            "data.path cannot be read on any node: s3://lehr-tests/nothing",
        ),
    ],
)
def test_each_finding_is_provoked_on_a_real_cluster(lehr: Lehr, overrides: list[str], sentence: str) -> None:
    checked = lehr("check", "job.yaml", *overrides)
    assert sentence in checked.stdout, checked.stdout + checked.stderr
    assert "Traceback" not in checked.stdout + checked.stderr
    assert checked.returncode == (0 if sentence.startswith("warning") else 1)


def test_a_wrong_or_missing_token_is_one_sentence_and_the_right_one_is_never_shown(lehr: Lehr, place: Path) -> None:
    wrong = lehr("jobs", RAY_AUTH_TOKEN="wrong")
    assert "does not accept this token" in wrong.stderr
    missing = lehr("jobs", RAY_AUTH_TOKEN_PATH="", HOME="/nonexistent")
    assert "asks for a token" in missing.stderr
    assert [each.stderr.count("\n") for each in (wrong, missing)] == [1, 1]
    assert lehr("jobs").returncode == 0
    arguments = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in arguments if TOKEN in line]
    assert TOKEN not in (place / "state/cluster.log").read_text() + (place / "state/cluster.json").read_text()


def test_a_job_keeps_running_when_its_client_is_closed_and_can_be_attached_to_again(
    lehr: Lehr, place: Path, environment: dict[str, str]
) -> None:
    client = subprocess.Popen(
        [sys.executable, "-m", "lehr", "submit", "job.yaml", "name=left", "-f"], cwd=place, env=environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: progress(lehr, "left").status == "running" or client.poll() is not None)
    client.kill()
    client.wait()
    attached = lehr("attach", "left")
    assert attached.returncode == 0, attached.stdout + attached.stderr
    assert "epoch 3/3" in attached.stdout
    assert progress(lehr, "left").status == "finished"
    assert "left" in lehr("runs").stdout  # read in place, from S3
    assert "validation accuracy" in lehr("show", "left").stdout
    assert lehr("report", "left").returncode == 0
    again = lehr("submit", "job.yaml", "name=left")
    assert "left is finished" in again.stdout
    assert TOKEN not in lehr("logs", "left").stdout


def test_a_stop_saves_a_checkpoint_and_the_run_resumes_from_it(lehr: Lehr) -> None:
    assert lehr("submit", "job.yaml", "name=long", "train.epochs=500", "--no-wait", "--no-check").returncode == 0
    twice = lehr("submit", "job.yaml", "name=long", "train.epochs=500", "--no-wait")
    assert "this is the same job" in twice.stdout
    until(lambda: step(lehr, "long") > 10)
    before = step(lehr, "long")
    stopped = lehr("stop", "long")
    assert "everything is saved" in stopped.stdout, stopped.stdout + stopped.stderr
    saved = step(lehr, "long")
    assert saved >= before
    assert lehr("resume", "long", "--no-wait").returncode == 0
    until(lambda: step(lehr, "long") > saved)
    rows = [json.loads(line) for line in lehr("jobs", "--json").stdout.splitlines()]
    assert [row["submission"] for row in rows if row["name"] == "long"] == [1, 2]
    assert lehr("stop", "long").returncode == 0
    events = [line for line in lehr("show", "long").stdout.splitlines() if "resumed" in line]
    assert len(events) == 1
    assert f"{saved}" in events[0], "resumed from an earlier checkpoint than that of the stop"


def test_a_second_job_says_what_it_waits_for_until_all_its_workers_fit(lehr: Lehr) -> None:
    assert lehr("submit", "job.yaml", "name=first", "train.epochs=500", "--no-wait", "--no-check").returncode == 0
    until(lambda: step(lehr, "first") > 1)
    words = ("submit", "job.yaml", "name=second", "workers={count: 2, cpus: 2}", "--no-wait", "--no-check")
    assert lehr(*words).returncode == 0
    until(lambda: "waiting for 4 CPUs: " in lehr("logs", "second").stdout)
    assert "held by run first" in lehr("logs", "second").stdout
    assert progress(lehr, "first").status == "running"
    assert lehr("stop", "first").returncode == 0
    done = lehr("attach", "second")
    assert done.returncode == 0, done.stdout
    assert "epoch 3/3" in done.stdout


def test_secrets_are_in_no_log_no_folder_and_no_process_list_and_files_are_for_their_owner(
    lehr: Lehr, place: Path, environment: dict[str, str], s3: Any, tmp_path: Path
) -> None:
    for name in (".env", ".aws/credentials", "tls.pem"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(CANARY)
    (tmp_path / "private.txt").write_text(CANARY)
    (place / "outside").symlink_to(tmp_path)
    (place / "needs_token.py").write_text(NEEDS_TOKEN)
    (place / "requirements.txt").write_text(f"--index-url https://me:{CANARY}@host/simple\n")
    words = ["submit", "job.yaml", "name=quiet", "model.name=needs_token:Net"]
    for more in (["--env", f"HF_TOKEN={CANARY}"], ["--pip", "requirements.txt"], [f"storage=s3://K:{CANARY}/x@b/r"]):
        refused = lehr(*words, *more)
        assert refused.returncode == 2, refused.stdout
        assert CANARY not in refused.stdout + refused.stderr
    (place / "requirements.txt").unlink()

    arguments: set[str] = set()
    sessions: set[str] = set()
    client = subprocess.Popen(
        [sys.executable, "-m", "lehr", *words, "-f"], cwd=place, env=environment, stdout=subprocess.PIPE, text=True
    )
    while client.poll() is None:
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            arguments |= {line} if CANARY in line else set()
            sessions |= set(re.findall(r"--session-dir[= ](\S+)", line)) if f"{place}" in _state_of(process) else set()
        time.sleep(0.2)
    assert client.stdout
    printed = client.stdout.read()
    assert client.returncode == 0, printed
    assert "left out, since they look like secrets: .aws/, .env, tls.pem;" in printed
    assert f"left out, since they lead out of the folder: outside/ (to {tmp_path});" in printed
    assert CANARY not in printed
    assert arguments == set()

    assert sessions
    folders = [*map(Path, sessions), place / "state"]
    written = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert [file for file in written if CANARY.encode() in file.read_bytes()] == []
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="runs/quiet/")
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    assert keys
    bodies = {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
    assert [key for key, body in bodies.items() if CANARY.encode() in body] == []

    unpacked = [file for file in written if "/working_dir_files/_ray_pkg_" in str(file) and file.suffix != ".lock"]
    assert {file.name for file in unpacked} >= {"needs_token.py", "job.yaml"}
    assert {oct(file.stat().st_mode & 0o777) for file in unpacked} <= {"0o600", "0o700"}
    folders = [file.parent for file in unpacked if file.name == "needs_token.py"]
    assert 0o700 in [folder.stat().st_mode & 0o777 for folder in folders], "closed by the supervisor, on the head"


def _state_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("LEHR_STATE", "")
    except psutil.Error:
        return ""


TEMPLATES = [  # in an order in which each finds the runs it needs
    ("train", "digits", ["train.epochs=2"], ["model/weights-0001.safetensors"]),
    (
        "cifar10",
        "cifar10",
        [f"data.path={STORAGE}/cifar10", "model.width=8", "train.epochs=2"],
        ["model/model-0001.json"],
    ),
    (
        "cifar10-fast",
        "fast",
        [
            f"data.path={STORAGE}/cifar10", "data.validation=20%", "model.width=4", "train.epochs=2",
            "train.batch_size=32", "train.compile=false",
        ],
        ["model/weights-0001.safetensors"],
    ),
    (
        "search-grid",
        "grid",
        [*SHORT, "space={optimizer.lr: [0.01, 0.1]}"],
        ["trials/0001/model/model-0001.json", "trials/0002/search.json", "report.html"],
    ),
    (
        "search-random-asha",
        "asha",
        [*SHORT, "base.train.epochs=3", "budget.trials=4"],
        ["trials/0001/search.json", "trials/0003/search.json", "report.html"],
    ),
    (
        "recipe",
        "recipe",
        ["base.model.width=8", "base.data.limit=330", "base.train.epochs=2", "budget=24ep"],
        ["recipe/3-learning-rate/result.json", "model/weights-0001.safetensors", "report.html"],
    ),
    (
        "snapshot-ensemble",
        "snapshots",
        [
            f"base.data.path={STORAGE}/cifar10", "base.model={name: small_cnn, width: 8}",
            "base.train.epochs=2", "cycles=2",
        ],
        ["ensemble.json", "members/01/model/model-0000.json", "members/02/model/model-0000.json"],
    ),
    (
        "independent-ensemble",
        "independent",
        [*SHORT, "members=2"],
        ["ensemble.json", "members/02/model/weights-0000.safetensors"],
    ),
    (
        "transfer",
        "photos",
        [
            f"base.data.path={STORAGE}/photos", "base.data.image_size=64", "base.train.epochs=1",
            "backbone={name: shufflenet_v2_x0_5, weights: backbone.pth}", "features.steps=30",
        ],
        ["transfer.json", "features/train.parquet", "model/weights-0001.safetensors", "report.html"],
    ),
    ("transfer-pretrain", "digits-six", ["train.epochs=2"], ["model/weights-0001.safetensors"]),
    (
        "transfer-offline",
        "offline",
        ["base.train.epochs=2", "features.steps=30", "images_per_class=[2]"],
        ["transfer.json", "model/weights-0001.safetensors", "report.html"],
    ),
    ("predict", "predict", ["run=run:digits"], ["predictions/part-000000.parquet"]),
]  # fmt: skip


def test_every_template_is_submitted_below() -> None:
    assert sorted(each[0] for each in TEMPLATES) == names()


@pytest.mark.parametrize(("template", "run", "words", "artifacts"), TEMPLATES, ids=[each[0] for each in TEMPLATES])
def test_a_template_runs_on_a_cluster_and_its_results_are_read_from_s3(
    lehr: Lehr, s3: Any, template: str, run: str, words: list[str], artifacts: list[str]
) -> None:
    assert lehr("new", template, f"{template}.yaml").returncode == 0
    done = lehr("submit", f"{template}.yaml", f"name={run}", *words, "-f", timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused" not in done.stdout
    rows = [json.loads(line) for line in lehr("jobs", "--json").stdout.splitlines()]
    assert [row["status"] for row in rows if row["name"] == run] == ["finished"]
    assert progress(lehr, run).status == "finished"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"runs/{run}/")
    there = {each["Key"].removeprefix(f"runs/{run}/"): each["Size"] for page in pages for each in page["Contents"]}
    assert {"job.yaml", "environment.json", "progress.json", "attempts/0001-outcome.json", *artifacts} <= there.keys()
    assert "lease.json" not in there
    assert all(there[name] for name in artifacts)
    shown = lehr("show", run)
    assert shown.returncode == 0, shown.stderr
    assert run in shown.stdout
