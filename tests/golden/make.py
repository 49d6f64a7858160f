"""Makes the golden run folder of the current format: `python tests/golden/make.py`.

A golden folder is made once per format and never again: it stands for all the runs that people have. What it holds is
also what `tests/unit/runs/test_golden.py` expects.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch

from lehr.runs import FORMAT, Checkpoint, Folder, Recorder, RunFolder, begin_attempt, save, write_model

JOB = {"kind": "train", "name": "golden", "optimizer": {"name": "sgd", "lr": 1e-5}, "data": {"source": "digits"}}
ENVIRONMENT = {
    "started": "2030-01-02T03:04:05.000000+00:00",
    "seed": 7,
    "host": "example",
    "versions": {"lehr": "0.1.0"},
}
LEASE = {
    "owner": "00112233445566778899aabbccddeeff",
    "user": "somebody",
    "host": "example",
    "machine": "another",
    "pid": 1234,
    "process_started": 5678,
    "attempt": 2,
    "taken": "2030-01-02T03:04:05.000000+00:00",
    "heartbeat": "2030-01-02T03:05:05.000000+00:00",
}


def checkpoint(step: int, recorder: Recorder) -> Checkpoint:
    """Weights of several types, a tied pair, and values that JSON has no word for."""
    w = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 3 + step
    parameter = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones_like(w)
    optimizer.step()
    return Checkpoint(
        step=step,
        model={"w": w, "tied": w, "half": w.bfloat16(), "count": torch.tensor(step), "mask": w > 1},
        average={"w": w.double() / 7},
        optimizer=optimizer.state_dict(),
        state={
            "epoch": step / 4,
            "best": {"metric": "validation_loss", "value": math.inf, "step": None},
            "covered": recorder.covered(),
        },
    )


def make(where: Path) -> None:
    folder = Folder.at(where)
    run = RunFolder.create(folder, JOB, ENVIRONMENT)
    first = Recorder(folder, begin_attempt(folder, workers=1, checkpoint=None))
    first.event("started", "starts with 1 worker")
    for step in (0, 2):
        first.write_steps(
            {
                "step": [step, step + 1],
                "epoch": [step / 4, (step + 1) / 4],
                "loss": [2.5 - step / 10, math.nan if step else 2.0],
                "learning_rate": [0.1, 0.1],
                "gradient_norm": [1.5, math.inf if step else 1.25],
                "update_ratio": [1e-3, None],
                "examples": [128, 128],
                "seconds": [0.25, 0.125],
                "input_seconds": [0.0, 0.0625],
            }
        )
    first.write_epochs({"epoch": [1], "step": [4], "train_loss": [0.1 + 0.2], "validation_accuracy": [0.5]})
    saved = checkpoint(4, first)
    save(folder, saved)
    second = Recorder(folder, begin_attempt(folder, workers=2, checkpoint=saved))
    second.event("resumed", "goes on from step 4 with 2 workers", step=4)
    # Workers of the first attempt that live on for a moment: none of this counts.
    first.write_steps({"step": [4], "loss": [99.0]})
    first.write_epochs({"epoch": [2], "validation_accuracy": [0.0]})
    first.event("late", "does not count")
    second.write_steps({"step": [4, 5], "loss": [1.0, 0.5], "margin": [None, 3.0]})
    second.write_epochs({"epoch": [2], "step": [8], "validation_accuracy": [0.75], "note": ["better"]})
    save(folder, checkpoint(8, second))
    folder.write("checkpoints/step-0000000012/model.safetensors", b"its writer was killed")
    write_model(folder, {"w": torch.arange(4.0)}, {"model": {"name": "small_cnn"}, "classes": ["0", "eins"]})
    run.write_progress({"status": "finished", "step": 8, "loss": 0.5})
    run.request_stop("enough")
    folder.write_json("lease.json", LEASE)
    RunFolder.create(folder.child("trials", "0007"), JOB | {"name": "trial"}, ENVIRONMENT)
    (where / ".lease.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    target = Path(__file__).parent / f"format-{FORMAT}"
    if target.exists():
        sys.exit(f"{target} exists: a golden folder never changes; a new format gets a new one")
    make(target)
