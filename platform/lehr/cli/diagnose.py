"""`lehr diagnose`: what the learning curves of a run show, and with probes, what causes it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehr.cli.options import RunName, Storage, Trust, only_one, storage_or_default
from lehr.errors import JobError, LehrError

if TYPE_CHECKING:
    from rich.console import Console

    from lehr.curves.findings import Diagnosis, Finding
    from lehr.probes import Diagnosed, ProbeResult, Subject
    from lehr.runs import RunFolder


def diagnose(
    run: RunName,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Measure what tells causes apart: short trainings on this machine, without Ray."),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            help="What the probes may cost, in epochs of the run's training rows (2ep). By default as many as the run "
            "has, or what some hundred updates take if that is more.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="How long the probes may take; by default as long as they need.")
    ] = None,
    storage: Storage = None,
    trust: Trust = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: diagnosis.json, and what probes found.")] = False,
) -> None:
    """Diagnose a run from its learning curves.

    Shows what is wrong or right, the evidence, what else could look like it, and what to change. With --probe it also
    finds out which cause it is. Writes nothing.

    Example: lehr diagnose train
    Example: lehr diagnose train --probe --budget 2ep
    """
    from lehr.curves import diagnose_run
    from lehr.result import find

    for name, value in (("--budget", budget), ("--minutes", minutes), ("--trust", trust)):
        if value is not None and not probe:
            only_one(name, "a diagnosis from curves alone", "allowed: with --probe")
    where = storage_or_default(storage)
    folder = find(run, where).record
    outcome, training = folder.outcome(), folder.progress().training
    if outcome and outcome.status == "failed" and not (training and training.step):
        raise LehrError(f"{run} failed before its first step: {outcome.message or 'no reason was recorded'}")
    diagnosis = diagnose_run(folder)
    subject = _subject(folder, budget, minutes, trust or [], where) if probe else None
    if as_json:
        found = _probed(subject, diagnosis) if subject else {}
        print(json.dumps(diagnosis.to_json() | found, indent=2))
        return
    from lehr.screen import console

    shown = console(soft_wrap=True)
    for number, finding in enumerate(diagnosis.findings):
        if number:
            shown.print()
        # The probes say which of them it is, where a row has one class.
        _show_finding(shown, finding, others=not subject and _has_classes(folder))
    if subject:
        shown.print()
        _show_probes(shown, subject, diagnosis)
    elif _probes_for(diagnosis) and _has_classes(folder):
        shown.print(f"To find out: lehr diagnose {run} --probe{f' --storage {storage}' if storage else ''}")


def _show_finding(shown: Console, finding: Finding, others: bool) -> None:
    from rich.text import Text

    from lehr.curves.alternatives import MOST_SHOWN, in_a_line

    style = "bold green" if finding.good else "bold yellow"
    shown.print(Text.assemble((finding.title, style), "  ", (f"{finding.confidence} confidence", "dim")))
    shown.print(finding.sentence)
    shown.print(finding.advice)
    if finding.rerun:
        shown.print(f"  {finding.rerun}")
    if others and (line := in_a_line(finding.name, MOST_SHOWN)):
        shown.print(line, style="dim")
    shown.print(f"Rule: {finding.rule}.", style="dim")


def _has_classes(folder: RunFolder) -> bool:
    """Whether each row of a run has one class, as the probes need it."""
    from lehr.tasks.forms import USUAL

    task = folder.job.get("task")
    return not isinstance(task, dict) or task.get("name", USUAL) == USUAL


def _probes_for(diagnosis: Diagnosis) -> tuple[Any, ...]:
    from lehr.curves.alternatives import probes_for

    return probes_for(finding.name for finding in diagnosis.findings)


def _subject(folder: RunFolder, budget: str | None, minutes: float | None, trusted: list[str], where: str) -> Subject:
    """What the probes measure. Raises JobError for a budget that is none."""
    from pathlib import Path

    import torch

    from lehr.machine import cores
    from lehr.own_modules import look_in
    from lehr.probes import subject_of
    from lehr.result import trust_all

    epochs, seconds = _epochs(budget), math.inf
    if minutes is not None:
        if not minutes > 0:
            raise JobError(f"{minutes:g} is no time; allowed: above 0, such as --minutes 2", field="--minutes")
        seconds = 60 * minutes
    look_in(Path.cwd())  # where the user's own modules are
    trust_all(trusted, where)
    torch.set_num_threads(cores())
    return subject_of(folder, epochs, seconds)


def _epochs(budget: str | None) -> float | None:
    from lehr.durations import Duration

    if budget is None:
        return None
    try:
        given = Duration.parse(budget)
    except ValueError as error:
        raise JobError(str(error), field="--budget") from None
    if given.unit != "ep" or not given.amount > 0:
        raise JobError(f"{budget} is no number of epochs; allowed: above 0, such as --budget 2ep", field="--budget")
    return given.amount


def _probed(subject: Subject, diagnosis: Diagnosis) -> dict[str, Any]:
    from lehr.probes import probe

    results = list(probe(subject, _probes_for(diagnosis)))
    return {
        "probes": [each.to_json() for each in results],
        "cause": _conclusion(results, diagnosis).to_json(),
        "epochs_spent": subject.epochs(subject.budget.spent),
    }


def _conclusion(results: list[ProbeResult], diagnosis: Diagnosis) -> Diagnosed:
    from lehr.curves.alternatives import causes_of
    from lehr.probes import conclude

    return conclude(results, causes_of(finding.name for finding in diagnosis.findings))


def _show_probes(shown: Console, subject: Subject, diagnosis: Diagnosis) -> None:
    from rich.text import Text

    from lehr.curves.alternatives import CAUSES
    from lehr.probes import probe

    results = []
    for result in probe(subject, _probes_for(diagnosis)):
        results.append(result)
        cost = "" if result.left_out else f"  {result.epochs:.2g} epochs, {result.seconds:.1f} s"
        shown.print(Text.assemble((result.name, "bold"), f"  {result.question}", (cost, "dim")))
        shown.print(f"  {'Left out. ' if result.left_out else ''}{result.measured}.")
    if not results:
        shown.print("No probe can tell more than this finding says.")
        return
    found = _conclusion(results, diagnosis)
    shown.print()
    shown.print(f"{found.sentence}.", style="bold yellow" if found.cause else "bold")
    if found.rerun:
        shown.print(f"  {found.rerun}")
    for title, causes in (("Ruled out", found.ruled_out), ("Not told", found.untold)):
        if causes:
            shown.print(f"{title}: {'; '.join(CAUSES[cause] for cause in causes)}.", style="dim")
    spent = subject.epochs(subject.budget.spent)
    allowed = subject.epochs(round(subject.budget.rows))
    shown.print(f"The probes took {spent:.2g} of {allowed:g} epochs.", style="dim")
