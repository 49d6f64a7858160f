"""`kind: recipe`: the steps in order, each from the results before it, until the model is trained or cannot be."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from lehr.data.load import OpenedSources
from lehr.data.sources import returns_dataset
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError
from lehr.formatting import format_folder, format_seconds
from lehr.job import derive
from lehr.job.recipe import STEPS, RecipeJob
from lehr.recipe import planner, steps
from lehr.recipe.planner import Done, End, Step, following
from lehr.recipe.rates import ladder
from lehr.recipe.trial_results import pool, ranked
from lehr.recipe.trial_results import shown as in_words
from lehr.runs import RunFolder, read_model, write_model
from lehr.training.setup import check_job
from lehr.trials import Each, Outcome, Trial, run_trials

NAMES = {
    "initial_loss": "initial loss",
    "overfit": "overfit a small sample",
    "learning_rate": "find the learning rate",
    "coarse": "coarse search",
    "refine": "refine",
    "last": "train in full",
}


def check(job: RecipeJob) -> None:
    """Raises JobError where the base job could not be trained, or the budget needs a step that is left out."""
    check_job(derive(job.base, {}, parent=job, name="base"))
    if job.allowance[1] == "s" and not planner.measures_rates(job):
        planner.budget(job, Done())


def run(running: Running) -> None:
    """Does one step after the other, and ends with the model or with the reason why there is none."""
    job, folder = cast(RecipeJob, running.job), running.run.folder
    if not returns_dataset(job.base.data):
        OpenedSources(derive(job.base, {}, parent=job, name="base"))  # refused before any step, if at all
    if isinstance(end := following(job, done := steps.read(folder)), End) and end.status == "failed":
        steps.forget(folder, end.step)  # what was found wrong may be mended by now: it is looked at again
        done = steps.read(folder)
    with _ray(running, job):
        done, end = carry_on(running, job, done)
    conclude(running, job, done, end)


def carry_on(running: Running, job: RecipeJob, done: Done) -> tuple[Done, End]:
    """Does the steps that are left; returns all results, and why there is nothing more to do.

    Raises:
        Interrupted: asked to stop; every trial is saved.
    """
    folder = running.run.folder
    while isinstance(step := following(job, done), Step):
        study = Piece(running, job, done, step)
        running.screen.status(f"step {STEPS.index(step.name) + 1}, {NAMES[step.name]}")
        run_trials(running, study, at_most=None if step.name == "learning_rate" else len(study.trials))
        steps.result_of(job, done, step, study.outcomes, folder).write(folder.child(*step.folder.split("/")))
        done = steps.read(folder)
        tell_verdict(running, job, done)
        if reason := running.run.stop_requested():
            running.run.write_progress({**running.run.progress(), "status": "stopped", "message": reason})
            raise Interrupted(f"Stopped ({reason}) after {NAMES[step.name]}. Go on with: {running.command}")
    return done, step


def _ray(running: Running, job: RecipeJob) -> AbstractContextManager[object]:
    """One Ray for all steps; none where everything runs in this process."""
    if running.debug:
        return nullcontext()
    from lehr.ray_cluster.connection import connect

    count = job.base.workers.count
    running.screen.status("starting Ray")
    return connect(count if isinstance(count, int) else 1, job.base.workers.cpus)


def report(run: RunFolder) -> None:
    """Writes the recipe's page anew. Raises RunError where no step was finished yet."""
    from lehr.recipe.page import write

    write(run)


class Piece(Each):
    """The trials of one step; those of step 3 grow at the edge."""

    def __init__(self, running: Running, job: RecipeJob, done: Done, step: Step) -> None:
        super().__init__(steps.trials(job, done, step))
        self._running, self._job, self._done, self._step = running, job, done, step
        self._asked = 0

    def ask(self) -> Trial | None:
        trial = super().ask()
        if trial is None and self._step.name == "learning_rate" and len(self.outcomes) == self._asked:
            trial = steps.further_test(self._job, list(self.outcomes.values()))
            self.trials += (trial,) if trial else ()
        self._asked += trial is not None
        return trial

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        super().tell(trial, outcome)
        self.outcomes = {
            each.folder: self.outcomes[each.folder] for each in self.trials if each.folder in self.outcomes
        }

    def progress(self) -> dict[str, Any]:
        at, ended = STEPS.index(self._step.name), len(self.outcomes)
        several = f": {ended} of {len(self.trials)} trials" if len(self.trials) > 1 else ""
        within = ended / max(1, len(self.trials))
        return {
            "recipe_step": self._step.name,
            "done": share(self._job, self._done, self._step, within),
            "headline": f"step {at + 1} of {len(STEPS)}, {NAMES[self._step.name]}{several}",
            "facts": facts(self._job, self._done),
            "table": table(self._done),
        }


# ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────────


def facts(job: RecipeJob, done: Done) -> dict[str, str]:
    """What is known so far, for the screen."""
    found = {}
    if done.rounds:
        best, metric = planner.kept(done), done.rounds[-1].metric
        value = abs(best.best(metric.endswith("_loss")))
        if math.isfinite(value):
            found["best" if done.last else "best so far"] = f"{in_words(value, metric)} ({best.setting})"
    if job.allowance[1] == "ep" or done.rates:
        found["spent"] = f"{planner.spent(job, done):.0f} of {planner.budget(job, done):.0f} epochs"
    return found


