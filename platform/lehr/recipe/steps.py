"""The steps of a recipe: what they are called, and the folder of each. No other module knows these folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

StepName = Literal["initial_loss", "overfit", "learning_rate", "coarse", "refine", "last"]

STEP_COUNT = 7  # step 6, the review of the learning curves, trains nothing and so has no folder
_NUMBERS: dict[StepName, int] = {
    "initial_loss": 1,
    "overfit": 2,
    "learning_rate": 3,
    "coarse": 4,
    "refine": 5,
    "last": 7,
}
_TITLES: dict[StepName, str] = {
    "initial_loss": "Initial loss",
    "overfit": "Overfit a small sample",
    "learning_rate": "Find the learning rate",
    "coarse": "Coarse search",
    "refine": "Refined search",
    "last": "Final training",
}
_FOLDERS: dict[StepName, str] = {
    "initial_loss": "recipe/1-initial-loss",
    "overfit": "recipe/2-overfit",
    "learning_rate": "recipe/3-learning-rate",
    "coarse": "recipe/4-coarse",
    "refine": "recipe/5-refine",
    "last": "recipe/7-last",
}


@dataclass(frozen=True)
class StepId:
    """One step of a recipe, or one round of the step `refine`.

    Attributes:
        round: of `refine`, from 1; 0 for every other step.
    """

    name: StepName
    round: int = 0

    @property
    def number(self) -> int:
        """1 to `STEP_COUNT`."""
        return _NUMBERS[self.name]

    @property
    def title(self) -> str:
        return _TITLES[self.name]

    def __str__(self) -> str:
        """`step 4, coarse search`."""
        return f"step {self.number}, {self.title.lower()}"

    @property
    def folder(self) -> str:
        """Where its result is, inside the recipe's run folder: `recipe/5-refine-2`."""
        return _FOLDERS[self.name] + (f"-{self.round}" if self.round else "")

    @classmethod
    def of_folder(cls, folder: str) -> StepId | None:
        """The step to which a folder inside the recipe's run folder belongs; None if it belongs to no step."""
        for name, own in _FOLDERS.items():
            if match := re.fullmatch(rf"{own}(?:-(\d+))?(?:/.+)?", folder):
                return cls(name, int(match[1] or 0) if name == "refine" else 0)
        return None

    def trial_folder(self, number: int = 0) -> str:
        """The run folder of one of its trials, inside that of the recipe. Trials of searches: `search_trial_folder`."""
        if self.name == "learning_rate":
            return f"{self.folder}/{number:04}"
        return self.folder + (f"-{number}" if number else "")


def search_trial_folder(number: int) -> str:
    """The run folder of a trial of steps 4 and 5, counted over all rounds: it may continue in a later round."""
    return f"trials/{number:04}"
