"""`kind: search`: which fields of a training are tried with which values, and what ends a trial early."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from lehr.job.base import Job, Seed
from lehr.job.sections import Section
from lehr.job.text import show
from lehr.job.training import Training

FORMS = ("grid", "choice", "uniform", "log_uniform", "int")
Ends = tuple[float, float]
WholeEnds = tuple[int, int]


def _pair(value: Any, of: type | tuple[type, ...]) -> Ends | None:
    """Two numbers, the lower one first; None for anything else."""
    ends: list[float] = list(value) if isinstance(value, list | tuple) and len(value) == 2 else []
    whole = all(isinstance(end, of) and not isinstance(end, bool) and math.isfinite(float(end)) for end in ends)
    return (ends[0], ends[1]) if ends and whole and ends[0] < ends[1] else None


def _range(value: Any) -> Ends:
    if ends := _pair(value, (int, float)):
        return float(ends[0]), float(ends[1])
    raise ValueError(f"{show(value)} is not a range; allowed: [low, high] with low below high, such as [0.8, 0.99]")


def _log_range(value: Any) -> Ends:
    low, high = _range(value)
    if low <= 0:
        raise ValueError(f"{show(value)} cannot be sampled on a log scale; allowed: [low, high] with low above 0")
    return low, high


def _whole_range(value: Any) -> WholeEnds:
    ends = _pair(value, (int, float))
    if ends and all(float(end).is_integer() for end in ends):
        return int(ends[0]), int(ends[1])
    raise ValueError(f"{show(value)} is not a range of whole numbers; allowed: [low, high], such as [8, 64]")


def _values(value: Any) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    what = "[] has no values" if value == [] else f"{show(value)} is not a list of values"
    raise ValueError(f"{what}; allowed: a list with at least one, such as [0.01, 0.1]")


Values = Annotated[list[Any], BeforeValidator(_values, json_schema_input_type=list[Any])]
Range = Annotated[Ends, BeforeValidator(_range, json_schema_input_type=list[float])]
LogRange = Annotated[Ends, BeforeValidator(_log_range, json_schema_input_type=list[float])]
WholeRange = Annotated[WholeEnds, BeforeValidator(_whole_range, json_schema_input_type=list[int])]
Points = Annotated[int, Field(ge=2)]
Step = Annotated[int, Field(ge=1)]


class Dimension(Section):
    """The values that one field of the job may take. A bare list is a grid."""

    grid: Values | None = Field(default=None, description="These values, in this order.")
    choice: Values | None = Field(default=None, description="One of these values; whole sections are allowed.")
    uniform: Range | None = Field(default=None, description="A number between two ends.")
    log_uniform: LogRange | None = Field(default=None, description="A number between two ends, sampled on a log scale.")
    int: WholeRange | None = Field(default=None, description="A whole number from low to high, both included.")
    step: Step | None = Field(default=None, description="Of int: only low, low + step, low + 2 step, … are drawn.")
    points: Points | None = Field(default=None, description="Of a range: how many values a grid takes from it.")
    when: dict[str, Any] | None = Field(
        default=None, description="Only where other fields have these values: {optimizer.name: sgd}."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"grid": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_form(self) -> Dimension:
        said = [form for form in FORMS if getattr(self, form) is not None]
        if len(said) != 1:
            raise ValueError(f"says {' and '.join(said) or 'no values'}; allowed: exactly one of {', '.join(FORMS)}")
        if self.points is not None and said[0] in ("grid", "choice"):
            raise ValueError(f"points belongs to a range, not to {said[0]}")
        if self.step is not None and said[0] != "int":
            raise ValueError(f"step belongs to int, not to {said[0]}")
        if self.step is not None and self.int is not None and self.step > self.int[1] - self.int[0]:
            raise ValueError(f"a step of {self.step} is longer than the range {show(self.int)}")
        return self

    @property
    def form(self) -> str:
        """grid, choice, uniform, log_uniform or int."""
        return next(form for form in FORMS if getattr(self, form) is not None)

    @property
    def values(self) -> list[Any] | None:
        """The values one by one; None for a range."""
        return self.grid if self.grid is not None else self.choice

    @property
    def ends(self) -> Ends:
        """The two ends of a range. Those of int are whole numbers, the upper one the last that its steps reach."""
        if self.int is not None:
            low, high = self.int
            return low, high - (high - low) % (self.step or 1)
        ends: Ends = self.uniform or self.log_uniform  # type: ignore[assignment]
        return ends


def _flat(space: Any) -> Any:
    """`{optimizer: {lr: …}}`, as overrides say it, as `{optimizer.lr: …}`."""
    if not isinstance(space, Mapping):
        return space
    flat: dict[str, Any] = {}
    for key, value in space.items():
        if isinstance(value, Mapping) and value and not set(value) & {*FORMS, "step", "points", "when"}:
            flat |= {f"{key}.{path}": inner for path, inner in _flat(value).items()}
        elif value is not None:
            flat[str(key)] = value
    return flat


class Stopping(Section):
    """When a trial is ended because others were better at the same point."""

    short: ClassVar[str | None] = "name"

    name: Literal["asha", "median", "none"] = Field(
        default="asha",
        description="asha: only the best share continues past a rung; median: no trial below the median continues.",
    )
    first: int = Field(
        default=1,
        ge=1,
        description="Epochs before a trial can be ended: the first rung. By default two whole epochs after the warmup "
        "of the base.",
    )
    factor: int = Field(
        default=3, ge=2, description="asha: one trial in this many continues; the next rung is this many times later."
    )
    least: int = Field(default=5, ge=2, description="median: how many trials must have come as far to compare with.")


class Budget(Section):
    """What the search may cost. Whatever is used up first ends it."""

    short: ClassVar[str | None] = "trials"

    trials: int | None = Field(
        default=None,
        ge=1,
        description="Trials. By default the whole grid, else 16; fewer where there are fewer combinations.",
    )
    epochs: int | None = Field(default=None, ge=1, description="Epochs of all trials together.")
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="Minutes of wall time, all attempts together. A trial that they cut short counts.",
    )


def first_rung(base: Training) -> int:
    """The first rung where the job does not say: two whole epochs after the warmup, before the last epoch.

    While the rate still rises nothing can be compared, and in the first epoch after it low rates are ahead that the
    higher ones overtake in the second (`tests/benchmarks/search_methods.py`).
    """
    warmup, epochs = base.schedule.warmup, base.train.epochs
    share = {"ep": 1.0, "%": epochs / 100, "step": 0.0}[warmup.unit]  # how long an epoch is, is not known here
    return min(2 + math.ceil(warmup.amount * share), max(1, epochs - 1))


class SearchJob(Job):
    """Try many values of the fields of a training, and end those that fall behind."""

    kind: Literal["search"] = Field(default="search", description="What the job does.")
    seed: Seed = Field(
        default=0, description="Seed of the values that are drawn. That of the trainings is base.seed, the same in all."
    )
    base: Training = Field(default=Training(), description="The training: a file or its sections.")
    space: Annotated[
        dict[str, Dimension], BeforeValidator(_flat, json_schema_input_type=dict[str, Dimension | list[Any]])
    ] = Field(
        default={},
        description="The values of each field that is searched, by its dotted path: "
        "{optimizer.lr: {log_uniform: [0.001, 1]}, schedule: {choice: [cosine, linear]}}.",
    )
    method: Literal["random", "grid", "quasi_random", "tpe"] = Field(
        default="random",
        description="How values are chosen. quasi_random: spread evenly; tpe: where results were good (Optuna).",
    )
    stopping: Stopping = Field(default=Stopping(), description="What ends a trial early.")
    budget: Budget = Field(default=Budget(), description="What the search may cost: trials, epochs, minutes.")

    @model_validator(mode="after")
    def _first_rung_after_warmup(self) -> SearchJob:
        if "first" not in self.stopping.model_fields_set:
            self.__dict__["stopping"] = self.stopping.model_copy(update={"first": first_rung(self.base)})
        return self
