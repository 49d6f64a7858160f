"""`kind: search`: many trainings with different values; those that fall behind are ended early."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import cast

from lehr.curves.more_rows import advise_folds_of_kept
from lehr.data.load import OpenedSources
from lehr.driver import Kind, Running
from lehr.errors import LehrError
from lehr.formatting import count_of, format_folder, format_seconds
from lehr.job.search import SearchJob
from lehr.runs import Progress, RunFolder
from lehr.search.check import check_search
from lehr.search.formats import close_to_best, format_metric, format_value, metric_name
from lehr.search.space import Space
from lehr.search.study import SearchStudy
from lehr.trials import run_trials


def run(running: Running) -> None:
    """Runs the trials; ends with the report and the best trial."""
    job = cast(SearchJob, running.job)
    OpenedSources(Space(job).trial({}, "trial")[0])  # data that cannot be read are refused before anything starts
    study = SearchStudy(job, running.run)
    run_trials(running, study, study.max_trials)
    conclude(running, study)


def report(run: RunFolder) -> None:
    """Writes the report again. Raises RunError if no trial has finished an epoch yet."""
    from lehr.search.report import write_report  # imports the charts, which takes a second

    write_report(run)


def conclude(running: Running, study: SearchStudy) -> None:
    """Records the end, writes the report, and says which trial is best, what the search cost, and what to do next."""
    run, screen, ranking = running.run, running.screen, study.ranking()
    failed = Counter(outcome.message for outcome in study.outcomes.values() if outcome.status == "failed")
    count = len(study.outcomes)
    found = f"{count} trial{'s' * (count != 1)}: {study.ending}"
    message = (
        found
        if ranking
        else f"none of {count_of(count, 'trial')} finished an epoch"
        if count != 1
        else "the trial finished no epoch"
    )
    _write_end(run, study, message, found=bool(ranking))
    screen.close()
    if not ranking:
        why = failed.most_common(1)[0][0] if failed else study.ending
        raise LehrError(f"{message}; the most frequent reason: {why}")
    report(run)
    number, best = ranking[0]
    early = sum(1 for record in study.records.values() if record.ended)
    counts = {"trials": count, "ended early": early, "failed": failed.total()}
    parts = [f"{each} {what}" for what, each in counts.items() if each]
    screen.say(f"{', '.join(parts)}; {study.epochs_spent} epochs in {format_seconds(study.seconds)}.")
    screen.say(f"{study.ending[:1].upper()}{study.ending[1:]}.")
    told = format_metric(best.score, study.metric, study.measured_rows)
    screen.say(f"Best {metric_name(study.metric)}: {told}, trial {number}")
    named = [(f"trial {each}", of.score) for each, of in ranking]
    if close := close_to_best(study.metric, named, study.measured_rows):
        screen.say(close)
        if advice := advise_folds_of_kept(run, run.progress()):
            screen.say(advice)
    for path, each in study.records[number].values.items():
        screen.say(f"  {path} = {format_value(each)}")
    for why, times in failed.most_common(3):
        screen.say(f"Failed{f' ({times} trials)' if times > 1 else ''}: {why}")
    screen.say(f"Report: {format_folder(run.folder)}/report.html")
    longer = f"lehr best {run.name} best.yaml && lehr run best.yaml train.epochs={3 * study.epochs}"
    screen.say(f"Train the best trial longer: {longer}")


def _write_end(run: RunFolder, study: SearchStudy, message: str, *, found: bool) -> None:
    progress, states = study.progress(), Counter[str](map(study.state, study.outcomes))
    ended = Progress(
        status="finished" if found else "failed",
        message=message,
        best=progress.best,
        measured_rows=progress.measured_rows,
        seconds=progress.seconds,
        updated=time.time(),
        overview=replace(
            progress.overview,
            done=1.0,
            children=dict(states),
            facts={**progress.overview.facts, "ended": study.ending},
        ),
    )
    run.write_progress(ended)


KIND = Kind(check=check_search, run=run, report=report, folders=("trials",))
