"""`progress.json` and the outcome of an attempt: how far a run has come, and how it ended.

They have different readers. `progress.json` is replaced about once a second and is only ever *shown*: by the screen,
`lehr status`, a notebook, the metrics. The outcome is written once, when the attempt ends, and *decides*: whether
anything is left to do, and which value an ensemble or a search compares. Both are read tolerantly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from lehr.errors import RunError
from lehr.runs.storage import Folder
from lehr.runs.timestamps import now
from lehr.runs.tolerant import tolerant

State = Literal["new", "running", "finished", "stopped", "failed"]
Ended = Literal["finished", "stopped", "failed"]
ENDED: tuple[Ended, ...] = get_args(Ended)


@dataclass(frozen=True)
class BestValue:
    """The best value so far of the metric that the job is judged by.

    Attributes:
        metric: its name; empty while there is no value.
        value: None before the first evaluation.
        epoch, step: where it was reached, epochs counted from 1; None where they have no meaning.
        trial: folder of the trial that reached it, in a job made of trials.
        loss: on the same rows there, which decides between equal values; None where it is not known, as in older runs.
    """

    metric: str = ""
    value: float | None = None
    epoch: int | None = None
    step: int | None = None
    trial: str | None = None
    loss: float | None = None


@dataclass(frozen=True)
class LiveDiagnosis:
    """What the curves show so far: the name of the finding and a sentence. Empty while they show nothing clearly."""

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

    Before the first, `time` is the start of the attempt: a crash loses at most what was done since then.
    """

    time: float | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training has come. `epoch` is fractional; `epochs_done` counts whole epochs, evaluation included."""

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
    """A small table of text."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Rung:
    """A rung of a search that ends trials early: its epoch, and how many trials reached it and were ended there."""

    epoch: int = 0
    reached: int = 0
    stopped: int = 0


@dataclass(frozen=True)
class Overview:
    """How far a job without training steps of its own has come: one made of trials, or a prediction.

    Attributes:
        headline: the one line that matters most.
        done: share of the job that is done, 0 to 1.
        facts: a few figures, as text by name.
        table: its parts, the best first.
        children: how many runs inside this one are in each state.
        epochs_spent, epochs_saved: over all trials; saved are the epochs that trials ended early did not train.
        rows, unreadable, out: of a prediction: rows written, images that could not be read, and the output folder.
        recipe_step: the current step of a recipe.
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
    """`progress.json`: what the writer of a run last reported.

    Attributes:
        status: as the writer sees it; `RunFolder.status` also detects interrupted runs.
        message: why the run ended, as a sentence.
        best: the best value of the metric that the job is judged by.
        metrics: of the newest complete epoch and, at the end, of the test split.
        measured_rows: by split, the rows on which they were measured; empty in older runs.
        seconds: where the time went: `total`, and its parts by name.
        seconds_left: an estimate; None where there is nothing to base it on.
        seconds_left_least, seconds_left_most: where it may be off by more than a third, from what to what; else None.
            Where only the most is known, such as a budget of time, that alone is told.
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
    measured_rows: Mapping[str, int] = field(default_factory=dict)
    seconds_left_least: float | None = None
    seconds_left_most: float | None = None

    def without_estimate(self) -> Progress:
        """The same, without how long it still takes."""
        return replace(self, seconds_left=None, seconds_left_least=None, seconds_left_most=None)

    @property
    def share_done(self) -> float:
        """Share of the job that is done, 0 to 1."""
        if self.training:
            return self.training.step / self.training.total_steps if self.training.total_steps else 0.0
        return self.overview.done if self.overview else 0.0

    @classmethod
    def read(cls, folder: Folder) -> Progress:
        """The progress of the run in `folder`; that of a new run if there is none, or it cannot be read."""
        try:
            return cls.from_json(folder.read_json("progress.json"))
        except (FileNotFoundError, RunError):
            return cls()

    def write(self, folder: Folder) -> None:
        """Replaces progress.json."""
        folder.write_json("progress.json", self.to_json())

    @classmethod
    def from_json(cls, value: object) -> Progress:
        """From the flat form that the file has."""
        if not isinstance(value, Mapping):
            return cls()
        training = tolerant(TrainingProgress, value) if "total_steps" in value else None
        overview = tolerant(Overview, value) if "headline" in value else None
        return replace(tolerant(cls, value), training=training, overview=overview)

    def to_json(self) -> dict[str, Any]:
        """The flat form that the file has: the fields of `training` and `overview` beside the others."""
        value = asdict(self)
        training, overview = value.pop("training"), value.pop("overview")
        return value | (training or {}) | (overview or {})


@dataclass(frozen=True)
class RunOutcome:
    """`attempts/0003-outcome.json`: how attempt 3 ended, and so the run, if it is the newest attempt.

    Attributes:
        status: `finished`: nothing is left to do; `stopped`: on request, and it can be resumed; `failed`.
        message: why, as a sentence.
        best: the best value of the job's metric; ensembles, searches and transfers compare runs by it.
        metrics: of the model that was kept.
        ended: UTC, ISO 8601.
        measured_rows: by split, the rows on which the metrics were measured; empty in older runs.
    """

    status: Ended
    message: str = ""
    best: BestValue = BestValue()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    ended: str = ""
    measured_rows: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, progress: Progress) -> RunOutcome:
        """The outcome that a last progress reports. Raises ValueError for a run that has not ended."""
        if progress.status not in ENDED:
            raise ValueError(f"a run that is {progress.status} has no outcome")
        rows = progress.measured_rows
        return cls(progress.status, progress.message, progress.best, progress.metrics, now(), rows)

    @classmethod
    def read(cls, folder: Folder, name: str) -> RunOutcome | None:
        """The outcome in a file of a run folder; None if there is none, or it is damaged.

        A finished run that counts as unfinished is resumed from its last checkpoint and ends again: nothing is lost.
        """
        try:
            value = folder.read_json(name)
        except (FileNotFoundError, RunError):
            return None
        return tolerant(cls, value) if isinstance(value, dict) and value.get("status") in ENDED else None

    def write(self, folder: Folder, attempt: int) -> None:
        """Replaces the outcome of an attempt."""
        folder.write_json(outcome_name(attempt), asdict(self))


def outcome_name(attempt: int) -> str:
    """Name of the file that says how an attempt ended; of attempt 0, how a run ended before its first one."""
    return f"attempts/{attempt:04d}-outcome.json"
