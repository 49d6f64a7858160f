"""The order of the steps and the budget: what a recipe does next is a pure function of its job and its results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lehr.job.recipe import STEPS, RecipeJob
from lehr.recipe import coarse, curve_review, initial, overfit, rates, refine
from lehr.recipe.coarse import Search
from lehr.recipe.initial import Initial
from lehr.recipe.overfit import Overfit
from lehr.recipe.rates import Rates
from lehr.recipe.results import Verdict, tidy
from lehr.recipe.trial_results import Last, Round, Setting, Trained, best_of, pool, shown
from lehr.training.optimizers import has_decay

LAST_SHARE = 0.4  # of the budget at most, for training in full
HIGHER = 2.0  # a rate that decays may start so much higher than the best of those that stay as they are


@dataclass(frozen=True)
class Done:
    """The results so far."""

    initial: Initial | None = None
    overfit: Overfit | None = None
    rates: Rates | None = None
    rounds: tuple[Round, ...] = ()
    last: Last | None = None


@dataclass(frozen=True)
class Step:
    """What to do next.

    Attributes:
        name: one of `initial_loss`, `overfit`, `learning_rate`, `coarse`, `refine`, `last`.
        folder: where its result goes, inside the run folder.
        search: what a round trains. epochs: how long the last trainings are. settings: what they train.
    """

    name: str
    folder: str
    search: Search | None = None
    epochs: int = 0
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class End:
    """Why there is nothing more to do: `finished`, `stopped` (as the job asks), or `failed` with the step and why."""

    status: Literal["finished", "stopped", "failed"]
    sentence: str
    step: str = ""


def following(job: RecipeJob, done: Done) -> Step | End:
    """What a recipe does next."""
    name, verdict = latest(job, done)
    if verdict and not verdict.good:
        return End("failed", verdict.found, name)
    if done.last:
        return End("finished", verdict.found if verdict else "")
    if name and name == job.recipe.stop_after and not (name == "refine" and curve_review.look(done.rounds).goes_on):
        return End("stopped", f"Stopped after the step {name}, as recipe.stop_after asks")
    if done.rounds:
        return _after_a_round(job, done)
    first = STEPS.index(job.recipe.start_at)
    if first <= 0 and not done.initial:
        return Step("initial_loss", "recipe/1-initial-loss")
    if first <= 1 and not done.overfit:
        return Step("overfit", "recipe/2-overfit")
    if measures_rates(job) and not done.rates:
        return Step("learning_rate", "recipe/3-learning-rate")
    return Step("coarse", "recipe/4-coarse", coarse.grid(rates_of(job, done), decays(job), budget(job, done)))


def measures_rates(job: RecipeJob) -> bool:
    """Whether step 3 is part of the recipe."""
    return STEPS.index(job.recipe.start_at) <= 2 and not job.recipe.learning_rates


def rates_of(job: RecipeJob, done: Done) -> tuple[float, ...]:
    """The rates of the coarse search: as the job says, as step 3 chose, or around the base job's own."""
    if job.recipe.learning_rates:
        return tuple(dict.fromkeys(job.recipe.learning_rates))
    if done.rates:
        return rates.choose(done.rates).rates
    own = job.base.optimizer.lr
    return (own, own / 3, own / 10)


def decays(job: RecipeJob) -> tuple[float, ...]:
    """The weight decays of the coarse search; only 0 where the optimizer has none."""
    return tuple(dict.fromkeys(job.recipe.weight_decays)) if has_decay(job.base.optimizer.name) else (0.0,)


def latest(job: RecipeJob, done: Done) -> tuple[str, Verdict | None]:
    """The name of the last step that was done, and its verdict."""
    if done.last:
        return "last", judge_last(done)
    if len(done.rounds) > 1:
        return "refine", curve_review.judge(done.rounds)
    if done.rounds:
        return "coarse", coarse.judge(done.rounds[0])
    if done.rates:
        return "learning_rate", rates.choose(done.rates).verdict
    if done.overfit:
        return "overfit", overfit.judge(done.overfit)
    if done.initial:
        return "initial_loss", initial.judge(done.initial)
    return "", None


def judge_last(done: Done) -> Verdict:
    """How the training in full went, and which model is kept."""
    assert done.last
    last, best = done.last, best_of(done.rounds)
    now = done.rounds[-1]
    better = max(last.trained, best, key=lambda each: each.best(now.lower))
    updates = now.updates * max(last.trained.epochs, best.epochs) // max(1, best.epochs)
    if told := coarse.unrelated(now.model_copy(update={"updates": updates}), better, len(pool(done.rounds)) + 1):
        return told
    metric, lower = done.rounds[-1].metric, done.rounds[-1].lower
    if last.trained.failed:
        found = f"The last training failed: {last.trained.failed}"
    else:
        value = shown(abs(last.trained.best(lower)), metric)
        found = f"Trained in full with a {last.schedule} schedule, {last.trained.setting}: {value}"
    trial = f"the best trial at a constant rate had {shown(abs(best.best(lower)), metric)}"
    if last.beside:
        others = [f"with {each.setting}: {_outcome(each, metric, lower)}" for each in last.beside]
        trial = f"{'; '.join(others)}; {trial}"
    kept = (
        "the model of this run is kept" if last.kept == last.trained.folder else f"so the model of {last.kept} is kept"
    )
    test = f" Its test accuracy is {last.test:.2%}." if last.test is not None else ""
    return Verdict(True, f"{found}; {trial}.", f"{kept[:1].upper()}{kept[1:]}.{test}")


