"""Which combinations of values a search tries, each once: a finite space ends when all of them were tried."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from lehr.job import to_dict
from lehr.job.search import SearchJob
from lehr.search.samplers import PastTrial, drawn_values, random_values, tpe_values
from lehr.search.space import Space, Values

TRIALS = 16  # where the job does not say
COUNTED = 256  # combinations, counted before the search begins: each takes a few milliseconds
LARGEST_FINITE = 10_000  # combinations; the values of a larger space are only drawn
REPEATS = 50  # draws in a row that repeat earlier trials; then what is left of a finite space is tried in order
APART = 1_000_000  # between the numbers of the draws that take the place of one that repeats an earlier trial


class Combinations:
    """Draws the values of one trial after the other, by the job's method, and never the same combination twice.

    Combinations are the same if they train the same: those that differ only in values that do not apply, or that are
    spelt differently, count as one. What is drawn is a function of the seed and of the trials before.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.method, self.seed = space, space.job.method, space.job.seed
        self._taken: set[str] = set()

    def take(self, values: Values) -> bool:
        """Notes the values of a trial. Returns whether they are new."""
        known = combination(self.space, values)
        new = known not in self._taken
        self._taken.add(known)
        return new

    def next(self, number: int, past: Sequence[PastTrial] = ()) -> Values | None:
        """Values that no earlier trial had, for trial `number`; None if all were tried.

        Args:
            past: what tpe knows of earlier trials.
        """
        return next((values for values in self._proposed(number, past) if self.take(values)), None)

    def _proposed(self, number: int, past: Sequence[PastTrial]) -> Iterator[Values]:
        if self.method == "grid":
            yield from self.space.grid()
            return
        if self.method == "tpe":
            yield tpe_values(self.space, self.seed, number, past)
        else:
            yield drawn_values(self.space, self.seed, number)
        for draw in range(1, REPEATS):
            yield random_values(self.space, self.seed, number + draw * APART)
        yield from self.space.finite() if self.space.finite_size() <= LARGEST_FINITE else ()


def combination(space: Space, values: Values) -> str:
    """What tells two trials apart: the job that they train. Raises JobError where a value is not valid."""
    job = to_dict(space.trial(values, "trial")[0])
    return json.dumps({key: value for key, value in job.items() if key != "name"}, sort_keys=True, default=str)


def grid_combinations(space: Space) -> list[Values]:
    """The grid in order, each trial once."""
    combinations = Combinations(space)
    return [values for values in space.grid() if combinations.take(values)]


def count_combinations(space: Space) -> int | None:
    """How many different trials a space without ranges has; None for one that is too large to count, or not finite."""
    if space.finite_size() > COUNTED:
        return None
    combinations = Combinations(space)
    return sum(combinations.take(values) for values in space.finite())


def max_trials(job: SearchJob, grid: Sequence[Values] | None) -> int | None:
    """The largest number of trials; None where only epochs or minutes end the search.

    Raises:
        JobError: the grid is larger than the budget.
    """
    budget = job.budget
    if grid is None:
        most = budget.trials or (TRIALS if budget.epochs is None and budget.minutes is None else None)
        there_are = count_combinations(Space(job))
        return there_are if most is None else min(most, there_are or most)
    if budget.trials is not None and len(grid) > budget.trials:
        what = f"the grid has {len(grid)} combinations, more than the budget of {budget.trials} trials"
        raise job.error("budget.trials", f"{what}; use fewer values, or method: random")
    return len(grid)
