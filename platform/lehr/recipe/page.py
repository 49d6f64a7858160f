"""The report of a recipe: a page that reads as a story, from the first check to the model that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from markupsafe import Markup

from lehr.curves.charts import run_chart, short_chart
from lehr.curves.record import Curves
from lehr.curves.report import job_section, subtitle
from lehr.errors import RunError
from lehr.intervals import in_words
from lehr.job import from_dict
from lehr.job.recipe import RecipeJob
from lehr.recipe import charts, rates
from lehr.recipe.kept import kept_trial, metric_of, rows_of
from lehr.recipe.overview import spent_in_words
from lehr.recipe.state import RecipeState
from lehr.recipe.trial_results import SearchRound, all_trials, best_trial, format_metric, ranked
from lehr.recipe.verdicts import StepVerdict, step_verdicts
from lehr.reporting.page import Section, chart, finding, page, paragraph, table
from lehr.runs import RunFolder
from lehr.tasks.forms import spoken_in_full

PURPOSES = {
    1: "Before any training, a network should do neither better nor worse than a random guess. This step compares its "
    "loss with that of a guess, and checks what reaches the first layer, what comes out, and which layers get a "
    "gradient.",
    2: "Training on a few batches, always the same, without regularisation and augmentation, until every image is "
    "classified correctly. A network that cannot memorise a few images will not learn from many.",
    3: "A short training at each learning rate, on all the data with a small weight decay. The search continues with "
    "the rate at which the loss falls fastest and with the next lower ones.",
    4: "A few learning rates and weight decays around that rate, each for a few epochs at a constant learning rate.",
    5: "The best trials continue at a constant learning rate, and a finer grid around the best one is added.",
    6: "The learning curves of the best trial show what is missing: more epochs, regularisation, a wider search or a "
    "decaying learning rate.",
    7: "The best hyperparameters are trained in full, now with a learning rate that decays and may start higher. The "
    "recipe keeps the best model of all.",
}
"""What each step is for, by its number."""


def write(run: RunFolder) -> None:
    """Writes `report.html`. Raises RunError if no step has finished yet."""
    state = RecipeState.read(run.folder, run.progress().seconds.get("total", 0.0))
    job = cast(RecipeJob, from_dict(run.job))
    if not step_verdicts(state):
        raise RunError(f"{run.name} has finished no step yet; there is nothing to report")
    base = subtitle(Curves(steps={}, epochs={}, job=run.job["base"]))
    text = page(run.name, f"recipe for {base}", list(_sections(run, job, state)), _facts(run, job, state))
    run.folder.write("report.html", text.encode())


def _facts(run: RunFolder, job: RecipeJob, state: RecipeState) -> list[tuple[str, str]]:
    """The few figures that matter most."""
    found = [("State", str(run.status()))]
    if state.rounds or state.final:
        metric, best = metric_of(state), kept_trial(state)
        found.append((f"Best {spoken_in_full(metric)}", best.format_best(metric, rows_of(state))))
        found += [("Learning rate", f"{best.setting.rate:g}"), ("Weight decay", f"{best.setting.decay:g}")]
    if state.final and state.final.test is not None:
        found.append(("Test accuracy", in_words(state.final.test, state.final.test_rows)))
    found.append(("Spent", spent_in_words(job, state)))
    return found


def _sections(run: RunFolder, job: RecipeJob, state: RecipeState) -> Iterator[Section]:
    """A section for each verdict, then all trials and the job."""
    for each in step_verdicts(state):
        rounds = state.rounds[: each.step.round + 1]
        said = finding(
            _title(job, state, each, rounds),
            each.verdict.found,
            each.verdict.decided,
            tone="good" if each.verdict.good else "bad",
        )
        body = Markup().join([paragraph(PURPOSES[each.number], soft=True), _chart(run, state, each, rounds), said])
        yield Section(each.heading, body)
    if state.rounds:
        yield _all_trials(state)
    yield job_section(run)


def _all_trials(state: RecipeState) -> Section:
    metric = state.rounds[-1].metric
    head = ["trial", "learning rate", "weight decay", "other changes", "epochs", spoken_in_full(metric)]
    rows = [
        [
            trial.folder,
            f"{trial.setting.rate:g}",
            f"{trial.setting.decay:g}",
            ", ".join(trial.setting.other_changes),
            str(trial.epochs),
            trial.format_outcome(metric, rows_of(state)),
        ]
        for trial in ranked(all_trials(state.rounds).values(), metric)
    ]
    return Section("All trials, best first", table(rows, head), folded=True)


def _chart(run: RunFolder, state: RecipeState, each: StepVerdict, rounds: tuple[SearchRound, ...]) -> Markup:
    """The chart of a section; none if there is nothing to draw."""
    number = each.number
    if number == 1 and state.initial and state.initial.counts:
        measured = state.initial.loss == state.initial.loss
        return chart(charts.initial_loss_chart(state.initial), longest=len("this network")) if measured else Markup()
    if number == 2 and state.overfit and state.overfit.attempts:
        return chart(charts.overfit_chart(state.overfit))
    if number == 3 and state.rates and state.rates.tests:
        return chart(charts.rate_tests_chart(state.rates, rates.choose(state.rates).rates))
    if number in (4, 5) and all_trials(rounds):
        return chart(charts.trials_chart(rounds))
    if number == 6:
        return _curves(run, rounds[-1].best, all_trials(rounds)[rounds[-1].best].epochs)
    trained = number == 7 and state.final and state.final.trained.epochs
    return _curves(run, state.final.trained.folder) if trained and state.final else Markup()


def _curves(run: RunFolder, folder: str, epochs: int | None = None) -> Markup:
    """All curves of a trial; or only loss and accuracy of its first epochs, since it may have continued after them."""
    curves = Curves.read(RunFolder.open(run.folder.child(folder)))
    if not len(curves.steps["step"]):
        return Markup()
    return chart(run_chart(curves) if epochs is None else short_chart(curves.first_epochs(epochs)))


def _title(job: RecipeJob, state: RecipeState, each: StepVerdict, rounds: tuple[SearchRound, ...]) -> str:
    """The result of a section in a few words."""
    number = each.number
    if not each.verdict.good:
        return "The recipe stops here"
    if number == 3 and state.rates:
        return ", ".join(f"{rate:g}" for rate in rates.choose(state.rates).rates)
    if (number == 3 and not state.rates) or (number == 4 and not state.rounds):
        return "Left out"
    if number in (4, 5):
        best = best_trial(rounds)
        return f"{best.format_best(rounds[-1].metric, rounds[-1].validation_rows)} with {best.setting}"
    if number == 6:
        return rounds[-1].diagnosis.title
    if number == 7 and state.final:
        return format_metric(state.final.value, metric_of(state), rows_of(state))
    if number == 2 and state.overfit and state.overfit.cut:
        return "Cut short" if state.overfit.attempts else "Left out"
    return "Passed" if number == 1 else "Memorised"
