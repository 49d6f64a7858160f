"""Step 5, the refined search: a finer grid around the best, trained for longer at a constant learning rate.

Trials that were trained before continue where they stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lehr.recipe.trial_results import (
    NO_TRAINING,
    Hyperparameters,
    SearchRound,
    TrainingPlan,
    all_trials,
    best_trial,
    ranked,
)

EPOCHS = 20  # of a trial at most
SHARE = 0.6  # of what is left for the search, in one round
KEPT = 2  # of the best trials so far that continue

RATE_STEPS = (2.0, 1.4)  # factor between neighbouring learning rates in the first round, and in later ones
DECAY_STEPS = (3.0, 2.0)  # the same for weight decays


def plan_round(
    rounds: Sequence[SearchRound], wanted: Sequence[Hyperparameters], left: float, longest: int = EPOCHS
) -> TrainingPlan:
    """What the next round trains.

    Args:
        rounds: those so far, the coarse one first.
        wanted: settings that the last review of the curves asks for, the most wanted first.
        left: passes over the training images that the search may still take.
        longest: epochs of a trial at most.

    Returns:
        The best setting so far, then the wanted ones, then the neighbours of the best: as many as can each be trained
        for longer than the best was. No settings if not even the best one can.
    """
    metric = rounds[-1].metric
    trials = ranked(all_trials(rounds).values(), metric)
    kept = [trial.setting for trial in trials[:KEPT] if math.isfinite(trial.score(metric))]
    settings = list(dict.fromkeys([*kept[:1], *wanted, *neighbours(rounds), *kept[1:]]))
    done = {trial.setting: trial.epochs for trial in trials}
    planned = max(each.planned for each in rounds)
    least = max([trial.epochs for trial in trials[:1]] + [planned - 1])  # one that was cut short keeps its length
    longest = max(longest, planned)
    share = left if left < 2 * (least + 1) else max(SHARE * left, float(least + 1))
    while settings:
        epochs = min(longest, math.floor((share + sum(done.get(each, 0) for each in settings)) / len(settings)))
        if epochs > least:
            return TrainingPlan(tuple(settings), epochs)
        settings.pop()
    return NO_TRAINING


def neighbours(rounds: Sequence[SearchRound]) -> list[Hyperparameters]:
    """The settings next to the best that are new: its learning rate and weight decay a little higher and lower."""
    best = best_trial(rounds).setting
    number = min(rounds[-1].number, len(RATE_STEPS) - 1)
    rate, decay = RATE_STEPS[number], DECAY_STEPS[number]
    found = [
        best.model_copy(update={"rate": _two_digits(best.rate * rate)}),
        best.model_copy(update={"rate": _two_digits(best.rate / rate)}),
    ]
    if best.decay:
        found += [
            best.model_copy(update={"decay": _two_digits(best.decay * decay)}),
            best.model_copy(update={"decay": _two_digits(best.decay / decay)}),
        ]
    known = {trial.setting for trial in all_trials(rounds).values()}
    return [setting for setting in found if setting not in known]


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
