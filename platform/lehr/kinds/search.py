"""`kind: search`: many trainings with different values, the poor ones ended early."""

from __future__ import annotations

from collections import Counter
from typing import cast

from lehr.data.load import OpenedSources
from lehr.driver import Kind, Running
from lehr.errors import LehrError, RunError
from lehr.formatting import format_folder, format_seconds
from lehr.job import from_dict
from lehr.job.search import SearchJob
from lehr.runs import RunFolder
from lehr.search.check import check_search
from lehr.search.space import Space, label
from lehr.search.study import Search
from lehr.trials import run_trials


def check(job: SearchJob) -> None:
    """Raises JobError for what can be refused without data."""
    check_search(job)


def run(running: Running) -> None:
    """Runs the trials and ends with the report and the best of them."""
    job = cast(SearchJob, running.job)
    OpenedSources(Space(job).trial({}, "trial")[0])  # data that cannot be had are refused before anything starts
    study = Search(job, running.run)
    run_trials(running, study, study.most)
    conclude(running, study)


def report(run: RunFolder) -> None:
    """Writes the search's page anew. Raises RunError where no trial has finished an epoch yet."""
    from lehr.search.report import write_report  # drawing takes a second to import: only who draws pays it

    if not any(child.progress().get("best", {}).get("value") is not None for child in run.children("trials")):
        raise RunError(f"{run.name} has no trial that finished an epoch yet; there is nothing to report")
    write_report(run)


def conclude(running: Running, study: Search) -> None:
    """Ends with what a person wants to know: what is best, what it cost, where everything is."""
    run, screen, ranking = running.run, running.screen, study.ranking()
    failed = Counter(outcome.message for outcome in study.outcomes.values() if outcome.status == "failed")
    status = "finished" if ranking else "failed"
    count = len(study.outcomes)
    message = f"{count} trials" if ranking else f"none of {count} trials finished an epoch"
    told = {"status": status, "message": message, "children": dict(Counter(map(study.state, study.outcomes)))}
    run.write_progress({**run.progress(), **study.progress(), **told, "done": 1.0})
    screen.close()
    if not ranking:
        why = failed.most_common(1)[0][0] if failed else "the budget was spent before"
        raise LehrError(f"{message}; most often: {why}")
    report(run)
    number, value = ranking[0]
    values = study.records[number].values
    early = sum(1 for record in study.records.values() if record.ended)
    counts = {"trials": len(study.outcomes), "ended early": early, "failed": failed.total()}
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    screen.say(f"{', '.join(parts)}; {study.epochs_spent} epochs in {format_seconds(study.seconds)}.")
    screen.say(f"Best {study.metric.replace('_', ' ')}: {study.shown(value)}, trial {number}")
    for path, each in values.items():
        screen.say(f"  {path} = {label(each)}")
    for why, times in failed.most_common(3):
        screen.say(f"Failed{f' ({times} trials)' if times > 1 else ''}: {why}")
    screen.say(f"Report: {format_folder(run.folder)}/report.html")
    screen.say(
        f"Train the best longer: lehr best {run.name} best.yaml && lehr run best.yaml train.epochs={3 * study.epochs}"
    )


def job_of(run: RunFolder) -> SearchJob:
    """The job of a search's run. Raises RunError where it is a run of another kind."""
    if run.job.get("kind") != "search":
        raise RunError(f"{run.name} is a run of kind {run.job.get('kind', 'train')}; allowed: a search")
    return cast(SearchJob, from_dict(run.job))


KIND = Kind(check=check, run=run, report=report, folders=("trials",))
