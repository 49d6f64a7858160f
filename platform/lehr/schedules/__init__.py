"""Learning-rate schedules: each is one pure function of progress through the run.

The learning rate at step t is `lr × curve(t) × warmup(t) × cooldown(t)`. Steps are optimizer steps and count from 0;
update t uses the rate of step t. Schedules have no state: a resumed run asks for step t and gets the same rate as a run
that never stopped.

In the formulas T is the number of steps in the run, w the number of warmup steps, p = (t − w) / (T − w) the progress
after the warmup, from 0 to 1, and e the option `end_factor`, a share of lr. SCHEDULES.md says when to use which.

To add a schedule: write a class with its options as fields and its `curve` in `shapes.py`, and add it to
`AnySchedule` and `_Tagged`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, get_args

from pydantic import BeforeValidator, Discriminator, GetJsonSchemaHandler, Tag
from pydantic_core import CoreSchema

from lehr.schedules.base import TENTH, BaseSchedule, Curve, fit, linear_rule, shortened
from lehr.schedules.own import EXAMPLE, GIVEN, Own
from lehr.schedules.shapes import (
    WSD,
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    OneCycle,
    Polynomial,
    Step,
)

__all__ = [
    "GIVEN",
    "SCHEDULES",
    "TENTH",
    "WSD",
    "AnySchedule",
    "BaseSchedule",
    "Constant",
    "Cosine",
    "Curve",
    "Cyclic",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "OneCycle",
    "Own",
    "Polynomial",
    "Schedule",
    "Step",
    "fit",
    "linear_rule",
    "shortened",
]

AnySchedule: TypeAlias = (
    Constant | Step | Cosine | Linear | InverseSqrt | Polynomial | Exponential | Cyclic | OneCycle | WSD | Own
)
SCHEDULES: dict[str, type[BaseSchedule]] = {
    cls.model_fields["name"].default: cls for cls in get_args(AnySchedule) if cls is not Own
}


class _ShortForm:
    """A bare name is the schedule with its defaults; no name means constant, and null the default of a field."""

    @staticmethod
    def expand(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("name") or "constant"
            known = SCHEDULES.get(name, Own) if isinstance(name, str) else BaseSchedule
            fields = known.model_fields
            return {**{key: item for key, item in value.items() if item is not None or key not in fields}, "name": name}
        return {"name": value} if isinstance(value, str) else value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        path = Own.model_json_schema()["properties"]["name"]
        named = {"type": "string", "enum": list(SCHEDULES)}
        own = {"type": "string", **{key: path[key] for key in ("pattern", "description", "examples")}}
        return {"anyOf": [named, own, handler(schema)]}


def _tag(value: Any) -> Any:
    """By which a schedule is told from the others: its name, and one for all names that are import paths."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return EXAMPLE if isinstance(name, str) and ":" in name else name


_Tagged: TypeAlias = (
    Annotated[Constant, Tag("constant")]
    | Annotated[Step, Tag("step")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[InverseSqrt, Tag("inverse_sqrt")]
    | Annotated[Polynomial, Tag("polynomial")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Cyclic, Tag("cyclic")]
    | Annotated[OneCycle, Tag("one_cycle")]
    | Annotated[WSD, Tag("wsd")]
    | Annotated[Own, Tag(EXAMPLE)]
)

Schedule = Annotated[
    Annotated[_Tagged, Discriminator(_tag)],
    BeforeValidator(_ShortForm.expand),
    _ShortForm(),
]
