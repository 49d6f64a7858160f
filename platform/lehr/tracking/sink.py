"""What a tracker must be able to do, and which there are."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from lehr.errors import JobError

Scalar = str | float | int | bool | None


class Row(NamedTuple):
    """Values at a step."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Described:
    """What a tracker is told of a run when it begins.

    Attributes:
        name: the run's; of a child, with its parent's.
        kind: of its job.
        parameters: the job as resolved, flat.
        notes: the job's.
        folder: the run folder.
        parent: the tracker's own name for the run that this one belongs to; empty for none.
        group: the name of that run, or the run's own.
    """

    name: str
    kind: str
    parameters: Mapping[str, Scalar]
    notes: str
    folder: str
    parent: str = ""
    group: str = ""


class Sink(Protocol):
    """A run in a tracker. Whatever fails in it raises, and is tried again."""

    @property
    def id(self) -> str:
        """The tracker's own name for the run, by which it is opened again."""
        ...

    def log(self, rows: Sequence[Row]) -> None:
        """Adds values, in the order of their steps."""
        ...

    def attach(self, path: Path) -> None:
        """Adds a file, if the tracker keeps files."""
        ...

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        """The run has ended, as `finished`, `stopped`, `failed` or `interrupted`, with these values of its model."""
        ...


@dataclass(frozen=True)
class Tracker:
    """One kind of tracker.

    Attributes:
        package: what is imported, and how it is installed.
        module: the module here whose `open_sink(described, known id or "", run folder)` opens a run in it.
    """

    package: str
    install: str
    module: str

    def check(self, field: str) -> None:
        """Raises JobError where its package is not installed."""
        if importlib.util.find_spec(self.package) is None:
            raise JobError(f"the package {self.package} is not installed: {self.install}", field=field)

    def open(self, described: Described, known: str, folder: Path | None) -> Sink:
        opened: Sink = importlib.import_module(self.module).open_sink(described, known, folder)
        return opened


TRACKERS: dict[str, Tracker] = {
    "tensorboard": Tracker("tensorboardX", "pip install tensorboardX", "lehr.tracking.tensorboard"),
    "mlflow": Tracker("mlflow", "pip install mlflow", "lehr.tracking.mlflow"),
    "wandb": Tracker("wandb", "pip install wandb", "lehr.tracking.wandb"),
    "trackio": Tracker("trackio", "pip install trackio", "lehr.tracking.trackio"),
}
