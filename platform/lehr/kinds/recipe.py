"""`kind: recipe`: the steps in order, each from the results before it, until the model is trained or cannot be."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast

from lehr.curves.more_rows import advise_folds_of_kept
from lehr.data.load import OpenedSources
from lehr.data.sources import returns_dataset
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError
from lehr.formatting import count_of, format_folder, format_seconds, stop_reason
from lehr.job import derive, refuse_unused
from lehr.job.recipe import BY_CLASS, RecipeJob
from lehr.models.find import find
from lehr.models.lightning import base_of
from lehr.recipe.budget import LEAST_EPOCHS, over_in_words
from lehr.recipe.forecast import RecipePace
from lehr.recipe.kept import kept_trial, metric_of
from lehr.recipe.overview import facts, spent_in_words, table
from lehr.recipe.planner import End, Step, measures_rates, next_step
from lehr.recipe.state import RecipeState, discard, discard_damaged, discard_plan, write_plan, write_result
from lehr.recipe.step_results import result_of
from lehr.recipe.study import StepStudy
from lehr.recipe.trial_results import all_trials, format_metric
from lehr.recipe.verdicts import step_verdicts
from lehr.runs import Overview, RunFolder, read_model
from lehr.tasks.forms import spoken_in_full
from lehr.training.setup import check_job, complete_base
from lehr.trials import Clock, SharedData, run_trials


def check(job: RecipeJob) -> None:
    """Raises JobError if the base job cannot be trained, or the budget needs a step that is left out."""
    refuse_unused(job)
    complete_base(job, job.base)
    base = derive(job.base, {}, parent=job, name="base")
    check_job(base)
    if base_of(find(base.model.name, base.model.options)[0]):
        what = "is a LightningModule, which takes steps of its own, and a recipe tries learning rates"
        raise job.error("base.model", f"{base.model.name} {what}; allowed: kind: train")
    if job.budget.epochs and job.budget.epochs < LEAST_EPOCHS:
        what = f"{job.budget.epochs:g}ep is too little for a trial and the final training"
        raise job.error("budget", f"{what}; allowed: from {LEAST_EPOCHS:g}ep")
    if not job.budget.epochs and not measures_rates(job):
        what = f"{job.budget} are a time, but no step 3 measures how long an epoch takes"
        raise job.error("budget", f"{what}; allowed: a number of epochs, such as 60ep, alone or beside it")


def run(running: Running) -> None:
    """Does one step after the other; ends with the model, or with the reason why there is none."""
    job, folder = cast(RecipeJob, running.job), running.run.folder
    if not returns_dataset(job.base.data):
        OpenedSources(
            derive(job.base, {}, parent=job, name="base")
        )  # data that cannot be read are refused before any step
    if job.first_step != job.recipe.start_at:
        what = f"a row of {job.base.task.name} has no one class"
        running.say(f"The steps {' and '.join(BY_CLASS)} are left out: they look at classes, and {what}.")
    clock = Clock(running.run)
    for file in discard_damaged(folder):
        running.screen.say(f"{file} was damaged; it is made again of what its trials left")
    state = RecipeState.read(folder, clock.seconds)
    if isinstance(end := next_step(job, state), End) and end.status == "failed":
        discard(folder, end.step.name)  # the cause may have been fixed since: the step is done again
        state = RecipeState.read(folder, clock.seconds)
    with _ray(running, job):
        state, end = do_steps(running, job, state, clock)
    conclude(running, job, state, end)


def do_steps(running: Running, job: RecipeJob, state: RecipeState, clock: Clock) -> tuple[RecipeState, End]:
    """Does the steps that are left; returns all results, and why there is nothing more to do.

    Raises:
        Interrupted: asked to stop; every trial is saved.
    """
    run, shared, pace = running.run, SharedData(), RecipePace()
    while isinstance(step := next_step(job, state), Step):
        write_plan(run.folder, step.id, step.plan)
        study = StepStudy(job, state, step, clock, pace)
        running.screen.status(str(step.id))
        at_most = None if step.id.name == "learning_rate" else len(study.trials)
        run_trials(running, study, at_most, shared)
        seconds = clock.seconds  # what is made of the trials afterwards is no part of the budget
        if not study.outcomes and step.id.name == "initial_loss":
            return state, End("failed", f"no time was left for it: {over_in_words(job, step.id.name)}", step.id)
        if not study.outcomes and step.id.name in ("coarse", "refine"):
            discard_plan(run.folder, step.id)
        else:
            timed = study.seconds_per_epoch if job.budget.seconds else 0.0  # else results are the same whenever
            result = result_of(job, state, step, study.outcomes, run.folder, timed)
            write_result(run.folder, step.id, result)
        state = RecipeState.read(run.folder, seconds)
        show_verdicts(running, step, state)
        if reason := run.stop_requested():
            reason = stop_reason(reason)
            run.write_progress(replace(run.progress(), status="stopped", message=reason))
            raise Interrupted(f"{running.stopped} after {step.id}. Resume with: {running.command}")
    return state, step


def _ray(running: Running, job: RecipeJob) -> AbstractContextManager[object]:
    """One Ray for all steps; none where everything runs in this process."""
    if running.debug:
        return nullcontext()
    from lehr.ray_cluster.connection import connect

    count = job.base.workers.count
    running.screen.status("starting Ray")
    return connect(count if isinstance(count, int) else 1, job.base.workers.cpus)


def report(run: RunFolder) -> None:
    """Writes the report again. Raises RunError if no step has finished yet."""
    from lehr.recipe.page import write

    write(run)


def show_verdicts(running: Running, step: Step, state: RecipeState) -> None:
    """Says what the step found and what was decided."""
    for each in step_verdicts(state):
        left_out = step.plan.left_out and each.verdict.found == step.plan.left_out
        if each.step == step.id or left_out:
            running.screen.say(f"{each.heading}: {each.verdict.found}\n  {each.verdict.decided}")


def conclude(running: Running, job: RecipeJob, state: RecipeState, end: End) -> None:
    """Keeps the model, writes the report, and ends as the recipe ended."""
    run, screen = running.run, running.screen
    _write_end(run, job, state, end)
    report(run)
    screen.close()
    page = f"Report: {format_folder(run.folder)}/report.html"
    if end.status == "failed":
        raise LehrError(f"{str(end.step).capitalize()}: {end.sentence}\n{page}")
    if end.status == "stopped":
        screen.say(f"{end.sentence}; remove it to continue.\n{page}")
        return
    assert state.final
    trainings = len(all_trials(state.rounds)) + 1 + len(state.final.beside)
    spent = f"{spent_in_words(job, state)}, in {count_of(trainings, 'training')}"
    screen.say(f"Tuned in {format_seconds(time.time() - running.started)}: {spent}.")
    metric, rows = metric_of(state), run.progress().measured_rows
    value = format_metric(state.final.value, metric, rows.get("validation"))
    screen.say(f"Best {spoken_in_full(metric)}: {value}, {kept_trial(state).setting}")
    if state.final.test is not None:
        screen.say(f"Test accuracy of that model: {format_metric(state.final.test, 'test_accuracy', rows.get('test'))}")
    if advice := advise_folds_of_kept(run, run.progress()):
        screen.say(advice)
    screen.say(f"Model:  {format_folder(run.folder)}/model\n{page}")


def _write_end(run: RunFolder, job: RecipeJob, state: RecipeState, end: End) -> None:
    """Writes how the recipe ended and, if it is finished, the model that it keeps."""
    before = run.progress()
    overview = replace(
        before.overview or Overview(),
        headline=f"failed: {end.step.title.lower()}" if end.status == "failed" else end.status,
        facts=facts(job, state),
        table=table(state),
    )
    seconds = {**before.seconds, "total": state.seconds}
    progress = replace(before, status=end.status, message=end.sentence, updated=time.time(), overview=overview)
    progress = replace(progress, seconds=seconds)
    if state.final:
        kept = RunFolder.open(run.folder.child(state.final.kept))
        weights, about = read_model(kept.folder)
        run.write_model(weights, about)
        if ended := kept.outcome():
            progress = replace(progress, best=ended.best, metrics=ended.metrics, measured_rows=ended.measured_rows)
        progress = replace(progress, overview=replace(overview, done=1.0))
    run.write_progress(progress)


KIND = Kind(check=check, run=run, report=report, folders=("recipe", "trials"))
