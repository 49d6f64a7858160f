"""The progress of each kind of job, as its writer reports it."""

from __future__ import annotations

from lehr.runs import BestValue, Overview, Progress, TrainingProgress
from lehr.runs.progress import CheckpointProgress, RecentSteps, Rung

STEPS = TrainingProgress(
    attempt=3,
    workers=2,
    step=120,
    total_steps=480,
    epoch=5.0,
    epochs=20,
    epochs_done=5,
    loss=0.25,
    learning_rate=0.05,
    examples_per_second=800.0,
    recent=RecentSteps(gradient_norm=1.5, step_seconds=0.1, examples_per_second=1280.0, communication_seconds=0.01),
    checkpoint=CheckpointProgress(time=1000.0, bytes=123456),
    skipped_images=2,
    gpu_memory_bytes=10**9,
)

TRAINING = Progress(
    status="running",
    metrics={
        "validation_loss": 0.5,
        "validation_accuracy": 0.9,
        "clean_train_accuracy": 0.95,
        "validation_f1_cat": 0.8,
    },
    best=BestValue("validation_accuracy", 0.92, step=96, epoch=4),
    seconds_left=60.0,
    seconds={"total": 20.0, "input": 2.0, "compute": 14.0, "evaluation": 2.0, "records": 1.0, "checkpoints": 0.5},
    updated=1010.0,
    training=STEPS,
)

SEARCH = Progress(
    status="running",
    best=BestValue("validation_accuracy", 0.97, trial="0003"),
    seconds={"total": 30.0},
    updated=1010.0,
    overview=Overview(
        headline="1 finished, 2 running",
        done=0.25,
        children={"running": 2, "finished": 1, "ended": 3, "failed": 0},
        rungs=(Rung(epoch=1, reached=6, stopped=3), Rung(epoch=2, reached=3, stopped=0)),
        epochs_spent=20,
        epochs_saved=44,
    ),
)

RECIPE = Progress(
    status="running",
    updated=1010.0,
    overview=Overview(
        headline="coarse search",
        done=0.5,
        recipe_step="coarse",
        children={"running": 1, "finished": 2, "failed": 0},
    ),
)
