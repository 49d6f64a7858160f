"""What is different about runs of format 1, in one place; FORMAT.md says what changed.

Format 1 had no outcome.json: progress.json also decided how a run had ended. Its attempts did not say how many steps
an epoch has. Fields of its jobs may have older names (`lehr.job.with_new_names`).
"""

from __future__ import annotations

from dataclasses import replace

from lehr.runs.progress import ENDED, Progress, RunOutcome
from lehr.runs.storage import Folder


def outcome(folder: Folder) -> RunOutcome | None:
    """How a run of format 1 ended; None if it did not."""
    progress = Progress.read(folder)
    return RunOutcome.of(progress) if progress.status in ENDED else None


def begin(folder: Folder) -> None:
    """Removes what the last attempt of format 1 left about its end."""
    if (progress := Progress.read(folder)).status in ENDED:
        replace(progress, status="running").write(folder)


def steps_per_epoch(folder: Folder) -> int | None:
    """Optimizer steps of an epoch; None where no attempt of a training has reported them."""
    training = Progress.read(folder).training
    return training.total_steps // training.epochs if training and training.epochs else None
