"""What an ensemble needs: the training that its members are made of, how they differ, and how they are combined."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from lehr.job.base import Job, Seed
from lehr.job.sections import Averaging, Section
from lehr.job.text import show
from lehr.job.training import Training, seeded

Selection = Literal["equal", "best", "last", "greedy", "fitted"]

CYCLES, MEMBERS = 5, 5  # where the job does not say: the paper's snapshots, and as many independent networks
AVERAGES = (Averaging(kind="ema"), Averaging(kind="swa"))
SELECTION: dict[str, Selection] = {"snapshot": "last", "independent": "equal", "average": "best"}
OF_METHOD = {"cycles": "snapshot", "restart_rate": "snapshot", "members": "independent", "averages": "average"}


class Combination(Section):
    """How the outputs of the members are combined, and which members count; decided on validation rows only."""

    short: ClassVar[str | None] = "select"

    by: Literal["probabilities", "logits"] = Field(
        default="probabilities", description="What is averaged: class probabilities, or the logits before the softmax."
    )
    select: Literal["auto", "equal", "best", "last", "greedy", "fitted"] = Field(
        default="auto",
        description="equal: all members alike; best: the best one; last: the last m, with the best m; greedy: "
        "Caruana's selection; fitted: the weights with the lowest log loss. auto: last for snapshots, equal for "
        "independent members, best for averages.",
    )
    last: int | None = Field(default=None, ge=1, description="last: how many. By default chosen on validation rows.")

    @model_validator(mode="after")
    def _last_of_the_last(self) -> Combination:
        if self.last is not None and self.select not in ("auto", "last"):
            raise ValueError(f"last belongs to select: last, not to {self.select}")
        return self


def _members(value: Any) -> Any:
    if type(value) is int and value >= 2:
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) and item for item in value):
        return value
    if isinstance(value, dict) and set(value) == {"top", "of"}:
        top, of = value["top"], value["of"]
        if type(top) is int and top >= 1 and isinstance(of, str) and of:
            return value
    allowed = (
        "a number of seeds from 2, a list of changes to base ([{model: resnet20}, …]), a list of runs ([run:a, run:b]) "
        "or the best trials of a search ({top: 5, of: run:NAME})"
    )
    raise ValueError(f"{show(value)} does not say what the members are; allowed: {allowed}")


_MembersForm = int | list[dict[str, Any]] | list[str] | dict[str, Any]
Members = Annotated[_MembersForm, BeforeValidator(_members, json_schema_input_type=_MembersForm)]


class EnsembleJob(Job):
    """Train several networks, or one that gives several, and combine them."""

    kind: Literal["ensemble"] = Field(default="ensemble", description="What the job does.")
    seed: Seed = Field(
        default=0, description="Seed of everything random in the trainings, unless base has one of its own."
    )
    method: Literal["snapshot", "independent", "average"] = Field(
        default="snapshot",
        description="snapshot: one run with warm restarts, a member at the end of every cycle; independent: several "
        "runs; average: averages of one run's weights, beside the raw weights.",
    )
    base: Training = Field(default=Training(), description="The training that the members are made of.")
    cycles: int | None = Field(
        default=None, ge=2, description="snapshot: cycles in the run. By default 5, or as a cyclic base.schedule says."
    )
    restart_rate: float | None = Field(
        default=None, gt=0, description="snapshot: the learning rate that each cycle starts at. By default base's."
    )
    members: Members | None = Field(
        default=None,
        description="independent: how many seeds (by default 5); or a list of changes to base; or a list of finished "
        "runs; or {top: 5, of: run:NAME}, the best trials of a search.",
    )
    averages: list[Averaging] | None = Field(
        default=None, min_length=1, description="average: which averages. By default ema and swa."
    )
    combine: Combination = Field(default=Combination(), description="How the members become one.")
    compare: bool = Field(
        default=True, description="Also train one network for as many epochs with a single cosine, to compare with."
    )

    @model_validator(mode="after")
    def _base_has_the_seed(self) -> EnsembleJob:
        self.__dict__["base"] = seeded(self.base, self.seed)
        return self

    @model_validator(mode="after")
    def _options_of_the_method(self) -> EnsembleJob:
        for name, method in OF_METHOD.items():
            if getattr(self, name) is not None and self.method != method:
                raise ValueError(f"{name} belongs to method: {method}, not to {self.method}")
        if self.cycles is not None and self.base.schedule.name == "cyclic":
            raise ValueError("cycles and a cyclic base.schedule exclude each other; allowed: one of them")
        return self

    @property
    def selection(self) -> Selection:
        """How the weights are chosen, `auto` resolved."""
        if self.combine.select == "auto":
            return "last" if self.combine.last else SELECTION[self.method]
        return self.combine.select
