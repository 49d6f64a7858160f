"""Step 5, refine: a finer space around the best, trained for longer at a constant rate; what was trained goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lehr.recipe.coarse import Search
from lehr.recipe.trial_results import Round, Setting, best_of, pool, ranked

EPOCHS = 20  # of a trial at most, unless the diagnosis asks for more
SHARE = 0.6  # of what is left for the search, in one round
KEPT = 2  # of the best so far that go on

RATE_STEPS = (2.0, 1.4)  # between neighbouring rates in the first round, and in those after it
DECAY_STEPS = (3.0, 2.0)


def around(rounds: Sequence[Round], wanted: Sequence[Setting], left: float, longest: int = EPOCHS) -> Search:
    """What the next round trains.

    Args:
        rounds: those so far, the coarse one first.
        wanted: settings that the last look at the curves asks for, the most wanted first.
        left: passes over the training images that the search may still take.
        longest: epochs of a trial at most.

    Returns:
        The best so far, then what is wanted, then the neighbours of the best; as many as can each be trained for
        longer than in the round before. No settings where not even the best can.
    """
    trained = ranked(pool(rounds).values(), rounds[-1].lower)
    kept = [each.setting for each in trained[:KEPT] if math.isfinite(each.best(rounds[-1].lower))]
    settings = list(dict.fromkeys([*kept[:1], *wanted, *neighbours(rounds), *kept[1:]]))
    done = {each.setting: each.epochs for each in trained}
    least = max((each.epochs for each in trained[:1]), default=0)
    share = left if left < 2 * (least + 1) else max(SHARE * left, float(least + 1))
    while settings:
        epochs = min(longest, math.floor((share + sum(done.get(each, 0) for each in settings)) / len(settings)))
        if epochs > least:
            return Search(tuple(settings), epochs)
        settings.pop()
    return Search((), 0)


def neighbours(rounds: Sequence[Round]) -> list[Setting]:
    """The settings beside the best: its rate and its weight decay a little higher and lower, as far as they are new."""
    best = best_of(rounds).setting
    number = min(rounds[-1].number, len(RATE_STEPS) - 1)
    rate, decay = RATE_STEPS[number], DECAY_STEPS[number]
    found = [
        best.model_copy(update={"rate": _round(best.rate * rate)}),
        best.model_copy(update={"rate": _round(best.rate / rate)}),
    ]
    if best.decay:
        found += [
            best.model_copy(update={"decay": _round(best.decay * decay)}),
            best.model_copy(update={"decay": _round(best.decay / decay)}),
        ]
    known = {trained.setting for trained in pool(rounds).values()}
    return [setting for setting in found if setting not in known]


def cost(search: Search, rounds: Sequence[Round]) -> int:
    """Passes over the training images that a search adds: what was trained before goes on."""
    done = {each.setting: each.epochs for each in pool(rounds).values()}
    return sum(max(0, search.epochs - done.get(setting, 0)) for setting in search.settings)


def _round(value: float) -> float:
    return float(f"{value:.2g}")
