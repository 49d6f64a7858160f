"""The space of a search as pure functions: from points of the unit cube to values of the job's fields, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lehr.errors import JobError
from lehr.job import to_dict
from lehr.job.loading import derive
from lehr.job.search import Dimension, SearchJob
from lehr.job.training import TrainJob

DIGITS = 4  # significant digits of a drawn number, and of its range: a job file stays readable
Values = dict[str, Any]
"""The value of each searched field, by dotted path."""


@dataclass(frozen=True)
class Space:
    """What a search may try."""

    job: SearchJob

    @property
    def dimensions(self) -> Mapping[str, Dimension]:
        return self.job.space

    def at(self, shares: Mapping[str, float]) -> Values:
        """The values at a point of the unit cube.

        Args:
            shares: the point's coordinate in each dimension, from 0 to below 1.
        """
        return {path: value_at(dimension, shares[path]) for path, dimension in self.dimensions.items()}

    def grid(self) -> Iterator[Values]:
        """Every combination, the last dimension fastest. Raises JobError for a range without `points`."""
        axes = [self._axis(path, dimension) for path, dimension in self.dimensions.items()]
        for combination in itertools.product(*axes):
            yield dict(zip(self.dimensions, combination, strict=True))

    def grid_size(self) -> int:
        """How many combinations there are if every condition holds."""
        return math.prod(len(self._axis(path, dimension)) for path, dimension in self.dimensions.items())

    def finite_size(self) -> float:
        """As `grid_size`, with every whole number of a range of them; infinite if there is a range of other numbers."""
        return math.prod(
            math.inf if axis is None else len(axis) for axis in map(_finite_axis, self.dimensions.values())
        )

    def finite(self) -> Iterator[Values]:
        """Every combination of a space whose `finite_size` is finite, the last dimension fastest."""
        axes = [_finite_axis(dimension) or () for dimension in self.dimensions.values()]
        for combination in itertools.product(*axes):
            yield dict(zip(self.dimensions, combination, strict=True))

    def _axis(self, path: str, dimension: Dimension) -> list[Any]:
        if dimension.values is not None:
            return dimension.values
        if dimension.points is None:
            what = f"a grid needs single values, and {dimension.form} is a range; allowed: a list of values, or points"
            raise self.error(path, what)
        shares = [i / (dimension.points - 1) for i in range(dimension.points)]
        return list(dict.fromkeys(value_at(dimension, share) for share in shares))

    def error(self, path: str, what: str) -> JobError:
        """An error about a dimension, which points to its line in the job file."""
        tree = self.job._origin.tree
        where = tree.locate(("space", path)) if tree else ""
        return JobError(what, field=f"space.{path}", where=str(where))

    def trial(self, values: Values, name: str) -> tuple[TrainJob, Values]:
        """The job with these values, and those of them that apply: values whose `when` does not hold are left out.

        Raises:
            JobError: a value is not valid for its field.
        """
        active = {path: value for path, value in values.items() if self.dimensions[path].when is None}
        job = derive(self.job.base, active, parent=self.job, name=name)
        for path, value in values.items():
            if path not in active and condition_holds(self.dimensions[path].when or {}, to_dict(job)):
                active[path] = value
                job = derive(self.job.base, active, parent=self.job, name=name)
        return job, {path: active[path] for path in values if path in active}


def _finite_axis(dimension: Dimension) -> Sequence[Any] | None:
    """All values of a dimension; None if it is a range of other than whole numbers."""
    if dimension.values is not None or dimension.int is None:
        return dimension.values
    low, high = map(int, dimension.ends)
    return range(low, high + 1, dimension.step or 1)


def value_at(dimension: Dimension, share: float) -> Any:
    """The value at a share of the way from the dimension's first value (0) to its last (1)."""
    if (values := dimension.values) is not None:
        return values[min(int(share * len(values)), len(values) - 1)]
    low, high = dimension.ends
    if dimension.form == "int":
        step = dimension.step or 1
        return int(low) + step * min(int(share * ((high - low) // step + 1)), int(high - low) // step)
    if dimension.form == "log_uniform":
        drawn = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        drawn = low + share * (high - low)
    return rounded(drawn, low, high)


def rounded(drawn: float, low: float, high: float) -> float:
    """A number of the range to `DIGITS` significant digits, or to as many of the range's width if that is finer."""
    if not drawn:
        return drawn
    size = min(math.floor(math.log10(abs(drawn))), math.floor(math.log10(high - low)))
    return min(max(round(drawn, DIGITS - 1 - size), low), high)


def position_of(dimension: Dimension, value: Any) -> float:
    """Where a value lies on the dimension's own scale: 0 at its first end, 1 at the last; NaN if it is not there."""
    if (values := dimension.values) is not None:
        return values.index(value) / max(1, len(values) - 1) if value in values else math.nan
    low, high = dimension.ends
    if dimension.form == "log_uniform":
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def condition_holds(when: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Whether a resolved job meets a condition: for each dotted path, one value or a list of allowed values."""
    for path, wanted in when.items():
        found: Any = job
        for part in path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if found not in allowed and not (isinstance(found, Mapping) and found.get("name") in allowed):
            return False
    return True
