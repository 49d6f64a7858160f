"""The report of a recipe: a page that reads as a story, from the first check to the model that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from markupsafe import Markup

from lehr.curves import charts
from lehr.curves.record import Curves
from lehr.curves.report import job_section, subtitle
from lehr.errors import RunError
from lehr.job import from_dict
from lehr.job.recipe import RecipeJob
from lehr.recipe import pictures, planner, rates, steps
from lehr.recipe.planner import Done
from lehr.recipe.results import Verdict
from lehr.recipe.trial_results import Round, best_of, pool, ranked, shown
from lehr.reporting.page import Section, chart, finding, page, paragraph, table
from lehr.runs import RunFolder

CHECKED = {
    "1": "Before any training, a network should do no better and no worse than a guess. Its loss is compared with that "
    "of a guess; what reaches the first layer, what comes out, and which layers a gradient reaches is looked at too.",
    "2": "A few batches, the same every time, without regularisation and augmentation, until every image is right. "
    "What cannot learn a few images by heart will not learn from many.",
    "3": "All the data and a small weight decay: a short training at each rate. The rate that brings the loss down "
    "fastest goes on together with its smaller neighbours.",
    "4": "A few rates and weight decays around that, each for a few epochs at a constant rate.",
    "5": "The best go on for longer at a constant rate; a finer grid around the best of all joins them.",
    "6": "The curves of the best trial say what is missing: time, regularisation, a wider space, a rate that decays.",
    "7": "The best setting trained in full, now with a rate that decays and may start higher. The best model of all is "
    "kept.",
}


def write(run: RunFolder) -> None:
    """Writes `report.html`. Raises RunError where no step was finished yet."""
    done = steps.read(run.folder)
    job = cast(RecipeJob, from_dict(run.job))
    if not planner.chapters(job, done):
        raise RunError(f"{run.name} has finished no step yet; there is nothing to report")
    base = subtitle(Curves(steps={}, epochs={}, job=run.job["base"]))
    text = page(run.name, f"recipe for {base}", list(sections(run, job, done)), facts(run, job, done))
    run.folder.write("report.html", text.encode())


def facts(run: RunFolder, job: RecipeJob, done: Done) -> list[tuple[str, str]]:
    """The few figures that matter most."""
    found = [("State", str(run.progress().get("status", "new")))]
    if done.rounds:
        metric, best = done.rounds[-1].metric, planner.kept(done)
        found.append((f"Best {metric.replace('_', ' ')}", shown(abs(best.best(done.rounds[-1].lower)), metric)))
        found += [("Learning rate", f"{best.setting.rate:g}"), ("Weight decay", f"{best.setting.decay:g}")]
    if done.last and done.last.test is not None:
        found.append(("Test accuracy", f"{done.last.test:.2%}"))
    if done.rates or done.rounds:
        whole = f"{planner.budget(job, done):.0f}" if job.allowance[1] == "ep" or done.rates else "?"
        found.append(("Spent", f"{planner.spent(job, done):.0f} of {whole} epochs"))
    return found


def sections(run: RunFolder, job: RecipeJob, done: Done) -> Iterator[Section]:
    """The chapters of the story, then the trials and the job."""
    for heading, verdict in planner.chapters(job, done):
        number = heading[0]
        round_number = int(heading.rpartition(" ")[2]) if number in "56" else 0
        rounds = done.rounds[: round_number + 1]
        drawn = picture(run, job, done, number, rounds)
        said = finding(
            title(job, done, number, rounds, verdict),
            verdict.found,
            verdict.decided,
            tone="good" if verdict.good else "bad",
        )
        yield Section(heading, Markup().join([paragraph(CHECKED[number], soft=True), drawn, said]))
    if done.rounds:
        metric, lower = done.rounds[-1].metric, done.rounds[-1].lower
        head = ["trial", "rate", "weight decay", "other changes", "epochs", metric.replace("_", " ")]
        rows = [
            [
                each.folder,
                f"{each.setting.rate:g}",
                f"{each.setting.decay:g}",
                ", ".join(each.setting.extra),
                str(each.epochs),
                each.failed or shown(abs(each.best(lower)), metric),
            ]
            for each in ranked(pool(done.rounds).values(), lower)
        ]
        yield Section("All trials, the best first", table(rows, head), folded=True)
    yield job_section(run)


def picture(run: RunFolder, job: RecipeJob, done: Done, number: str, rounds: tuple[Round, ...]) -> Markup:
    """The picture of a chapter; none where there is nothing to draw."""
    if number == "1" and done.initial and done.initial.counts:
        return chart(pictures.start(done.initial), longest=0) if done.initial.loss == done.initial.loss else Markup()
    if number == "2" and done.overfit and done.overfit.attempts:
        return chart(pictures.learned(done.overfit), longest=0)
    if number == "3" and done.rates and done.rates.tests:
        return chart(pictures.tests(done.rates, rates.choose(done.rates).rates), longest=0)
    if number in "45" and pool(rounds):
        return chart(pictures.trials(rounds), longest=0)
    if number == "6":
        return _curves(run, rounds[-1].best, pool(rounds)[rounds[-1].best].epochs)
    return _curves(run, done.last.trained.folder) if number == "7" and done.last else Markup()


def _curves(run: RunFolder, folder: str, epochs: int | None = None) -> Markup:
    """All curves of a trial; or only loss and accuracy of its first epochs: since then it may have gone on."""
    curves = Curves.read(RunFolder.open(run.folder.child(*folder.split("/"))))
    if not len(curves.steps["step"]):
        return Markup()
    return chart(charts.run_chart(curves) if epochs is None else charts.short_chart(curves.first_epochs(epochs)))


def title(job: RecipeJob, done: Done, number: str, rounds: tuple[Round, ...], verdict: Verdict) -> str:
    """What a chapter comes to, in a few words."""
    if not verdict.good:
        return "Ends here"
    if number == "3" and done.rates:
        return ", ".join(f"{rate:g}" for rate in rates.choose(done.rates).rates)
    if number in "45":
        best = best_of(rounds)
        return f"{shown(abs(best.best(rounds[-1].lower)), rounds[-1].metric)} with {best.setting}"
    if number == "6":
        return rounds[-1].diagnosis.title
    if number == "7" and done.last:
        return shown(done.last.value, rounds[-1].metric if rounds else job.base.train.metric)
    return "Sound" if number == "1" else "Learned by heart"