def table(done: Done) -> dict[str, Any]:
    """The best trials so far."""
    if not done.rounds:
        return {"columns": [], "rows": []}
    metric = done.rounds[-1].metric
    lower = metric.endswith("_loss")
    rows = [
        [each.folder, str(each.setting), str(each.epochs), each.failed or in_words(abs(each.best(lower)), metric)]
        for each in ranked(pool(done.rounds).values(), lower)
    ]
    return {"columns": ["trial", "setting", "epochs", metric.replace("_", " ")], "rows": rows}


def share(job: RecipeJob, done: Done, step: Step, within: float) -> float:
    """About how much of the recipe is done, 0 to 1: by epochs where they are known."""
    if not (done.rounds or step.search or step.epochs):
        return (STEPS.index(step.name) + within) / 20
    adds = step.epochs * len(step.settings) or (step.search.epochs * len(step.search.settings) if step.search else 0)
    return min(1.0, (planner.spent(job, done) + within * adds) / planner.budget(job, done))


def tell_verdict(running: Running, job: RecipeJob, done: Done) -> None:
    """Says what the last step found and what was decided; lines that stay."""
    for heading, verdict in planner.chapters(job, done)[-1 if len(done.rounds) < 2 or done.last else -2 :]:
        running.screen.say(f"{heading}: {verdict.found}\n  {verdict.decided}")


def conclude(running: Running, job: RecipeJob, done: Done, end: End) -> None:
    """Keeps the model, writes the page, and ends as the recipe ended."""
    run, screen = running.run, running.screen
    told = {
        **run.progress(),
        "status": end.status,
        "message": end.sentence,
        "headline": f"{end.status}: {NAMES[end.step]}" if end.status == "failed" else end.status,
        "facts": facts(job, done),
        "table": table(done),
        "updated": time.time(),
    }
    if done.last:
        kept = RunFolder.open(run.folder.child(*done.last.kept.split("/")))
        weights, about = read_model(kept.folder)
        write_model(run.folder, weights, about)
        told |= {"done": 1.0, "best": kept.progress()["best"], "metrics": kept.progress().get("metrics", {})}
    run.write_progress(told)
    report(run)
    screen.close()
    page = f"Report: {format_folder(run.folder)}/report.html"
    if end.status == "failed":
        raise LehrError(f"Step {STEPS.index(end.step) + 1}, {NAMES[end.step]}: {end.sentence}\n{page}")
    if end.status == "stopped":
        screen.say(f"{end.sentence}; without it this run goes on.\n{page}")
        return
    assert done.last
    trainings = len(pool(done.rounds)) + 1 + len(done.last.beside)
    spent = f"{planner.spent(job, done):.0f} epochs in {trainings} trainings"
    screen.say(f"Tuned in {format_seconds(time.time() - running.started)}, {spent}.")
    metric = done.rounds[-1].metric
    screen.say(f"Best {metric.replace('_', ' ')}: {in_words(done.last.value, metric)}, {planner.kept(done).setting}")
    if done.last.test is not None:
        screen.say(f"Test accuracy of that model: {done.last.test:.2%}")
    screen.say(f"Model:  {format_folder(run.folder)}/model\n{page}")


# ── before anything runs ────────────────────────────────────────────────────────────────────────────────────────────


def preview(job: RecipeJob) -> list[tuple[str, str, str]]:
    """(step, what it does, what it costs) of everything that would be done, before any of it is."""
    amount, unit = job.allowance
    first = STEPS.index(job.recipe.start_at)
    rows = [
        ("1 initial loss", "loss, inputs, outputs and gradients before any training", "two passes over 256 images"),
        (
            "2 overfit",
            "5 batches learned by heart, at the job's rate or a usual one",
            "400 updates a rate at most, or four times as many where it is nearly there",
        ),
        ("3 learning rate", _rates_in_words(job), _rate_cost(job)),
    ]
    rows = [row for number, row in enumerate(rows) if number >= first and (number != 2 or planner.measures_rates(job))]
    trials = (len(job.recipe.learning_rates) or 3) * len(planner.decays(job))
    if unit == "s":
        whole = "what the time allows, at the speed that step 3 measures"
        return [
            *rows,
            ("4 to 7", f"{trials} coarse trials, then rounds around the best, then the last training", whole),
        ]
    settings = planner.coarse.grid((0.1,) * (len(job.recipe.learning_rates) or 3), planner.decays(job), amount)
    last = planner.last_epochs(job, Done())
    number = len(settings.settings)
    return [
        *rows,
        ("4 coarse search", f"{number} trials of {settings.epochs} epochs", f"{number * settings.epochs} epochs"),
        ("5, 6 refine, look", "rounds around the best until nothing improves", "what is left of the budget"),
        (
            "7 train in full",
            f"the best setting at {planner.HIGHER:g} times its rate, which decays",
            f"{last} epochs, or more where it pays",
        ),
    ]


def _rates_in_words(job: RecipeJob) -> str:
    lowest, highest = ladder(job.base)[0], ladder(job.base)[-1]
    if job.recipe.sweep:
        return f"one short training while the rate rises from {lowest:g} to {10 * highest:g}"
    return f"{len(ladder(job.base))} short trainings at rates from {lowest:g} to {highest:g}, more at an edge"


def _rate_cost(job: RecipeJob) -> str:
    epochs = steps.rate_test(job, 0, ladder(job.base)[-1]).job.train.epochs
    at_most = f", about {epochs} epochs where those are shorter" if job.allowance[1] == "ep" else ""
    return f"100 updates each{at_most}"


KIND = Kind(check=check, run=run, report=report, folders=("recipe", "trials"))
