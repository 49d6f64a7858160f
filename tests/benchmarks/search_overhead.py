"""What a search costs in addition to the training: `python -m tests.benchmarks.search_overhead`

1. Trials per minute: 64 short trials on 2 CPUs as a search job, against the straightforward way on Ray: Tune, with a
   `TorchTrainer` inside every trial. Both train the same network on the same images for the same number of epochs. Ours
   is timed from start to end, including the start of Ray. Theirs would take half an hour, so only a few trials run, and
   the start of Ray is not counted: more trials could not be faster.
2. Wall time against the ideal, with trials of 10 s or more; the ideal is the total training time divided by the slots.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.alternating import silence

TRIALS, EPOCHS, SLOTS = 64, 2, 2
THEIR_TRIALS = 8
LONG_TRIALS, LONG_EPOCHS = 8, 120
RATES = [round(0.01 * 1.05**i, 5) for i in range(TRIALS)]
JOB: dict[str, Any] = {
    "kind": "search",
    "base": {
        "data": {"source": "digits", "validation": 0.2},
        "model": {"name": "small_cnn"},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        "train": {"epochs": EPOCHS, "batch_size": 64, "evaluated_training_rows": 0},
        "workers": {"cpus": 1},
    },
    "space": {"optimizer.lr": RATES},
    "method": "grid",
    "stopping": "none",
}


def ours(folder: Path, trials: int, epochs: int) -> tuple[float, Any]:
    """Seconds of a search over the first learning rates, and its run."""
    import lehr
    from lehr.job import from_dict

    job = from_dict(JOB, {"storage": str(folder), "base.train.epochs": epochs, "space.optimizer.lr": RATES[:trials]})
    began = time.perf_counter()
    with silence():
        run = lehr.run(job)
    return time.perf_counter() - began, run


def straightforward(folder: Path) -> float:
    """Seconds of the first of these trials with Tune and a TorchTrainer in each, two at a time, on a running Ray."""
    import ray
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    ray.init("local", num_cpus=SLOTS + 1, log_to_driver=False)

    def trial(config: dict[str, Any]) -> None:
        TorchTrainer(
            _train_plainly,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name=f"trial-{config['lr']}",
                storage_path=str(folder),
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            ),
        ).fit()

    began = time.perf_counter()
    try:
        tuner = tune.Tuner(
            tune.with_resources(trial, {"CPU": 0.01}),
            param_space={"lr": tune.grid_search(RATES[:THEIR_TRIALS])},
            tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS),
            run_config=tune.RunConfig(name="search", storage_path=str(folder), verbose=0),
        )
        results = tuner.fit()
        assert not results.errors, results.errors
        assert len(results) == THEIR_TRIALS
        return time.perf_counter() - began
    finally:
        ray.shutdown()


def _train_plainly(config: dict[str, Any]) -> None:
    """The same training, written for Ray Train as a user would."""
    import ray.train
    import torch

    from lehr.data.load import OpenedSources, splits
    from lehr.job import from_dict
    from lehr.models import build

    torch.set_num_threads(1)
    job = from_dict({**JOB["base"], "kind": "train"})
    found = splits(job, OpenedSources(job).decode())  # type: ignore[arg-type]
    train, validation = (rows.gather(torch.arange(len(rows))) for rows in (found.train, found.validation))
    model = build("small_cnn", 1, 10, {}, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    for _ in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(train.targets)).split(64):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(train.inputs[rows].float() / 255), train.targets[rows])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            right = (model(validation.inputs.float() / 255).argmax(1) == validation.targets).float().mean()
        ray.train.report({"accuracy": float(right)})


def main() -> None:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory() as place:
        seconds, _ = ours(Path(place) / "short", TRIALS, EPOCHS)
        print(f"{TRIALS} short trials: {seconds:.1f} s, {60 * TRIALS / seconds:.1f} trials a minute", flush=True)
        long_seconds, run = ours(Path(place) / "long", LONG_TRIALS, LONG_EPOCHS)
        trained = [child.progress().seconds["total"] for child in run.folder.children("trials")]
        ideal = sum(trained) / SLOTS
        print(
            f"{LONG_TRIALS} trials of {min(trained):.1f} to {max(trained):.1f} s: {long_seconds:.1f} s, ideal "
            f"{ideal:.1f} s: {long_seconds / ideal:.2f} x the ideal (expected: at most 1.25)",
            flush=True,
        )
        command = [
            sys.executable,
            "-m",
            __spec__.name,
            f"{place}/plain",
        ]  # in a process of its own, without our warm Ray
        plain = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        ours_rate, theirs = TRIALS / seconds, THEIR_TRIALS / plain
        print(
            f"Tune with a TorchTrainer per trial, {THEIR_TRIALS} of them on a running Ray: {plain:.1f} s, "
            f"{60 * theirs:.1f} trials a minute; {TRIALS} would take {TRIALS / theirs / 60:.0f} minutes"
        )
        print(f"{ours_rate / theirs:.1f} x as many trials a minute (expected: at least 5)")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(straightforward(Path(sys.argv[1])))
    else:
        main()
