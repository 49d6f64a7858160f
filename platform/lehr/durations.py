"""Durations as strings: `5ep`, `500step`, `10%` (of the whole run). There is no "is it epochs or steps" anywhere.

A duration is a plain value; a `RunLength`, which says how long an epoch and the run are, makes it steps.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Unit = Literal["ep", "step", "%"]
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ep|epochs?|steps?|%)\s*", re.ASCII)
_ALLOWED = "allowed: epochs (5ep), steps (500step) or a share of the run (10%)"
_LONGEST = 1e12


_TIMES = {"d": 86400, "h": 3600, "min": 60, "s": 1}
_TIME = re.compile(r"\s*(?=\d)" + "".join(rf"(?:(\d+(?:\.\d+)?)\s*{unit}\s*)?" for unit in _TIMES), re.ASCII)


def seconds_in(text: str) -> float:
    """The seconds of a time: `45s`, `30min`, `2h`, `1h 30min`, `2d`. Raises ValueError with what is allowed."""
    match = _TIME.fullmatch(text)
    amounts = [float(each or 0) for each in match.groups()] if match else []
    seconds = sum(amount * each for amount, each in zip(amounts, _TIMES.values(), strict=False))
    if not 0 < seconds <= _LONGEST:
        shown = json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)
        raise ValueError(f"{shown} is not a time; allowed: above 0, with its unit: 45s, 30min, 2h, 1h 30min, 2d")
    return seconds


@dataclass(frozen=True)
class RunLength:
    """How long one epoch and the whole run are, in optimizer steps."""

    steps_per_epoch: int
    total_steps: int


@dataclass(frozen=True)
class Duration:
    """A length of training: an amount and its unit (`ep`, `step` or `%` of the run)."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Reads `5ep`, `0.5ep`, `500step` or `10%`. Raises ValueError with the allowed forms."""
        shown = json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{shown} is not a duration; {_ALLOWED}")
        amount, unit = float(match[1]), match[2]
        if amount > _LONGEST:
            raise ValueError(f"{shown} is longer than any run; {_ALLOWED}")
        if unit == "%" and amount > 100:
            raise ValueError(f"{shown} is more than the whole run; allowed: 0% to 100%")
        if unit.startswith("step") and amount != int(amount):
            raise ValueError(f"{shown} is not a whole number of steps")
        return cls(amount, "ep" if unit.startswith("ep") else "step" if unit.startswith("step") else "%")

    def steps(self, length: RunLength) -> int:
        """This duration in whole optimizer steps, rounded half up."""
        per_unit = {"step": 1.0, "ep": length.steps_per_epoch, "%": length.total_steps / 100}[self.unit]
        return math.floor(self.amount * per_unit + 0.5)

    def __bool__(self) -> bool:
        return self.amount > 0

    def __str__(self) -> str:
        return f"{Decimal(repr(self.amount)).normalize():f}{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _validate(cls, value: Any) -> Duration:
        if isinstance(value, Duration):
            return value
        if value == 0 and not isinstance(value, bool):
            return cls(0, "step")
        if not isinstance(value, str):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            problem = f"{value} has no unit; {_ALLOWED}" if is_number else f"not a duration; {_ALLOWED}"
            raise PydanticCustomError("duration", "{problem}", {"problem": problem})
        try:
            return cls.parse(value)
        except ValueError as error:
            raise PydanticCustomError("duration", "{problem}", {"problem": str(error)}) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        pattern = r"^\s*(\d+(\.\d*)?|\.\d+)\s*(ep|epochs?|steps?|%)\s*$"
        return {"type": "string", "pattern": pattern, "examples": ["5ep", "500step", "10%"]}


ZERO = Duration(0, "step")
