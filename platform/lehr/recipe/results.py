"""What the steps of a recipe measure (`Result`), and what follows from it (`Verdict`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict

from lehr.errors import RunError
from lehr.runs import Folder

FILE = "result.json"
UNEQUAL = 0.8  # share of the most frequent class beyond which no better than that is no sign of wrong labels


class FrozenModel(BaseModel):
    """A part of a result. Fields of other versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Result(FrozenModel):
    """What was measured, as `result.json`; a resumed recipe reads it instead of measuring again."""

    def write(self, folder: Folder) -> None:
        """Writes `result.json` into the folder."""
        folder.write_json(FILE, self.model_dump())

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """The result in the folder.

        Raises:
            FileNotFoundError: there is none yet.
            RunError: the file is damaged.
        """
        try:
            return cls.model_validate(folder.read_json(FILE))
        except ValueError as error:
            raise RunError(f"{folder.uri}/{FILE} is damaged; start over with --fresh") from error


@dataclass(frozen=True)
class Verdict:
    """What a step's result means.

    Attributes:
        good: whether the recipe can continue.
        found: what was found, in sentences; where the recipe cannot continue, first the cause.
        decided: what follows.
    """

    good: bool
    found: str
    decided: str


def round_to_digit(value: float) -> float:
    """A positive number rounded to one significant digit."""
    exponent = math.floor(math.log10(value) + 1e-9)
    return float(f"{value / 10**exponent:.0f}e{exponent}")
