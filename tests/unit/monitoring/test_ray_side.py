"""Ray accepts every metric of the table and serves it to Prometheus."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import pytest
from tests.support import tiny

from lehr.job import to_dict
from lehr.monitoring.exporter import Exporter
from lehr.monitoring.metrics import METRICS, Observation, samples
from lehr.runs import Folder, RunFolder

from .examples import TRAINING


@pytest.mark.ray
def test_ray_serves_the_metrics_of_a_run_under_its_labels(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    run = RunFolder.create(Folder.at(tmp_path / "served"), to_dict(tiny()))
    exporter = Exporter(run, "train", {})
    run.write_progress(TRAINING)
    wanted = {sample.metric.series for sample in samples(Observation(TRAINING, changed=1.0))}
    assert len(wanted) > len(METRICS) / 2
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    found: dict[str, str] = {}
    deadline = time.monotonic() + 30  # Ray forwards its metrics every 10 s
    while set(found) != wanted and time.monotonic() < deadline:
        exporter.poll()
        time.sleep(0.5)
        with urllib.request.urlopen(address) as answer:
            lines = answer.read().decode().splitlines()
        found = {line.split("{")[0]: line for line in lines if line.startswith("ray_lehr_")}
    assert set(found) == wanted
    loss = found["ray_lehr_train_loss"]
    assert loss.endswith(" 0.25")
    assert all(label in loss for label in ('run="served"', 'kind="train"', 'trial=""'))
