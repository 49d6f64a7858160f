"""A schedule of the user's own: a pure function of progress, named by import path."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from lehr import trust
from lehr.durations import RunLength
from lehr.own_code import OwnCodeError, calling, shape
from lehr.schedules.base import BaseSchedule, Curve

EXAMPLE = "my_package.module:name"
GIVEN = ("progress", "step", "total")
"""Parameters that lehr sets, so that a job may not; the function has those of them that it needs."""
FORM = "def name(progress, **options)"
MOST_CHECKED = 20_000  # steps, evenly spread over a longer run; every factor is checked again when it is used


_PATH = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


def _path(value: str) -> str:
    if not _PATH.match(value):
        raise ValueError(f'"{value}" is not an import path; allowed: {EXAMPLE}')
    return value


def _plain(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a plain value; allowed: text, finite numbers, lists and mappings") from None


class Own(BaseSchedule):
    """η(t) = lr × f(progress), f a pure function of the user's own; the other keys are its options.

    f is called with those of these that it has as parameters: `progress`, p from 0 to 1; `step`, t, counted from 0;
    `total`, T. It returns the factor on lr: finite, not negative, and the same each time for the same input.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_plain)]] = Field(init=False)

    name: Annotated[str, AfterValidator(_path)] = Field(
        description=f"{EXAMPLE}, a function of progress from 0 to 1 that returns the factor on lr.",
        examples=[EXAMPLE],
        json_schema_extra={"pattern": _PATH.pattern},
    )

    @property
    def options(self) -> dict[str, Any]:
        """What the function is called with besides what lehr gives it."""
        return dict(self.__pydantic_extra__ or {})

    def function(self) -> Callable[..., Any]:
        """The user's function.

        Raises:
            ValueError: there is none of that name, or it is no function of progress.
            Untrusted: nobody allowed it.
        """
        try:
            found = trust.load(trust.Call("schedule", self.name, self.options))
        except ValueError as error:
            raise ValueError(f'"{self.name}" is not a schedule: {error}') from None
        if not callable(found) or inspect.isclass(found) or not _asked(found):
            raise ValueError(f'"{self.name}" is not a function of progress, step or total; allowed: {FORM}')
        return found

    def curve(self, length: RunLength) -> Curve:
        """The factor on lr as a function of the step.

        Raises:
            ValueError: it is no function of progress, or differs when it is asked again.
            OwnCodeError: it fails at some step, or is negative, not finite or no number there.
        """
        function, options, p, total = self.function(), self.options, self.progress(length), length.total_steps
        asked = _asked(function)

        def curve(step: int) -> float:
            known = {"progress": p(step), "step": step, "total": total}
            given = {name: known[name] for name in asked}
            with calling(self.name, **given):
                said = function(**given, **options)
            try:
                factor = float(said)
            except (TypeError, ValueError):
                raise OwnCodeError(f"{self.name} returned {shape(said)} at step {step}; allowed: a number") from None
            if not math.isfinite(factor) or factor < 0:
                raise OwnCodeError(f"{self.name} returned {factor:g} at step {step}; allowed: a finite number from 0")
            return factor

        for step in range(0, total, max(1, total // MOST_CHECKED)):
            if (one := curve(step)) != (other := curve(step)):
                what = f"{self.name} returned {one!r} and then {other!r} for step {step}"
                raise ValueError(f"{what}; allowed: a pure function, so that a resumed run has the same rates")
        return curve


def _asked(function: Callable[..., Any]) -> list[str]:
    """The parameters of the function that lehr sets."""
    try:
        return [name for name in inspect.signature(function).parameters if name in GIVEN]
    except (TypeError, ValueError):
        return []
