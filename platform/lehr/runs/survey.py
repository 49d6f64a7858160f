"""`survey.json`: what a training's rows and network are like, as it found them at its first step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from lehr.errors import RunError
from lehr.runs.storage import Folder
from lehr.runs.tolerant import tolerant

NAME = "survey.json"


@dataclass(frozen=True)
class SplitSurvey:
    """The rows of a split.

    Attributes:
        rows: of the split.
        counts: rows of each class.
        seen: rows whose pixels were looked at; 0 where images are decoded during training.
        blank: share of these whose pixels are all the same.
        repeated: share of these that equal an earlier one, blank ones left out.
        mean, deviation: of pixel values, from 0 to 1.
    """

    rows: int = 0
    counts: tuple[int, ...] = ()
    seen: int = 0
    blank: float = 0.0
    repeated: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0


@dataclass(frozen=True)
class DataSurvey:
    """Training and validation rows compared.

    Attributes:
        shared: share of the validation rows looked at that equal a training row.
        linear: accuracy of a linear model on validation rows; None where pixels were not looked at.
        held_out: its accuracy on training rows that it was not fitted on, and how many these were.
    """

    train: SplitSurvey = field(default_factory=SplitSurvey)
    validation: SplitSurvey = field(default_factory=SplitSurvey)
    shared: float = 0.0
    linear: float | None = None
    held_out: float | None = None
    held_out_rows: int = 0


@dataclass(frozen=True)
class NetworkSurvey:
    """The network at its first step.

    Attributes:
        parameters: numbers that it has, buffers left out.
        trainable: how many of them the optimizer may change.
        reached: how many of these got a gradient other than zero.
        batch_norm: whether it normalises by statistics of the batch.
        flops: additions and multiplications of a forward pass of one image; 0 where they were not counted.
    """

    parameters: int = 0
    trainable: int = 0
    reached: int = 0
    batch_norm: bool = False
    flops: int = 0


@dataclass(frozen=True)
class Survey:
    """`survey.json`. Only the diagnosis reads it; no decision of a run depends on it."""

    data: DataSurvey = field(default_factory=DataSurvey)
    network: NetworkSurvey = field(default_factory=NetworkSurvey)

    @classmethod
    def read(cls, folder: Folder) -> Survey:
        """That of the run in `folder`; an empty one where there is none, or it is damaged."""
        try:
            return tolerant(cls, folder.read_json(NAME))
        except (FileNotFoundError, RunError):
            return cls()

    def write(self, folder: Folder) -> None:
        """Replaces survey.json."""
        folder.write_json(NAME, asdict(self))
