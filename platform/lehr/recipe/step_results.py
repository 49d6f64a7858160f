"""The result of a step, from what its trials left in their run folders."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.job import TrainJob, from_dict
from lehr.job.recipe import RecipeJob
from lehr.recipe.initial import InitialCheck
from lehr.recipe.overfit import OverfitCheck
from lehr.recipe.planner import Step
from lehr.recipe.rates import RateTest, RateTests
from lehr.recipe.results import Result
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import final_folders
from lehr.recipe.trial_results import (
    FinalTraining,
    Hyperparameters,
    RoundDiagnosis,
    SearchRound,
    TrialResult,
    all_trials,
    best_trial,
    ranked,
    trial_folders,
)
from lehr.runs import Folder, RunFolder
from lehr.trials import Outcome


def result_of(
    job: RecipeJob, state: RecipeState, step: Step, outcomes: Mapping[str, Outcome], folder: Folder
) -> Result:
    """The result of a step whose trials have all ended.

    Args:
        outcomes: by the trials' folders.
        folder: the recipe's run folder.
    """
    name, first = step.id.name, next(iter(outcomes.values()))
    failed = next((outcome.message for outcome in outcomes.values() if outcome.status == "failed"), "")
    if name == "initial_loss":
        return InitialCheck(failed=failed) if failed else InitialCheck.read(first.run.folder)
    if name == "overfit":
        return OverfitCheck(failed=failed) if failed else OverfitCheck.read(first.run.folder)
    if name == "learning_rate":
        if failed:
            return RateTests(failed=failed)
        tests = [RateTest.read(outcome.run.folder) for outcome in outcomes.values()]
        return RateTests(tests=tuple(test for test in tests if test.rates), own=job.base.optimizer.rate)
    if name == "last":
        return _final_training(job, state, step, outcomes, folder)
    return _search_round(job, state, step, outcomes, folder)


def _search_round(
    job: RecipeJob, state: RecipeState, step: Step, outcomes: Mapping[str, Outcome], folder: Folder
) -> SearchRound:
    metric = job.base.train.metric.removeprefix("averaged_")
    settings = trial_folders(state.rounds, step.plan.settings)
    trained = tuple(
        _trial_result(job, outcome, name, metric, settings[name], step.plan.epochs)
        for name, outcome in outcomes.items()
    )
    before = all_trials(state.rounds)
    best = ranked({**before, **{trial.folder: trial for trial in trained}}.values(), metric)[0]
    curves = Curves.read(RunFolder.open(folder.child(best.folder)))
    return SearchRound(
        number=len(state.rounds),
        metric=metric,
        validation_rows=curves.validation_rows or 0,
        common=state.overfit.common if state.overfit else 1 / max(curves.classes or 1, 1),
        trained=trained,
        epochs=sum(each.epochs - (before[each.folder].epochs if each.folder in before else 0) for each in trained),
        updates=round(best.epochs * curves.steps_per_epoch),
        best=best.folder,
        diagnosis=_diagnosis(curves),
    )


def _final_training(
    job: RecipeJob, state: RecipeState, step: Step, outcomes: Mapping[str, Outcome], folder: Folder
) -> FinalTraining:
    metric, best = job.base.train.metric, best_trial(state.rounds)
    all_of_them = [
        _trial_result(job, outcomes[name], name, metric, setting) for name, setting in final_folders(step).items()
    ]
    final, *beside = sorted(all_of_them, key=lambda trial: (bool(trial.failed), -trial.score(metric)))
    outcome = outcomes[final.folder]
    keep = outcome.status == "finished" and final.score(metric) >= best.score(metric)
    kept = outcome.run if keep else RunFolder.open(folder.child(best.folder))
    child, ended = from_dict(outcome.run.job), kept.outcome()
    assert isinstance(child, TrainJob)
    return FinalTraining(
        trained=final,
        kept=final.folder if keep else best.folder,
        schedule=child.schedule.name,
        value=(final if keep else best).best(metric),
        test=ended.metrics.get("test_accuracy") if ended else None,
        diagnosis=_diagnosis(Curves.read(outcome.run)),
        beside=tuple(beside),
    )


def _trial_result(
    job: RecipeJob, outcome: Outcome, folder: str, metric: str, setting: Hyperparameters, epochs: int | None = None
) -> TrialResult:
    """How a trial went, in its first `epochs` epochs if they are given: a killed recipe may have trained it further."""
    rows = [row for row in outcome.run.epochs().to_pylist() if epochs is None or row["epoch"] <= epochs]
    clean = [row.get("clean_train_accuracy") for row in rows]
    return TrialResult(
        setting=setting,
        folder=folder,
        values=tuple(math.nan if row.get(metric) is None else row[metric] for row in rows),
        train=tuple(value for value in clean if value is not None),
        failed=outcome.message if outcome.status == "failed" else "",
        lower=job.base.lower_is_better(metric),
    )


def _diagnosis(curves: Curves) -> RoundDiagnosis:
    first = diagnose(curves).first
    return RoundDiagnosis(name=first.name, title=first.title, evidence=first.evidence, overrides=dict(first.overrides))
