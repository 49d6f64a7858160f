"""Time from the command to the first training step: `lehr run jobs/train.yaml` against a bare TorchTrainer script.

The bare script starts the same Ray with two workers, reads and decodes the digits in each worker and builds the same
network. It has no job file, no shared cache and no run folder, and prints whatever Ray prints.

    python -m tests.benchmarks.first_step [rounds]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.benchmarks.alternating import compare

JOB = Path(__file__).parents[2] / "jobs/train.yaml"


def ours() -> float:
    """Seconds from the command to the end of the first step."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [sys.executable, "-m", "lehr", "run", str(JOB), "name=first", "train.epochs=2", f"storage={folder}"]
        subprocess.run(command, check=True, capture_output=True)
        from lehr import Run

        run = Run(f"{folder}/first").folder
        began = next(event for event in run.events() if event["kind"] == "started")
        return datetime.fromisoformat(began["time"]).timestamp() + run.steps()["seconds"][0].as_py() - started


def bare() -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [sys.executable, "-m", __spec__.name, "script", folder]
        subprocess.run(command, check=True, capture_output=True)
        return float(Path(folder, "first").read_text()) - started


def script(folder: str) -> None:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init("local", include_dashboard=False, num_cpus=3)
    TorchTrainer(
        train_loop,
        train_loop_config={"folder": folder},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="bare", storage_path=folder),
    ).fit()


def train_loop(config: dict[str, str]) -> None:
    import io

    import numpy as np
    import pyarrow.parquet as pq
    import ray.train
    import torch
    from PIL import Image
    from torch.nn import functional as F

    import lehr
    from lehr.models.small_cnn import SmallCNN

    table = pq.read_table(Path(lehr.__file__).parent / "data/digits.parquet")
    images = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in table["image"].to_numpy()])
    inputs, labels = torch.tensor(images)[:, None].float() / 255, torch.tensor(table["label"].to_numpy())
    model = ray.train.torch.prepare_model(SmallCNN(1, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(40):
        mine = torch.arange(step * 32, step * 32 + 32)
        F.cross_entropy(model(inputs[mine]), labels[mine]).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 0 and ray.train.get_context().get_world_rank() == 0:
            Path(config["folder"], "first").write_text(str(time.time()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["script"]:
        script(sys.argv[2])
    else:
        rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
        compare("command to first step", "s", {"lehr": ours, "bare": bare}, rounds, "at most 1.2 (lower is better)")
