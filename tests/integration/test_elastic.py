"""An elastic run on two nodes: one is removed during the run and added again; the run continues, and reports it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lehr import Run
from lehr.runs import Folder, Progress, TrainingProgress

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = """\
kind: train
name: elastic
data: {source: digits, augment: [shift]}
model: {name: small_cnn, width: 16}
optimizer: {lr: 0.05, momentum: 0.9}
schedule: {name: cosine, warmup: 1ep}
train: {epochs: 400, batch_size: 64, early_stopping: {patience: 400}}
workers: {count: [1, 2], cpus: 1}
"""


def until(
    condition: Callable[[TrainingProgress], bool], process: subprocess.Popen[str], seconds: float = 240
) -> TrainingProgress:
    """The first progress of the run that meets the condition."""
    folder, deadline = Folder.at("runs/elastic"), time.monotonic() + seconds
    while True:
        progress = Progress.read(folder).training
        if progress and condition(progress):
            return progress
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"still {progress}"
        time.sleep(0.1)


def test_a_run_survives_the_loss_of_a_node_and_uses_it_again() -> None:
    from ray.cluster_utils import Cluster

    Path("job.yaml").write_text(JOB)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=1)
        second = cluster.add_node(num_cpus=1)
        process = subprocess.Popen(
            [sys.executable, "-m", "lehr", "run", "job.yaml"],
            env={**os.environ, "RAY_ADDRESS": cluster.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            before = until(lambda now: now.workers == 2 and now.epochs_done >= 3, process)
            cluster.remove_node(second, allow_graceful=False)
            alone = until(lambda now: now.workers == 1 and now.epoch > before.epoch + 1, process)
            cluster.add_node(num_cpus=1)
            together = until(lambda now: now.workers == 2 and now.epoch > alone.epoch + 1, process)
            Run("runs/elastic").folder.request_stop("seen enough")
            _, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
    finally:
        cluster.shutdown()
    assert "Resume with" in stderr
    run = Run("runs/elastic").folder
    messages = [event["message"] for event in run.events() if event["kind"] in ("started", "resumed")]
    assert messages[0] == "starts with 2 workers"
    assert any("with 1 worker" in message and "workers" not in message for message in messages[1:])
    assert messages[-1].endswith("with 2 workers")
    steps = run.steps()["step"].to_pylist()
    assert steps == list(range(len(steps)))
    assert len(steps) >= together.step
    assert Run(run).metrics()["validation_accuracy"].max() > 0.9
