"""`kind: recipe`: the steps a good practitioner follows by hand, from an untuned job to a tuned run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lehr.job.base import Job, Seed
from lehr.job.sections import Section
from lehr.job.text import show
from lehr.job.training import Training, seeded

STEPS = ("initial_loss", "overfit", "learning_rate", "coarse", "refine", "last")
"""In the order in which they are done."""

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_BUDGET = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ep|s|min|h|d)\s*", re.ASCII)


def _budget(value: Any) -> str:
    match = _BUDGET.fullmatch(value) if isinstance(value, str) else None
    if match and float(match[1]) > 0:
        return f"{match[1]}{match[2]}"
    raise ValueError(f"{show(value)} is not a budget; allowed: epochs (100ep) or a time (90s, 30min, 2h, 1d)")


def _rates(value: Any) -> list[float]:
    rates = value if isinstance(value, list | tuple) else [value]
    if all(type(rate) in (int, float) and rate > 0 for rate in rates):
        return [float(rate) for rate in rates]
    raise ValueError(f"{show(value)} is not a list of learning rates; allowed: numbers above 0, such as [0.1, 0.03]")


Budget = Annotated[str, BeforeValidator(_budget, json_schema_input_type=str)]
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
        default="100ep",
        description="What steps 3 to 7 may take together: epochs over all trials (100ep), or a time (2h).",
    )
    recipe: RecipeSection = Field(default=RecipeSection(), description="Which steps, and decisions made in advance.")

    @model_validator(mode="after")
    def _base_has_the_seed(self) -> RecipeJob:
        self.__dict__["base"] = seeded(self.base, self.seed)
        return self

    @property
    def allowance(self) -> tuple[float, Literal["ep", "s"]]:
        """The budget as epochs or seconds."""
        match = _BUDGET.fullmatch(self.budget)
        assert match
        amount = float(match[1])
        return (amount, "ep") if match[2] == "ep" else (amount * _SECONDS[match[2]], "s")
