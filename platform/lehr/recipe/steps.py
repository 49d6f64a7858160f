"""A recipe in its run folder: the trials that a step is made of, what they left, and all results read back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.job import TrainJob, derive, from_dict
from lehr.job.recipe import RecipeJob
from lehr.recipe import rates
from lehr.recipe.initial import Initial, initial_work
from lehr.recipe.overfit import Overfit, overfit_work
from lehr.recipe.planner import Done, Step, decays, last_overrides
from lehr.recipe.rates import Rates, RateTest, rate_work, sweep_work
from lehr.recipe.results import FILE, Result, bare, steady
from lehr.recipe.trial_results import Found, Last, Round, Setting, Trained, best_of, folders, pool, ranked
from lehr.runs import Folder, RunFolder
from lehr.trials import Outcome, Trial

R = TypeVar("R", bound=Result)

FOLDERS = {
    "initial_loss": "recipe/1-initial-loss",
    "overfit": "recipe/2-overfit",
    "learning_rate": "recipe/3-learning-rate",
    "coarse": "recipe/4-coarse",
    "refine": "recipe/5-refine",
    "last": "recipe/7-last",
}
RATE_SHARE = 0.25  # share of a budget in epochs that step 3 takes at most


def read(folder: Folder) -> Done:
    """All results of a recipe so far. Raises RunError where one is damaged."""

    def result(cls: type[R], path: str) -> R | None:
        place = folder.child(*path.split("/"))
        return cls.read(place) if place.exists(FILE) else None

    rounds: list[Round] = []
    while found := result(Round, f"{FOLDERS['refine']}-{len(rounds)}" if rounds else FOLDERS["coarse"]):
        rounds.append(found)
    return Done(
        initial=result(Initial, FOLDERS["initial_loss"]),
        overfit=result(Overfit, FOLDERS["overfit"]),
        rates=result(Rates, FOLDERS["learning_rate"]),
        rounds=tuple(rounds),
        last=result(Last, FOLDERS["last"]),
    )


def forget(folder: Folder, name: str) -> None:
    """Deletes what a step left, so that it is done again; for steps 4 to 7 all that was trained for any of them."""
    if name in ("initial_loss", "overfit", "learning_rate"):
        folder.child(*FOLDERS[name].split("/")).delete_all()
        return
    for each in folder.child("recipe").folders():
        if each[0] in "457":
            folder.child("recipe", each).delete_all()
    folder.child("trials").delete_all()


# ── what is trained ─────────────────────────────────────────────────────────────────────────────────────────────────


def trials(job: RecipeJob, done: Done, step: Step) -> list[Trial]:
    """The trials of a step; step 3 may add to them (`further_test`).

    Raises:
        JobError: the base job cannot be changed as the step needs it.
    """
    base = job.base

    def child(folder: str, changes: Mapping[str, Any]) -> TrainJob:
        return derive(base, changes, parent=job, name=folder)

    if step.name == "initial_loss":
        return [Trial(step.folder, child(step.folder, bare(base)), initial_work)]
    if step.name == "overfit":
        return [Trial(step.folder, child(step.folder, bare(base)), overfit_work)]
    if step.name == "learning_rate":
        ladder = rates.ladder(base)
        return [rate_test(job, number, rate) for number, rate in enumerate(ladder[-1:] if job.recipe.sweep else ladder)]
    if step.name == "last":
        return [
            Trial(folder, child(folder, last_overrides(job, setting, step.epochs)))
            for folder, setting in last_folders(step).items()
        ]
    assert step.search
    wanted = folders(done.rounds, step.search.settings)
    return [
        Trial(folder, child(folder, setting.trial(base, step.search.epochs)))
        for folder, setting in sorted(wanted.items())
    ]


def last_folders(step: Step) -> dict[str, Setting]:
    """Each setting that is trained in full, by its folder."""
    return {step.folder + f"-{number}" * (number > 0): setting for number, setting in enumerate(step.settings)}


def rate_test(job: RecipeJob, number: int, rate: float) -> Trial:
    """A short training at one rate, or a sweep up to it."""
    amount, unit = job.allowance
    if job.recipe.sweep:
        rate *= 10
    epochs = rates.STEPS if unit == "s" else max(1, int(RATE_SHARE * amount / len(rates.ladder(job.base))))
    decay = {"optimizer.weight_decay": rates.WEIGHT_DECAY} if max(decays(job)) > 0 else {}
    changes = {**steady(job.base), "optimizer.lr": rate, "train.epochs": epochs, **decay}
    folder = f"{FOLDERS['learning_rate']}/{number:04}"
    job_of_it = derive(job.base, changes, parent=job, name=folder)
    return Trial(folder, job_of_it, sweep_work if job.recipe.sweep else rate_work)


def further_test(job: RecipeJob, outcomes: Sequence[Outcome]) -> Trial | None:
    """One more test, where the lowest loss lies at the edge of the rates tested so far."""
    more = rates.further([RateTest.read(outcome.run.folder) for outcome in outcomes if outcome.status == "finished"])
    return rate_test(job, len(outcomes), more[0]) if more else None


# ── what it left ────────────────────────────────────────────────────────────────────────────────────────────────────


def result_of(job: RecipeJob, done: Done, step: Step, outcomes: Mapping[str, Outcome], folder: Folder) -> Result:
    """The result of a step whose trials have all ended.

    Args:
        outcomes: by the trials' folders.
        folder: the recipe's run folder.
    """
    first = next(iter(outcomes.values()))
    failed = next((outcome.message for outcome in outcomes.values() if outcome.status == "failed"), "")
    if step.name == "initial_loss":
        return Initial(failed=failed) if failed else Initial.read(first.run.folder)
    if step.name == "overfit":
        return Overfit(failed=failed) if failed else Overfit.read(first.run.folder)
    if step.name == "learning_rate":
        return (
            Rates(failed=failed)
            if failed
            else Rates(tests=tuple(RateTest.read(o.run.folder) for o in outcomes.values()))
        )
    if step.name == "last":
        return _last(job, done, step, outcomes, folder)
    return _round(job, done, step, outcomes, folder)


def _round(job: RecipeJob, done: Done, step: Step, outcomes: Mapping[str, Outcome], folder: Folder) -> Round:
    assert step.search
    metric = job.base.train.metric.removeprefix("averaged_")
    settings = folders(done.rounds, step.search.settings)
    trained = tuple(
        _trained(outcome, name, metric, settings[name], step.search.epochs) for name, outcome in outcomes.items()
    )
    before = pool(done.rounds)
    everything = {**before, **{each.folder: each for each in trained}}
    best = ranked(everything.values(), metric.endswith("_loss"))[0]
    curves = Curves.read(RunFolder.open(folder.child(*best.folder.split("/"))))
    return Round(
        number=len(done.rounds),
        metric=metric,
        validation_rows=curves.validation_rows or 0,
        common=done.overfit.common if done.overfit else 1 / max(curves.classes or 1, 1),
        trained=trained,
        epochs=sum(each.epochs - (before[each.folder].epochs if each.folder in before else 0) for each in trained),
        updates=round(best.epochs * curves.steps_per_epoch),
        best=best.folder,
        diagnosis=_diagnosis(curves),
    )


def _last(job: RecipeJob, done: Done, step: Step, outcomes: Mapping[str, Outcome], folder: Folder) -> Last:
    metric, best = job.base.train.metric, best_of(done.rounds)
    lower = metric.endswith("_loss")
    all_of_them = [_trained(outcomes[name], name, metric, s, 10**9) for name, s in last_folders(step).items()]
    last, *beside = sorted(all_of_them, key=lambda each: (bool(each.failed), -each.best(lower)))
    outcome = outcomes[last.folder]
    keep = outcome.status == "finished" and last.best(lower) >= best.best(lower)
    kept = outcome.run if keep else RunFolder.open(folder.child(*best.folder.split("/")))
    curves = Curves.read(outcome.run)
    child = from_dict(outcome.run.job)
    assert isinstance(child, TrainJob)
    return Last(
        trained=last,
        kept=last.folder if keep else best.folder,
        schedule=child.schedule.name,
        value=abs((last if keep else best).best(lower)),
        test=kept.progress().get("metrics", {}).get("test_accuracy"),
        diagnosis=_diagnosis(curves),
        beside=tuple(beside),
    )


def _trained(outcome: Outcome, name: str, metric: str, setting: Any, epochs: int) -> Trained:
    rows = [row for row in outcome.run.epochs().to_pylist() if row["epoch"] <= epochs]
    clean = [row.get("clean_train_accuracy") for row in rows]
    return Trained(
        setting=setting,
        folder=name,
        values=tuple(math.nan if row.get(metric) is None else row[metric] for row in rows),
        train=tuple(value for value in clean if value is not None),
        failed=outcome.message if outcome.status == "failed" else "",
    )


def _diagnosis(curves: Curves) -> Found:
    first = diagnose(curves).first
    return Found(name=first.name, title=first.title, evidence=first.evidence, overrides=dict(first.overrides))
