"""Step 4, the coarse search: a few learning rates and weight decays around what step 3 found, for a few epochs each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lehr.formatting import count_of
from lehr.intervals import in_words, no_better
from lehr.recipe.results import UNEQUAL, Verdict
from lehr.recipe.trial_results import (
    NO_TRAINING,
    Hyperparameters,
    SearchRound,
    TrainingPlan,
    TrialResult,
    join_numbers,
    ranked,
)

EPOCHS = 5  # of a trial at most
SHARE = 0.25  # of the budget at most, unless a single epoch each takes more
LEAST_UPDATES = 50  # of a trial that is compared with others: after a few, only the highest rate has moved
ENOUGH = 100  # updates after which a network that learns anything does better than a guess


def plan_grid(
    rates: Sequence[float], decays: Sequence[float], budget: float, updates: int | None = None
) -> TrainingPlan:
    """Every learning rate with every weight decay, for as many epochs as a quarter of the budget allows.

    If it does not allow enough updates each, weight decays are left out, then the lowest learning rates. Where that
    leaves only one of several rates there is nothing to compare, so nothing is trained.

    Args:
        budget: passes over the training images that the search and the final training have together.
        updates: in such a pass; None if that is unknown.
    """
    room, least = max(1, int(SHARE * budget)), math.ceil(LEAST_UPDATES / updates) if updates else 1
    while len(rates) * len(decays) * least > room and len(decays) > 1:
        decays = decays[:-1]
    found = rates[: max(room // least, 0 if updates else 1)]
    settings = tuple(Hyperparameters(rate=rate, decay=decay) for decay in decays for rate in found)
    if not settings or (updates and len(settings) == 1 < len(rates)):
        return replace(NO_TRAINING, left_out=_no_room(room, updates or 1))
    return TrainingPlan(settings, min(max(EPOCHS, least), max(1, room // len(settings))))


def _no_room(epochs: int, updates: int) -> str:
    few = count_of(epochs * updates, "update")
    return (
        f"Left out: the budget has room for {few} of a coarse search, and a trial shows what its settings can do after "
        f"about {LEAST_UPDATES}. A larger budget or a smaller train.batch_size has room for more."
    )


def judge(r: SearchRound) -> Verdict:
    """Whether a trial learned anything that holds for other images."""
    best, count = ranked(r.trained, r.metric)[0], len(r.trained)
    failed = [trial for trial in r.trained if trial.failed]
    if len(failed) == count:
        return Verdict(False, f"Every trial failed; the first error: {failed[0].failed}.", "The recipe stops here.")
    if verdict := unrelated(r, best, count):
        return verdict
    rates = join_numbers(sorted({trial.setting.rate for trial in r.trained}, reverse=True))
    decays = join_numbers(sorted({trial.setting.decay for trial in r.trained}, reverse=True))
    return Verdict(
        True,
        f"{count_of(count, 'trial')} of {count_of(best.epochs, 'epoch')} each: learning rates {rates}, each with "
        f"weight decay {decays}. The best reaches {best.format_best(r.metric, r.validation_rows)}: {best.setting}."
        + (f" {len(failed)} failed." if failed else "")
        + (f" {r.cut}" if r.cut else ""),
        "The best trials continue, and a finer grid around the best one is added.",
    )


def unrelated(r: SearchRound, best: TrialResult, count: int) -> Verdict | None:
    """The verdict that there is only noise to learn, if the best of `count` trials does no better than a guess.

    None if it does better, if it has had too few updates to tell, or if the classes are so unequal, or the validation
    images so few, that hardly anything could do significantly better: that is no ground to stop.
    """
    value = best.score(r.metric)
    unrelated = no_better(value, r.common, r.validation_rows) and r.common <= UNEQUAL
    if r.metric != "validation_accuracy" or not unrelated or r.updates < ENOUGH:
        return None
    train = max(best.train, default=0.0)
    memorised = f", although it classifies {train:.1%} of the training images correctly" if train > value + 0.05 else ""
    return Verdict(
        False,
        f"The labels look unrelated to the images: the best of {count_of(count, 'trial')} classifies "
        f"{in_words(value, r.validation_rows)} of the validation images correctly, no better than always predicting "
        f"the most frequent class ({r.common:.1%}){memorised}. Check how labels are matched to images, in the training "
        "and in the validation data.",
        "The recipe stops here: there is only noise to learn.",
    )
