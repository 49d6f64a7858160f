"""Makes the golden run folder of the current format: `python tests/golden/make.py`.

A golden folder is made once per format and never changed: it stands for all the runs that people have.
`tests/unit/runs/test_golden.py` expects what it holds. The folders `format-1-…` are whole runs that the last version of
lehr with format 1 made of digits; `test_format_1.py` uses them.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from lehr.runs import (
    FORMAT,
    Attempt,
    BestValue,
    Checkpoint,
    DataFacts,
    Environment,
    Failure,
    Folder,
    GitState,
    Gpu,
    Holder,
    Progress,
    Recorder,
    RunFolder,
    TrainingProgress,
    UnreadableImages,
    begin_attempt,
    save,
    write_model,
)

JOB = {"kind": "train", "name": "golden", "optimizer": {"name": "sgd", "lr": 1e-5}, "data": {"source": "digits"}}
ENVIRONMENT = Environment(
    started="2030-01-02T03:04:05.000000+00:00",
    seed=7,
    host="example",
    platform="Linux",
    cpus=4,
    memory_bytes=2**34,
    gpus=(Gpu("a GPU", 2**35),),
    versions={"lehr": "0.1.0", "ray": None},
    git=GitState("0123456789abcdef0123456789abcdef01234567", dirty=True),
)
DATA = DataFacts(
    rows={"train": 100},
    classes=2,
    shape=(8, 8, 1),
    bytes=6400,
    held="cached",
    why="6 kB of decoded images: cached",
    notes=("a note",),
    unreadable=UnreadableImages(1, ("a.jpg",)),
)
LEASE = Holder(
    owner="00112233445566778899aabbccddeeff",
    user="somebody",
    host="example",
    machine="another",
    pid=1234,
    process_started=5678,
    attempt=2,
    taken="2030-01-02T03:04:05.000000+00:00",
    heartbeat="2030-01-02T03:05:05.000000+00:00",
)
BEST = BestValue("validation_accuracy", 0.75, epoch=2, step=8)
METRICS = {"validation_accuracy": 0.75, "validation_loss": math.inf}


class Zombie(Attempt):
    """An attempt whose workers do not notice that it was replaced."""

    def check(self, folder: Folder) -> None:
        pass


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
        attempt=recorder.attempt.number,
    )


def make(where: Path) -> None:
    """Writes a run of two attempts, with everything that a run folder may hold."""
    folder = Folder.at(where)
    run = RunFolder.create(folder, JOB, ENVIRONMENT)
    first = Recorder(
        folder, begin_attempt(folder, workers=1, checkpoint=None, steps_per_epoch=4, total_steps=8), merge=2
    )
    first.event("started", "starts with 1 worker")
    for step in (0, 2):  # two parts, which become one
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
    second = Recorder(folder, begin_attempt(folder, workers=2, checkpoint=saved, steps_per_epoch=4, total_steps=8))
    second.event("resumed", "resumes from step 4 with 2 workers", step=4)
    zombie = first
    zombie.attempt = Zombie(**asdict(first.attempt))
    # Workers of the first attempt that had made sure that it is the newest, and then slept: none of this counts.
    zombie.write_steps({"step": [4], "loss": [99.0]})
    zombie.write_epochs({"epoch": [2], "step": [8], "validation_accuracy": [0.0]})
    zombie.event("late", "does not count")
    late = checkpoint(6, zombie)
    late.model["w"] += 99
    save(folder, late)
    second.write_steps({"step": [4, 5], "loss": [1.0, 0.5], "margin": [None, 3.0]})
    second.write_epochs({"epoch": [2], "step": [8], "validation_accuracy": [0.75], "note": ["better"]})
    save(folder, checkpoint(8, second))
    folder.write("checkpoints/step-0000000012-0002/model.safetensors", b"its writer was killed")
    write_model(folder, {"w": torch.arange(4.0)}, {"model": {"name": "small_cnn"}, "classes": ["0", "eins"]})
    run.write_environment(replace(ENVIRONMENT, data=DATA))
    training = TrainingProgress(
        attempt=2, workers=2, step=8, total_steps=8, epoch=2.0, epochs=2, epochs_done=2, loss=0.5
    )
    run.write_progress(Progress("finished", "all epochs done", BEST, METRICS, {"total": 1.5}, training=training))
    run.request_stop("enough")
    run.fail(Failure("the disk was full", "Traceback (most recent call last): …", 1))
    run.note_loss("worker 1 was lost with its machine")
    LEASE.write(folder)
    RunFolder.create(folder.child("trials", "0007"), JOB | {"name": "trial"}, ENVIRONMENT)
    (where / ".lease.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    target = Path(__file__).parent / f"format-{FORMAT}"
    if target.exists():
        sys.exit(f"{target} exists: a golden folder never changes; a new format gets a new one")
    make(target)
