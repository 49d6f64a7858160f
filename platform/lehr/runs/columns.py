"""The columns of the tables of a run's record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """What a column holds. `timing` marks wall-clock figures, which differ between otherwise equal runs."""

    unit: str
    description: str
    timing: bool = False
    type: Literal["float64", "int64"] = "float64"


def listed(names: Iterable[str], split: str) -> list[str]:
    """Those of the names that are a job's own metrics of a split, such as `validation_f1`; not loss and accuracy."""
    return [name for name in names if name.startswith(f"{split}_") and name not in COLUMNS["epochs"]]


COLUMNS: dict[str, dict[str, Column]] = {
    "steps": {
        "step": Column("step", "number of the optimizer step, from 0", type="int64"),
        "epoch": Column("epoch", "epochs of training data seen before the step, fractional"),
        "loss": Column("1", "training loss of the global batch, before the update"),
        "learning_rate": Column("1", "learning rate of the update, of the first parameter group"),
        "gradient_norm": Column("1", "Euclidean norm of the gradient of all parameters, before clipping"),
        "update_ratio": Column("1", "norm of the update divided by the norm of the weights; null: not measured"),
        "examples": Column("example", "training examples in the global batch", type="int64"),
        "seconds": Column("s", "wall-clock time of the step, input included", timing=True),
        "input_seconds": Column("s", "wall-clock time that the step waited for its batch", timing=True),
        "cpu_cores": Column("core", "cores that the first worker kept busy since the last measurement", timing=True),
        "memory_bytes": Column("B", "memory that the first worker holds", timing=True),
        "gpu_use": Column("1", "share of the time in which its GPU computed, 0 to 1", timing=True),
        "gpu_memory_bytes": Column("B", "memory of its GPU that it holds", timing=True),
    },
    "epochs": {
        "epoch": Column("epoch", "completed epochs; the first row has 1", type="int64"),
        "step": Column("step", "optimizer steps taken by the end of the epoch", type="int64"),
        "train_loss": Column("1", "mean loss of the epoch's training batches, while the weights changed"),
        "train_accuracy": Column("1", "accuracy on the epoch's training batches, while the weights changed, 0 to 1"),
        "clean_train_loss": Column("1", "loss on fixed training rows, not augmented, evaluation mode"),
        "clean_train_accuracy": Column("1", "accuracy on fixed training rows, not augmented, evaluation mode, 0 to 1"),
        "validation_loss": Column("1", "loss on the whole validation split"),
        "validation_accuracy": Column("1", "accuracy on the whole validation split, 0 to 1"),
        "averaged_validation_loss": Column("1", "the same with the averaged weights"),
        "averaged_validation_accuracy": Column("1", "the same with the averaged weights, 0 to 1"),
        "test_loss": Column("1", "loss on the whole test split; only at the end"),
        "test_accuracy": Column("1", "accuracy on the whole test split, 0 to 1; only at the end"),
        "learning_rate": Column("1", "learning rate of the epoch's last update"),
        "seconds": Column("s", "wall-clock time of the epoch, evaluation included", timing=True),
        "examples_per_second": Column("example/s", "training examples over the time of their steps", timing=True),
    },
}
