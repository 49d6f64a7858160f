"""What a kind of job is: three functions, and the files that its runs leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lehr.driver.running import Running
from lehr.runs import RunFolder
from lehr.tracking.sink import TRACKERS


@dataclass(frozen=True)
class Kind:
    """One kind of job; `lehr.kinds` has them all.

    Attributes:
        check: raises JobError for whatever can be refused before anything is read or started.
        run: runs the job to its end and leaves the results in the run folder.
        report: writes the run's report.html and pictures again; raises RunError if nothing was recorded yet.
        files, folders: what a run of this kind leaves in its run folder, besides what every run leaves.
    """

    check: Callable[[Any], None]
    run: Callable[[Running], None]
    report: Callable[[RunFolder], None]
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


FILES_OF_EVERY_RUN = (
    "job.yaml", "progress.json", "outcome.json", "stop.json", "failure.json", "lost.json",
    "survey.json", "answers.parquet", "examples.parquet", "curves.png", "report.html", "diagnosis.json", "probes.json",
    *(f"tracking-{name}.json" for name in TRACKERS),
)  # fmt: skip
FOLDERS_OF_EVERY_RUN = ("checkpoints", "steps", "epochs", "events", "model", "tensorboard")
"""What a fresh start deletes in any run folder. `attempts/` stays: workers of an old attempt may still write, and its
number must not be used again. `lease.json` stays too: it belongs to the writer."""
