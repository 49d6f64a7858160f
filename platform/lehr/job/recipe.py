"""`kind: recipe`: the steps a good practitioner follows by hand, from an untuned job to a tuned run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lehr.job.base import Job, Seed
from lehr.job.sections import Section
from lehr.job.text import show
from lehr.job.training import Training, seeded
from lehr.tasks.forms import USUAL

STEPS = ("initial_loss", "overfit", "learning_rate", "coarse", "refine", "last")
"""In the order in which they are done."""

_MINUTES = {"s": 1 / 60, "min": 1.0, "h": 60.0, "d": 1440.0}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ep|s|min|h|d)\s*", re.ASCII)
_ALLOWED = "allowed: epochs (100ep), a time (90s, 30min, 2h, 1d), or both ({epochs: 60, minutes: 20})"


def _budget(value: Any) -> Any:
    """`100ep` or `2h` as the field that it means; an override of a field over it arrives beside it, as its `name`."""
    if isinstance(value, Mapping) and "name" in value:
        return {**_budget(value["name"]), **{field: value[field] for field in value if field != "name"}}
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return value
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if not match or not float(match[1]):
        raise ValueError(f"{show(value)} is not a budget; {_ALLOWED}")
    amount, unit = float(match[1]), match[2]
    return {"epochs": amount} if unit == "ep" else {"minutes": amount * _MINUTES[unit]}


class RecipeBudget(Section):
    """What a recipe may take. Whatever is used up first ends it."""

    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the training images, of everything from step 2 on."
    )
    minutes: float | None = Field(
        default=None, gt=0, description="Minutes of wall time until the last training has ended, all attempts together."
    )

    @model_validator(mode="after")
    def _says_something(self) -> RecipeBudget:
        if self.epochs is None and self.minutes is None:
            raise ValueError(f"says no limit; {_ALLOWED}")
        return self

    def __str__(self) -> str:
        """`60 epochs`, `20 minutes`, `60 epochs or 20 minutes`."""
        said = {"epoch": self.epochs, "minute": self.minutes}
        return " or ".join(f"{much:g} {unit}{'s' * (much != 1)}" for unit, much in said.items() if much is not None)

    @property
    def seconds(self) -> float | None:
        return None if self.minutes is None else 60 * self.minutes


def _rates(value: Any) -> list[float]:
    rates = value if isinstance(value, list | tuple) else [value]
    if all(type(rate) in (int, float) and rate > 0 for rate in rates):
        return [float(rate) for rate in rates]
    raise ValueError(f"{show(value)} is not a list of learning rates; allowed: numbers above 0, such as [0.1, 0.03]")


Budget = Annotated[RecipeBudget, BeforeValidator(_budget, json_schema_input_type=str | RecipeBudget)]
LearningRates = Annotated[list[float], BeforeValidator(_rates, json_schema_input_type=list[float])]
Decay = Annotated[float, Field(ge=0)]


class RecipeSection(Section):
    """What you decide in advance, instead of the recipe."""

    learning_rates: LearningRates = Field(
        default=[], description="Learning rates of the coarse search. By default those that step 3 finds."
    )
    weight_decays: Annotated[list[Decay], Field(min_length=1)] = Field(
        default=[1e-4, 1e-5, 0.0], description="Weight decays of the coarse search, in order of preference."
    )
    range_test: bool = Field(
        default=False,
        description="Find the learning rate by a range test, one short run in which the rate rises, instead of a short "
        "run at each rate: cheaper, less certain.",
    )
    start_at: Literal["initial_loss", "overfit", "learning_rate", "coarse"] = Field(
        default="initial_loss", description="The first step; those before it are left out."
    )
    stop_after: Literal["initial_loss", "overfit", "learning_rate", "coarse", "refine"] | None = Field(
        default=None,
        description="The last step for now; remove it to continue the same run. By default all steps are done.",
    )


BY_CLASS = ("initial_loss", "overfit")
"""The steps that look at which classes the network gets right."""


class RecipeJob(Job):
    """Check a job step by step, find its hyperparameters, and train it in full."""

    kind: Literal["recipe"] = Field(default="recipe", description="What the job does.")
    seed: Seed = Field(
        default=0, description="Seed of everything random in the trainings, unless base has one of its own."
    )
    base: Training = Field(
        default=Training(), description="The training to tune: the file of a train job, or its sections."
    )
    budget: Budget = Field(
        default=RecipeBudget(epochs=100),
        description="What the recipe may take: epochs over all trials (100ep), a time (2h), or both "
        "({epochs: 60, minutes: 20}).",
    )
    recipe: RecipeSection = Field(default=RecipeSection(), description="Which steps, and decisions made in advance.")

    @property
    def first_step(self) -> str:
        """The first step that is done: those that look at classes are left out where a row has no one class."""
        start = self.recipe.start_at
        return start if self.base.task.name == USUAL or start not in BY_CLASS else "learning_rate"

    @model_validator(mode="after")
    def _base_has_the_seed(self) -> RecipeJob:
        self.__dict__["base"] = seeded(self.base, self.seed)
        return self
