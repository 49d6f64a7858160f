"""CIFAR-10 as Parquet files, if this machine has them: in the folder LEHR_CIFAR, or else in `../shared/data`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("LEHR_CIFAR") or Path(__file__).parents[3] / "shared/data")
TRAIN, TEST = FOLDER / "cifar10-train.parquet", FOLDER / "cifar10-test.parquet"


def needed(path: Path = TRAIN) -> Path:
    """Returns the file, or exits with a sentence if it does not exist."""
    if not path.exists():
        sys.exit(
            f"{path} is missing; create it with `lehr data pack torchvision:CIFAR10`, and set LEHR_CIFAR to its folder"
        )
    return path
