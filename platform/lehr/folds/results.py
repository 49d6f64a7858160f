"""What folds measured together: the mean of their values with its standard error, and how many of all rows are right.

`folds.json` keeps it. The functions are pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

from lehr.errors import RunError
from lehr.intervals import SHARES, in_words
from lehr.runs import Folder
from lehr.tasks.forms import spoken, spoken_in_full

FILE, FORMAT = "folds.json", 1

ABOUT_ERROR = (
    "The standard error is the spread of the folds divided by the root of their number: how far the mean may be off by "
    "chance. Folds share most of the rows they are trained on, so it is a rough figure, more often too small than too "
    "large; no unbiased one exists (Bengio and Grandvalet, 2004)."
)
ABOUT_INTERVALS = "Of a single fold, and of all rows, ± is the 95 % interval of the rows that it was measured on."
ABOUT_EPOCHS = (
    "Each fold keeps its best epoch, chosen on the rows that it is measured on, which flatters it a little; rows of a "
    "test split are not touched by that."
)


@dataclass(frozen=True)
class Fold:
    """One fold that has ended.

    Attributes:
        folder: its run folder inside the whole, such as `folds/02`.
        value: the best value of the metric, at `epoch`.
        epochs: that it was trained.
        rows: that it was measured on.
        metrics: of its model on the test split, if there is one.
    """

    folder: str
    value: float
    epoch: int | None
    epochs: int
    rows: int
    metrics: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FoldsResult:
    """All folds together.

    Attributes:
        metric: that the folds are judged by, such as `validation_accuracy`.
        folds: in their order.
        measured: of all rows, each by the network that had not seen it: by name, `accuracy` where a row has one class.
        rows: how many rows that are; those whose image cannot be read are not among them.
    """

    metric: str
    folds: tuple[Fold, ...]
    measured: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0

    @property
    def mean(self) -> float:
        return math.fsum(fold.value for fold in self.folds) / len(self.folds)

    @property
    def error(self) -> float:
        """The standard error of the mean: the folds' standard deviation over the root of their number."""
        return standard_error([fold.value for fold in self.folds])

    @property
    def best_epochs(self) -> int | None:
        """The mean of the epochs at which the folds were best, at least 1; None where there is none."""
        known = [fold.epoch for fold in self.folds if fold.epoch is not None]
        return max(1, round(sum(known) / len(known))) if known else None

    @property
    def epochs(self) -> int:
        """That all folds were trained."""
        return sum(fold.epochs for fold in self.folds)

    def in_words(self) -> str:
        """`91.2% ± 0.9`: the mean and its standard error."""
        return with_error(self.mean, self.error, self.metric)

    @property
    def headline(self) -> str:
        """`validation accuracy 91.2% ± 0.9: mean and standard error of 5 folds`."""
        return f"{name_of(self.metric)} {self.in_words()}: mean and standard error of {len(self.folds)} folds"

    def sentences(self) -> list[str]:
        """In sentences; the first is the short answer."""
        found = [f"{self.headline[:1].upper()}{self.headline[1:]}."]
        if "accuracy" in self.measured:
            share = in_words(self.measured["accuracy"], self.rows)
            found.append(
                f"Of all {self.rows:,} rows, each answered by the network that had not seen it: {share} right."
            )
        elif self.measured:
            figures = ", ".join(f"{spoken(name)} {value:.4g}" for name, value in first(self.measured).items())
            found.append(f"Over all {self.rows:,} rows, each predicted by the network that had not seen it: {figures}.")
        return found

    def write(self, folder: Folder) -> None:
        """Replaces folds.json."""
        computed = {"mean": self.mean, "standard_error": self.error}
        folder.write_json(FILE, {"format": FORMAT, **computed, **asdict(self)})

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """That of the run in `folder`. Raises RunError where not all folds have ended, or the file is damaged."""
        try:
            value = folder.read_json(FILE)
        except FileNotFoundError as error:
            raise RunError(f"{folder.uri}: not all folds have ended yet; there is nothing to report") from error
        try:
            folds = tuple(Fold(**{**each, "value": float(each["value"])}) for each in value["folds"])
            measured = {str(name): float(each) for name, each in value["measured"].items()}
            found = cls(str(value["metric"]), folds, measured, int(value["rows"]))
            if len(folds) < 2 or not math.isfinite(found.mean):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{folder.uri}/{FILE}: damaged: it is no result of folds") from error
        return found


def standard_error(values: Sequence[float]) -> float:
    """The sample standard deviation of two or more values over the root of their number."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def with_error(mean: float, error: float, metric: str) -> str:
    """`91.2% ± 0.9` of a share of rows, else `0.3142 ± 0.012`."""
    if metric.removeprefix("averaged_") in SHARES:
        digits = 1 if error >= 0.002 else 2
        return f"{mean:.{digits}%} ± {100 * error:.{digits}f}"
    return f"{mean:.4g} ± {error:.2g}"


def name_of(metric: str) -> str:
    """`validation accuracy`, `validation MAE`."""
    return spoken_in_full(metric)


def first(measured: Mapping[str, float], most: int = 4) -> dict[str, float]:
    """The figures over all names, or the first few."""
    return dict([each for each in measured.items() if "_" not in each[0]][:most] or list(measured.items())[:most])


@dataclass(frozen=True)
class Difference:
    """One result against another on the same folds.

    Attributes:
        mean: of the differences of the folds. error: their standard error.
    """

    mean: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether it is more than twice its standard error: a rough test, since that error is rough."""
        return abs(self.mean) > 2 * self.error


def difference(one: FoldsResult, other: FoldsResult) -> Difference:
    """The first result minus the second, fold by fold: what makes a fold hard is the same for both."""
    each = [a.value - b.value for a, b in zip(one.folds, other.folds, strict=True)]
    return Difference(math.fsum(each) / len(each), standard_error(each))
