"""What `progress.json` says in each kind of job, as its writer makes it."""

from __future__ import annotations

from typing import Any

TRAINING: dict[str, Any] = {
    "status": "running",
    "message": "",
    "attempt": 3,
    "workers": 2,
    "step": 120,
    "total_steps": 480,
    "epoch": 5.0,
    "epochs": 20,
    "epochs_done": 5,
    "loss": 0.25,
    "learning_rate": 0.05,
    "metrics": {"validation_loss": 0.5, "validation_accuracy": 0.9, "clean_train_accuracy": 0.95},
    "best": {"metric": "validation_accuracy", "value": 0.92, "step": 96, "epoch": 4, "stale": 1},
    "diagnosis": {},
    "examples_per_second": 800.0,
    "seconds_left": 60.0,
    "seconds": {"total": 20.0, "input": 2.0, "compute": 14.0, "evaluation": 2.0, "records": 1.0, "checkpoints": 0.5},
    "recent": {
        "gradient_norm": 1.5,
        "step_seconds": 0.1,
        "examples_per_second": 1280.0,
        "communication_seconds": 0.01,
    },
    "checkpoint": {"time": 1000.0, "bytes": 123456},
    "skipped_images": 2,
    "gpu_memory_bytes": 10**9,
    "updated": 1010.0,
}

SEARCH: dict[str, Any] = {
    "status": "running",
    "message": "",
    "done": 0.25,
    "headline": "1 finished, 2 running",
    "facts": {},
    "table": {"columns": [], "rows": []},
    "children": {"running": 2, "finished": 1, "ended": 3, "failed": 0},
    "rungs": [{"epoch": 1, "reached": 6, "stopped": 3}, {"epoch": 2, "reached": 3, "stopped": 0}],
    "best": {"metric": "validation_accuracy", "value": 0.97, "trial": "0003"},
    "epochs_spent": 20,
    "epochs_saved": 44,
    "seconds": {"total": 30.0},
    "updated": 1010.0,
}

RECIPE: dict[str, Any] = {
    "status": "running",
    "message": "",
    "done": 0.5,
    "recipe_step": "coarse",
    "children": {"running": 1, "finished": 2, "failed": 0},
    "updated": 1010.0,
}
