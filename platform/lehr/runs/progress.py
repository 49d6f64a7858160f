"""`progress.json` and `outcome.json`: how far a run is, and how it ended.

The two have different readers. `progress.json` is replaced about once a second and is only ever *shown*: by the screen,
`lehr status`, a notebook, the metrics. `outcome.json` is written once, when the run ends, and *decides*: whether there is
anything left to do, which value an ensemble or a search compares. A reader of progress takes what it can: a field that is
damaged, or that another version of lehr wrote, reads as if it were missing.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lehr.errors import RunError
from lehr.runs.storage import Folder
from lehr.runs.timestamps import now

State = Literal["new", "running", "finished", "stopped", "failed"]
Ended = Literal["finished", "stopped", "failed"]
ENDED: tuple[Ended, ...] = get_args(Ended)
T = TypeVar("T")


@dataclass(frozen=True)
class BestValue:
    """The best value of the metric that counts.

    Attributes:
        metric: its name; empty where there is none yet.
        value: None before the first.
        epoch, step: where it was reached, epochs counted from 1; None where that has no meaning.
        trial: folder of the trial that reached it, in a job made of trials.
    """

    metric: str = ""
    value: float | None = None
    epoch: int | None = None
    step: int | None = None
    trial: str | None = None


@dataclass(frozen=True)
class LiveDiagnosis:
    """What the curves so far make clear: its name, and a sentence for people. Empty where nothing is clear."""

    name: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class RecentSteps:
    """Means over the steps since the workers last synchronised; seconds are per step."""

    gradient_norm: float | None = None
    step_seconds: float | None = None
    examples_per_second: float | None = None
    communication_seconds: float | None = None


@dataclass(frozen=True)
class CheckpointProgress:
    """The newest checkpoint: when it was saved (seconds since 1970), and its size in bytes.

    Before the first, `time` is when the attempt began: what a crash would cost is at most what was done since then.
    """

    time: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is. `epoch` has a fraction; `epochs_done` are whole epochs with their evaluation."""

    attempt: int = 0
    workers: int = 1
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    epochs: int = 0
    epochs_done: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    diagnosis: LiveDiagnosis = LiveDiagnosis()
    examples_per_second: float | None = None
    recent: RecentSteps = RecentSteps()
    checkpoint: CheckpointProgress = CheckpointProgress()
    skipped_images: int = 0
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class Table:
    """A small table of texts."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Rung:
    """One rung of a search that ends trials early: the epoch of it, and how many trials reached it and stopped there."""

    epoch: int = 0
    reached: int = 0
    stopped: int = 0


@dataclass(frozen=True)
class Overview:
    """How far a job without training steps of its own is: one made of trials, or a prediction.

    Attributes:
        headline: the one line that matters most.
        done: share that is done, 0 to 1.
        facts: a few figures, name to text.
        table: its parts, the best ones first.
        children: how many runs within it are in each state.
        epochs_spent, epochs_saved: over all trials; saved are those that trials which ended early did not train.
        rows, unreadable, out: of a prediction: rows written, images that could not be read, and where they are.
        recipe_step: the step that a recipe is at.
        verdict: what the evaluation of an ensemble means, in sentences.
    """

    headline: str = ""
    done: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict)
    table: Table = Table()
    children: Mapping[str, int] = field(default_factory=dict)
    epochs_spent: int | None = None
    epochs_saved: int | None = None
    rungs: tuple[Rung, ...] = ()
    trials_per_minute: float | None = None
    rows: int | None = None
    unreadable: int | None = None
    out: str = ""
    recipe_step: str = ""
    verdict: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """`progress.json`: what the writer of a run last told of it.

    Attributes:
        status: as the writer sees it; `RunFolder.status` also knows runs that were interrupted.
        message: why it ended, as a sentence for people.
        best: the best value of the metric that counts.
        metrics: those of the newest whole epoch, later also of the test.
        seconds: where the time went: `total`, and its parts by name.
        seconds_left: an estimate; None where there is nothing to go by.
        updated: when this was written, in seconds since 1970.
        training: of a training.
        overview: of every other kind of job.
    """

    status: State = "new"
    message: str = ""
    best: BestValue = BestValue()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    updated: float | None = None
    training: TrainingProgress | None = None
    overview: Overview | None = None

    @property
    def share_done(self) -> float:
        """Share of the job that is done, 0 to 1."""
        if self.training:
            return self.training.step / self.training.total_steps if self.training.total_steps else 0.0
        return self.overview.done if self.overview else 0.0

    @classmethod
    def read(cls, folder: Folder) -> Progress:
        """The progress of the run in `folder`; that of a new run where there is none, or none that can be read."""
        try:
            return cls.from_json(folder.read_json("progress.json"))
        except (FileNotFoundError, RunError):
            return cls()

    def write(self, folder: Folder) -> None:
        """Replaces progress.json."""
        folder.write_json("progress.json", self.to_json())

    @classmethod
    def from_json(cls, told: Any) -> Progress:
        """From the flat form that the file has."""
        if not isinstance(told, dict):
            return cls()
        known = _tolerant(cls, told)
        training = _tolerant(TrainingProgress, told) if "total_steps" in told else None
        overview = _tolerant(Overview, told) if "headline" in told else None
        return replace(known, training=training, overview=overview)

    def to_json(self) -> dict[str, Any]:
        """The flat form that the file has: the fields of `training` and `overview` beside the others."""
        told = asdict(self)
        training, overview = told.pop("training"), told.pop("overview")
        return told | (training or {}) | (overview or {})


@dataclass(frozen=True)
class RunOutcome:
    """`outcome.json`: how a run ended. It is there from the end of an attempt until the next one begins.

    Attributes:
        status: `finished`: nothing is left to do; `stopped`: it was asked to, and can be resumed; `failed`.
        message: why, as a sentence for people.
        best: the best value of the metric that counts; what ensembles, searches and transfers compare.
        metrics: of the model that was kept.
        ended: UTC, ISO 8601.
    """

    status: Ended
    message: str = ""
    best: BestValue = BestValue()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    ended: str = ""

    @classmethod
    def of(cls, progress: Progress) -> RunOutcome:
        """The outcome that a last progress tells of. Raises ValueError for a run that is not over."""
        if progress.status not in ENDED:
            raise ValueError(f"a run that is {progress.status} has no outcome")
        return cls(progress.status, progress.message, progress.best, progress.metrics, now())

    @classmethod
    def read(cls, folder: Folder) -> RunOutcome | None:
        """How the run in `folder` ended; None for one that did not end, and where the file is damaged.

        A run that is taken for unfinished is resumed from its last checkpoint, and ends again: nothing is lost.
        """
        try:
            told = folder.read_json("outcome.json")
        except (FileNotFoundError, RunError):
            return None
        known = isinstance(told, dict) and told.get("status") in ENDED
        return _tolerant(cls, told) if known else None

    def write(self, folder: Folder) -> None:
        """Replaces outcome.json."""
        folder.write_json("outcome.json", asdict(self))


def _tolerant(kind: type[T], told: Mapping[str, Any]) -> T:
    """A dataclass of what fits its fields; what does not fit is left at its default."""
    found = {}
    for name, hint in _hints(kind).items():  # type: ignore[arg-type]  # a class is hashable
        if name in told:
            value = _fit(hint, told[name])
            if value is not _MISFIT:
                found[name] = value
    return kind(**found)


_MISFIT: Any = object()


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def _fit(hint: Any, value: Any) -> Any:
    """The value as the type hint has it, or `_MISFIT`."""
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _tolerant(hint, value) if isinstance(value, dict) else _MISFIT
    if origin in (Union, types.UnionType):
        if value is None:
            return None if type(None) in inner else _MISFIT
        found = (_fit(each, value) for each in inner if each is not type(None))
        return next((each for each in found if each is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if value in inner else _MISFIT
    if origin is tuple:
        return _all_fit(inner[0], value) if isinstance(value, list | tuple) else _MISFIT
    if origin is not None:  # Mapping[str, …]
        if not isinstance(value, dict):
            return _MISFIT
        pairs = {str(name): _fit(inner[1], each) for name, each in value.items()}
        return {name: each for name, each in pairs.items() if each is not _MISFIT}
    if hint is float:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _MISFIT
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _MISFIT
    return value if isinstance(value, hint) else _MISFIT


def _all_fit(hint: Any, values: Any) -> Any:
    found = tuple(_fit(hint, each) for each in values)
    return _MISFIT if any(each is _MISFIT for each in found) else found
