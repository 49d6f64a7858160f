"""A job on a shared Ray cluster of several nodes: what happens when it loses a node, its driver or its memory."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lehr import Run
from lehr.runs import Folder, Progress, RunFolder, TrainingProgress, name_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = """\
kind: train
data: {source: digits, augment: [shift]}
model: {name: small_cnn, width: 16}
optimizer: {lr: 0.05, momentum: 0.9}
train: {epochs: 400, batch_size: 64, early_stopping: {patience: 400}}
workers: {count: [1, 2], cpus: 1}
"""
STORE = 80_000_000  # bytes of a node's object store


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    yield cluster
    cluster.shutdown()


def start(cluster: Any, name: str, *words: str) -> subprocess.Popen[str]:
    Path("job.yaml").write_text(JOB)
    return subprocess.Popen(
        [sys.executable, "-m", "lehr", "run", "job.yaml", f"name={name}", *words],
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[TrainingProgress], bool], name: str, process: subprocess.Popen[str]) -> TrainingProgress:
    """The first progress of the run that meets the condition."""
    folder, deadline = Folder.at(f"runs/{name}"), time.monotonic() + 200
    while True:
        training = Progress.read(folder).training
        if training and condition(training):
            return training
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"still {training}"
        time.sleep(0.1)


HELD = """\
import json, sys, time, ray
from ray.util import placement_group_table
from ray.util.state import list_actors
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
for _ in range(60):
    groups = [g["placement_group_id"] for g in placement_group_table().values() if g["state"] != "REMOVED"]
    held = ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0)
    if not groups and not held:
        break
    time.sleep(1)
print(json.dumps([groups, held]))
"""


def held(cluster: Any) -> list[Any]:
    """What is still held on the cluster after a minute: placement groups, and CPUs (by actors and tasks)."""
    asked = subprocess.run([sys.executable, "-c", HELD, cluster.address], capture_output=True, text=True, check=True)
    found: list[Any] = json.loads(asked.stdout.splitlines()[-1])
    return found


def saved_at_the_notice(run: RunFolder) -> bool:
    step = next((event["step"] for event in run.events() if event["kind"] == "warned"), None)
    return step is not None and Path(f"runs/warned/checkpoints/{name_of(step, 1)}/manifest.json").exists()


def test_a_notice_that_a_machine_goes_away_saves_at_once_and_the_other_workers_continue(cluster: Any) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    process = start(cluster, "warned", "train.checkpoint.every=100ep")
    try:
        until(lambda progress: progress.workers == 2 and progress.epochs_done >= 3, "warned", process)
        notice = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        ray = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address]
        drain = [*ray, "--node-id", second.node_id, *notice, "--deadline-remaining-seconds", "20"]
        subprocess.run(drain, check=True, capture_output=True)
        run = Run("runs/warned").folder
        deadline = time.monotonic() + 20
        while not saved_at_the_notice(run):  # not just the checkpoint of the best epoch so far
            assert time.monotonic() < deadline, "nothing was saved in time"
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        alone = until(lambda progress: progress.workers == 1 and progress.epochs_done >= 4, "warned", process)
        assert alone.step > 0
        run.request_stop("seen enough")
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert "Resume with" in stderr
    events = run.events()
    assert [event["kind"] for event in events][:2] == ["started", "warned"], events
    assert "is about to be taken away" in events[1]["message"]
    resumed = next(event for event in events if event["kind"] == "resumed")
    assert resumed["step"] >= events[1]["step"] > 0, "the checkpoint saved at the notice was not used"
    assert resumed["message"].endswith("with 1 worker")
    assert held(cluster) == [[], 0]


def test_a_killed_driver_leaves_no_resources_held_and_its_run_resumes(cluster: Any) -> None:
    process = start(cluster, "killed", "train.epochs=40")
    until(lambda progress: progress.epochs_done >= 3, "killed", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert held(cluster) == [[], 0]
    again = start(cluster, "killed", "train.epochs=40")
    _, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stderr
    assert "resumed" in [event["kind"] for event in Run("runs/killed").folder.events()]
    assert held(cluster) == [[], 0]


def test_data_larger_than_the_object_store_slow_a_run_down_but_do_not_end_it(cluster: Any) -> None:
    """120 MB of decoded images, to be cached in a store of 80 MB: Ray spills the rest to disk."""
    images = []
    for shade in (40, 200):
        Image.new("RGB", (128, 128), (shade, shade, shade)).save(buffer := io.BytesIO(), "PNG")
        images.append(buffer.getvalue())
    table = pa.table({"image": pa.array(images * 1220, pa.binary()), "label": pa.array([0, 1] * 1220, pa.int64())})
    Path("data").mkdir()
    pq.write_table(table.replace_schema_metadata({"classes": "dark,light"}), "data/a.parquet")
    Path("my_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, channels: int, outputs: int):\n"
        "        super().__init__(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(16 * channels, outputs))\n"
    )
    words = ["data.source=parquet", "data.path=data", "data.augment=[]", "data.cache=memory", "model.name=my_nets:Net"]
    process = start(cluster, "full", *words, "model.width=null", "train.epochs=2", "workers.count=1")
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    assert "data.cache=memory asks for it" in stdout
    assert Run("runs/full").metrics()["validation_accuracy"].iloc[-1] == 1.0
