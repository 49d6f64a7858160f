"""CIFAR-10 as Parquet files, where this machine has them: the folder that LEHR_CIFAR names, else `../shared/data`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("LEHR_CIFAR") or Path(__file__).parents[3] / "shared/data")
TRAIN, TEST = FOLDER / "cifar10-train.parquet", FOLDER / "cifar10-test.parquet"


def needed(path: Path = TRAIN) -> Path:
    """The file; ends the benchmark with a sentence where it is not there."""
    if not path.exists():
        sys.exit(f"{path} is missing; `lehr data pack torchvision:CIFAR10` makes it, LEHR_CIFAR names its folder")
    return path
