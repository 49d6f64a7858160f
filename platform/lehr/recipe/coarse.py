"""Step 4, the coarse search: a few rates and weight decays around what step 3 found, for a few epochs each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lehr.recipe.results import Verdict
from lehr.recipe.trial_results import Round, Setting, Trained, number_words, ranked, shown, standard_error

EPOCHS = 5  # of a trial at most
SHARE = 0.25  # of the budget at most, where a single epoch each allows it
DECAYS = (1e-4, 1e-5, 0.0)
ENOUGH = 100  # updates after which a network that learns does better than a guess


@dataclass(frozen=True)
class Search:
    """What a round trains: settings, the most promising first, and the epochs that each of them reaches."""

    settings: tuple[Setting, ...]
    epochs: int


def grid(rates: Sequence[float], decays: Sequence[float], budget: float) -> Search:
    """Every rate with every weight decay, for as many epochs as a quarter of the budget allows.

    Where not even one epoch each fits, weight decays are left out, then the smallest rates.

    Args:
        budget: passes over the training images that the whole recipe may take.
    """
    room = max(1, int(SHARE * budget))
    while len(rates) * len(decays) > room and len(decays) > 1:
        decays = decays[:-1]
    rates = rates[: max(1, room)]
    settings = tuple(Setting(rate=rate, decay=decay) for decay in decays for rate in rates)
    return Search(settings, min(EPOCHS, max(1, room // len(settings))))


def judge(r: Round) -> Verdict:
    """Whether anything was learned that holds for other images; the best trials go on."""
    best, rest = ranked(r.trained, r.lower)[0], len(r.trained)
    failed = [trained for trained in r.trained if trained.failed]
    if len(failed) == rest:
        return Verdict(False, f"Every trial failed; the first one says: {failed[0].failed}.", "The recipe ends here.")
    if told := unrelated(r, best, rest):
        return told
    rates = number_words(sorted({trained.setting.rate for trained in r.trained}, reverse=True))
    decays = number_words(sorted({trained.setting.decay for trained in r.trained}, reverse=True))
    best_value = shown(abs(best.best(r.lower)), r.metric)
    return Verdict(
        True,
        f"{rest} trials of {best.epochs} epoch{'s' if best.epochs > 1 else ''} each: rates {rates}, each with weight "
        f"decay {decays}. The best has {best_value}: {best.setting}." + (f" {len(failed)} failed." if failed else ""),
        "The best go on for longer, and a finer grid around the best joins them.",
    )


def unrelated(r: Round, best: Trained, count: int) -> Verdict | None:
    """The verdict that nothing but noise was learned, where the best of so many trials does no better than a guess.

    None where it does, and where it has taken too few updates to tell.
    """
    value = best.best(r.lower)
    chance = r.common + 2 * standard_error(r.common, r.validation_rows)
    if not r.metric.endswith("accuracy") or value > chance or r.updates < ENOUGH:
        return None
    train = max(best.train, default=0.0)
    memory = f", though {train:.1%} of the training images are" if train > value + 0.05 else ""
    return Verdict(
        False,
        f"The labels look unrelated to the images: the best of {count} trials has {value:.1%} of the validation "
        f"images right, no more than by always saying the most frequent class ({r.common:.1%}){memory}. Check how "
        "labels are put beside their images, in training and in validation.",
        "The recipe ends here: there is nothing to learn but noise.",
    )
