"""The result of a step, from what its trials left in their run folders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.errors import TrainingError
from lehr.formatting import count_of
from lehr.job import TrainJob, from_dict
from lehr.job.recipe import RecipeJob
from lehr.job.training import tie_breaker
from lehr.recipe.budget import over_in_words
from lehr.recipe.initial import InitialCheck
from lehr.recipe.kept import overfit_trial
from lehr.recipe.overfit import OverfitCheck
from lehr.recipe.planner import Step, own_rate
from lehr.recipe.rates import RateTest, RateTests, rate_grid
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
    ranked,
    trial_folders,
)
from lehr.runs import Folder, RunFolder
from lehr.trials import Outcome

NO_DIAGNOSIS = RoundDiagnosis(name="none", title="Nothing was trained", evidence="the budget had no time left for it")


def result_of(
    job: RecipeJob,
    state: RecipeState,
    step: Step,
    outcomes: Mapping[str, Outcome],
    folder: Folder,
    seconds_per_epoch: float = 0.0,
) -> Result:
    """The result of a step whose trials have all ended, or were left out.

    Args:
        outcomes: by the trials' folders.
        folder: the recipe's run folder.
        seconds_per_epoch: of the trials of a search, as the study measured it.
    """
    name, first = step.id.name, next(iter(outcomes.values()), None)
    failed = next((outcome.message for outcome in outcomes.values() if outcome.status == "failed"), "")
    if name == "initial_loss":
        assert first
        return InitialCheck(failed=failed) if failed else InitialCheck.read(first.run.folder)
    if name == "overfit":
        if not first:
            return OverfitCheck(cut=f"Left out: {over_in_words(job, name)}.")
        return OverfitCheck(failed=failed) if failed else OverfitCheck.read(first.run.folder)
    if name == "learning_rate":
        if failed:
            return RateTests(failed=failed)
        tests = [RateTest.read(outcome.run.folder) for outcome in outcomes.values()]
        own, least = own_rate(job, state), 1 if job.recipe.range_test else len(rate_grid(job.base))
        return RateTests(
            tests=tuple(test for test in tests if test.rates),
            own=own,
            own_is_of_step_2=own != job.base.optimizer.rate,
            cut=over_in_words(job, name) if len(tests) < least or any(test.cut for test in tests) else "",
            rows=max((test.rows for test in tests), default=0),
            batch=max((test.batch for test in tests), default=0),
        )
    if name == "last":
        return _final_training(job, state, step, outcomes, folder)
    return _search_round(job, state, step, outcomes, folder, seconds_per_epoch)


def _search_round(
    job: RecipeJob,
    state: RecipeState,
    step: Step,
    outcomes: Mapping[str, Outcome],
    folder: Folder,
    seconds_per_epoch: float,
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
        seconds_per_epoch=seconds_per_epoch,
        planned=step.plan.epochs,
        cut=_cut(job, step, trained),
    )


def _cut(job: RecipeJob, step: Step, trained: Sequence[TrialResult]) -> str:
    """The trials of a step that its time left out or cut short, as a sentence; empty if there are none."""
    out, why = len(step.plan.settings) - len(trained), over_in_words(job, step.id.name) if job.budget.seconds else ""
    short = sum(each.ended == why != "" for each in trained)
    parts = [f"{count_of(out, 'trial')} left out"] * bool(out) + [f"{count_of(short, 'trial')} cut short"] * bool(short)
    return f"{' and '.join(parts)}: {why}." if parts else ""


def _final_training(
    job: RecipeJob, state: RecipeState, step: Step, outcomes: Mapping[str, Outcome], folder: Folder
) -> FinalTraining:
    metric, settings = job.base.train.metric, final_folders(step)
    all_of_them = [
        _trial_result(job, outcomes[name], name, metric, setting)
        for name, setting in settings.items()
        if name in outcomes
    ]
    cut = _cut(job, step, all_of_them)
    if not all_of_them:
        name, setting = next(iter(settings.items()))
        all_of_them = [TrialResult(setting=setting, folder=name, values=(), failed="there was no time for it")]
    final, *beside = sorted(
        all_of_them, key=lambda trial: (bool(trial.failed), -trial.score(metric), trial.loss(metric))
    )
    searched = [trial for trial in all_trials(state.rounds).values() if not trial.failed]
    others = [*ranked(searched, metric)[:1], *overfit_trial(state)]
    trainings = [*([] if final.failed else [final]), *others]
    if not trainings:
        raise TrainingError(f"the recipe has no model: {final.failed}")
    best = min(trainings, key=lambda trial: (-trial.score(metric), trial.loss(metric)))  # of equal ones, the first
    outcome, ended = outcomes.get(final.folder), RunFolder.open(folder.child(best.folder)).outcome()
    rows = ended.measured_rows if ended else {}
    child = from_dict(outcome.run.job) if outcome else None
    return FinalTraining(
        trained=final,
        kept=best.folder,
        schedule=child.schedule.name if isinstance(child, TrainJob) else job.base.schedule.name,
        value=best.best(metric),
        test=ended.metrics.get("test_accuracy") if ended else None,
        diagnosis=_diagnosis(Curves.read(outcome.run)) if outcome else NO_DIAGNOSIS,
        beside=tuple(beside),
        left_out=step.plan.left_out,
        cut=cut,
        metric=metric,
        validation_rows=rows.get("validation", 0),
        test_rows=rows.get("test", 0),
        common=_common(state, outcome),
    )


def _common(state: RecipeState, outcome: Outcome | None) -> float:
    """The share of the most frequent class among the validation images; that of equal ones where it was not counted."""
    if state.overfit and math.isfinite(state.overfit.common):
        return state.overfit.common
    classes = Curves.read(outcome.run).classes if outcome else None
    return 1 / classes if classes else math.nan


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
        ended=outcome.message,
        losses=tuple(math.nan if (loss := row.get(tie_breaker(metric))) is None else loss for row in rows),
    )


def _diagnosis(curves: Curves) -> RoundDiagnosis:
    first = diagnose(curves).first
    return RoundDiagnosis(name=first.name, title=first.title, evidence=first.evidence, overrides=dict(first.overrides))
