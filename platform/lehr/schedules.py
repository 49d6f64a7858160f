"""Learning-rate schedules: each is one pure function of progress through the run.

The rate at step t is `lr × decay(progress) × warmup × cooldown`, where progress runs from 0 at the first step towards
1 at the end of the run. Nothing is remembered between steps: a resumed run asks for step t and gets the same rate as a
run that never stopped. Steps count from 0 and are optimizer steps; the rate of step t is what the update of step t uses.

To add a schedule: write a class with its options as fields and `decay`, and add it to the end of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from lehr.durations import ZERO, Clock, Duration


class BaseSchedule(BaseModel):
    """What every schedule has: a linear warmup and a linear cooldown, multiplied over its own decay."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    warmup: Duration = Field(
        default=ZERO, description="Linear rise from lr/(warmup steps) to the full rate. A duration."
    )
    cooldown: Duration = Field(default=ZERO, description="Linear fall to zero at the very end of the run. A duration.")

    def decay(self, step: int, clock: Clock) -> float:
        """The factor on the learning rate at `step`, before warmup and cooldown."""
        raise NotImplementedError

    def bind(self, clock: Clock) -> Callable[[int], float]:
        """The factor on the base rate as a function of the step.

        Raises:
            ValueError: warmup and cooldown together are longer than the run.
        """
        warmup, cooldown = self.warmup.steps(clock), self.cooldown.steps(clock)
        if warmup + cooldown > clock.total_steps:
            parts = f"warmup {self.warmup} is {warmup} steps" + (
                f" and cooldown {self.cooldown} is {cooldown}" if cooldown else ""
            )
            raise ValueError(f"{parts}, longer than the run of {clock.total_steps} steps")

        def factor(step: int) -> float:
            rise = (step + 1) / warmup if step < warmup else 1.0
            left = clock.total_steps - step
            fall = left / cooldown if left < cooldown else 1.0
            return self.decay(step, clock) * rise * fall

        return factor


def progress(step: int, clock: Clock, skip: int = 0) -> float:
    """The share of the run done before `step`, in [0, 1], not counting its first `skip` steps."""
    span = clock.total_steps - skip
    return min(max((step - skip) / span, 0.0), 1.0) if span > 0 else 1.0


class Constant(BaseSchedule):
    """eta_t = lr."""

    name: Literal["constant"] = "constant"

    def decay(self, step: int, clock: Clock) -> float:
        return 1.0


class Cosine(BaseSchedule):
    """eta_t = lr × (final + (1 − final) × (1 + cos(π p)) / 2), p the progress after warmup.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without the restarts.
    """

    name: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, le=1, description="The rate at the very end, as a share of lr.")

    def decay(self, step: int, clock: Clock) -> float:
        p = progress(step, clock, skip=self.warmup.steps(clock))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * p)) / 2


SCHEDULES: dict[str, type[BaseSchedule]] = {"constant": Constant, "cosine": Cosine}


class _ShortForm:
    """A bare name stands for the schedule with its defaults; no name means constant, and null a field's default."""

    @staticmethod
    def expand(value: Any) -> Any:
        if isinstance(value, dict):
            said = {
                key: item for key, item in value.items() if item is not None or key not in BaseSchedule.model_fields
            }
            return {**said, "name": said.get("name") or "constant"}
        return {"name": value} if isinstance(value, str) else value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "enum": list(SCHEDULES)}, handler(schema)]}


Schedule = Annotated[
    Annotated[Constant | Cosine, Field(discriminator="name")],
    BeforeValidator(_ShortForm.expand),
    _ShortForm(),
]