def _outcome(trained: Trained, metric: str, lower: bool) -> str:
    return trained.failed or shown(abs(trained.best(lower)), metric)


def chapters(job: RecipeJob, done: Done) -> list[tuple[str, Verdict]]:
    """Every verdict so far under its heading, in order: the story of the recipe."""
    found = []
    if done.initial:
        found.append(("1 Initial loss", initial.judge(done.initial)))
    if done.overfit:
        found.append(("2 Overfit a small sample", overfit.judge(done.overfit)))
    if done.rates:
        found.append(("3 Find the learning rate", rates.choose(done.rates).verdict))
    for number in range(len(done.rounds)):
        so_far = done.rounds[: number + 1]
        if not number:
            found.append(("4 Coarse search", coarse.judge(so_far[0])))
            continue
        found.append((f"5 Refine, round {number}", curve_review.judge(so_far)))
        found.append((f"6 Look at the learning curves, round {number}", curve_review.look(so_far).verdict))
    if done.last:
        found.append(("7 Train in full", judge_last(done)))
    return found


# ── the budget ──────────────────────────────────────────────────────────────────────────────────────────────────────


def budget(job: RecipeJob, done: Done) -> float:
    """The whole budget in passes over the training images; a time is converted at the speed that step 3 measured.

    Raises:
        JobError: a time, where step 3 is left out.
    """
    amount, unit = job.allowance
    if unit == "ep":
        return amount
    if not done.rates:
        raise job.error(
            "budget", f"{job.budget} is a time, and no step 3 measures how long an epoch takes; allowed: 60ep"
        )
    test = done.rates.tests[0]
    return amount / max(1e-9, done.rates.seconds_per_step * math.ceil(test.rows / test.batch))


def spent(job: RecipeJob, done: Done) -> float:
    """Passes over the training images so far, from step 3 on; the first two steps see a few hundred images."""
    total = sum(each.epochs for each in done.rounds) + (done.rates.epochs if done.rates else 0.0)
    return total + (sum(each.epochs for each in (done.last.trained, *done.last.beside)) if done.last else 0)


def kept(done: Done) -> Trained:
    """The training whose model is the recipe's: the best in full where it beats every trial, else the best trial."""
    in_full = done.last and done.last.trained.folder == done.last.kept
    return done.last.trained if done.last and in_full else best_of(done.rounds)


def last_epochs(job: RecipeJob, done: Done) -> int:
    """Epochs that are kept for training in full while the search goes on."""
    return max(1, min(2 * job.base.train.epochs, int(LAST_SHARE * budget(job, done))))


def _after_a_round(job: RecipeJob, done: Done) -> Step | End:
    whole = budget(job, done)
    left = whole - spent(job, done)
    seen = curve_review.look(done.rounds) if len(done.rounds) > 1 else None
    if not seen or seen.goes_on:
        room = left - last_epochs(job, done)
        wanted, longest = (seen.wanted, seen.longest) if seen else ((), refine.EPOCHS)
        search = refine.around(done.rounds, wanted, room, longest)
        if search.settings:
            number = len(done.rounds)
            return Step("refine", f"recipe/5-refine-{number}", search)
    longer = seen is None or seen.longer_last
    settings = last_settings(job, done, int(left), longer)
    epochs = min(job.base.train.epochs * (1 + longer), int(left) // len(settings))
    return Step("last", "recipe/7-last", epochs=max(1, epochs), settings=settings)


def last_settings(job: RecipeJob, done: Done, left: int, longer: bool) -> tuple[Setting, ...]:
    """What is trained in full: the best setting and the same with a higher rate, or the latter alone.

    A rate that stays as it is, as in the trials, must be low enough to settle with; one that decays settles at its end,
    and gains from a higher start. Which of the two is better is tried where twice the job's epochs are `left` for each;
    with less, length gains more than a second try. A setting that overfits gains nothing by length: two shorter
    trainings share what is left.
    """
    best, whole = best_of(done.rounds).setting, job.base.train.epochs
    higher = best.model_copy(update={"rate": tidy(HIGHER * best.rate)})
    if left >= (4 if longer else 1) * whole:
        return best, higher
    return (higher,) if longer and left >= whole else (best,)


def last_overrides(job: RecipeJob, setting: Setting, epochs: int) -> dict[str, Any]:
    """Changes to the base job that make a training in full: the setting, and a rate that decays."""
    schedule = job.base.schedule
    told: Mapping[str, Any] = {}
    if schedule.name == "constant":
        warmup = str(schedule.warmup) if schedule.warmup else "5%"
        told = {"schedule": {"name": "cosine", "warmup": warmup}}
    return {
        **setting.overrides(),
        "optimizer.scale_lr": None,
        "train.epochs": epochs,
        **told,
    }
