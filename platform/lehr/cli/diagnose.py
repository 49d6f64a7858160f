"""`lehr diagnose`: what the learning curves of a run or of another tool show, and with probes, what causes it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehr.cli import other_tools
from lehr.cli.options import Storage, Trust, only_one, storage_or_default
from lehr.errors import JobError, LehrError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lehr.curves.findings import Diagnosis, Finding
    from lehr.probes import Diagnosed, ProbeResult, Subject
    from lehr.runs import RunFolder


def diagnose(
    run: Annotated[
        str,
        typer.Argument(
            help="A run: its name, or the path or URI of its folder; or a file in which another tool recorded curves.",
            show_default=False,
        ),
    ],
    files: Annotated[list[str] | None, typer.Argument(help="More files of other tools.", show_default=False)] = None,
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
    columns: other_tools.Columns = None,
    rows: other_tools.Rows = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: diagnosis.json, and what probes found.")] = False,
) -> None:
    """Diagnose a run from its learning curves.

    Shows what is wrong or right, the evidence, what else could look like it, and what to change. With --probe it also
    finds out which cause it is, and keeps that with the run as probes.json; without, it writes nothing. It also reads
    what other tools recorded: CSV files of Keras, Lightning, timm and Ultralytics, trainer_state.json, exports of
    Weights & Biases, TensorBoard's events and MLflow's folders.

    Example: lehr diagnose train
    Example: lehr diagnose train --probe --budget 2ep
    Example: lehr diagnose runs/detect/train/results.csv
    """
    from lehr.curves import diagnose_run
    from lehr.curves.findings import rerun_with
    from lehr.curves.typed import as_typed
    from lehr.result import find

    for name, value in (("--budget", budget), ("--minutes", minutes), ("--trust", trust)):
        if value is not None and not probe:
            only_one(name, "a diagnosis from curves alone", "allowed: with --probe")
    named = [run, *(files or [])]
    if other_tools.are_logs(named):
        for name, value in (("--probe", probe), ("--storage", storage)):
            if value:
                only_one(name, "a file of another tool", "allowed: with a run of lehr")
        other_tools.show_diagnoses(other_tools.read(named, columns, rows), as_json)
        return
    for name, value in (("--column", columns), ("--rows", rows)):
        if value is not None:
            only_one(name, "a run of lehr", "allowed: with files of other tools")
    if files:
        raise JobError(f"{len(named)} runs; allowed: one run, or files of other tools")
    where = storage_or_default(storage)
    folder = find(run, where).record
    outcome, training = folder.outcome(), folder.progress().training
    if outcome and outcome.status == "failed" and not (training and training.step):
        raise LehrError(f"{run} failed before its first step: {outcome.message or 'no reason was recorded'}")
    diagnosis = diagnose_run(folder)
    ruled_out = diagnosis.measured.ruled_out if diagnosis.measured else ()
    subject = _subject(folder, budget, minutes, trust or [], where) if probe else None
    if as_json:
        found = _probed(subject, diagnosis, folder) if subject else {}
        print(json.dumps(diagnosis.to_json() | found, indent=2))
        return
    from lehr.screen import console

    shown = console(soft_wrap=True)
    for number, finding in enumerate(diagnosis.findings):
        if number:
            shown.print()
        # The probes say which of them it is, where a row has one class.
        others = not subject and _has_classes(folder)
        _show_finding(shown, finding, folder, others=others, ruled_out=ruled_out)
    if subject:
        shown.print()
        _show_probes(shown, subject, diagnosis, folder)
    elif diagnosis.measured:
        shown.print(diagnosis.measured.sentence)
        if rerun := rerun_with(diagnosis.measured.overrides):
            shown.print(f"  {as_typed(rerun, folder)}")
    elif _probes_for(diagnosis) and _has_classes(folder):
        shown.print(f"To find out: lehr diagnose {run} --probe{f' --storage {storage}' if storage else ''}")


def _show_finding(shown: Console, finding: Finding, run: RunFolder, others: bool, ruled_out: Sequence[str]) -> None:
    from rich.text import Text

    from lehr.curves.alternatives import MOST_SHOWN, in_a_line
    from lehr.curves.typed import as_typed

    style = "bold green" if finding.good else "bold yellow"
    shown.print(Text.assemble((finding.title, style), "  ", (f"{finding.confidence} confidence", "dim")))
    shown.print(finding.sentence, soft_wrap=True)
    shown.print(as_typed(finding.advice, run), soft_wrap=True)
    if finding.rerun:
        shown.print(f"  {as_typed(finding.rerun, run)}", soft_wrap=True)
    if others and (line := in_a_line(finding.name, MOST_SHOWN, ruled_out)):
        shown.print(line, style="dim", soft_wrap=True)
    shown.print(f"Rule: {finding.rule}.", style="dim", soft_wrap=True)


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


def _probed(subject: Subject, diagnosis: Diagnosis, folder: RunFolder) -> dict[str, Any]:
    from lehr.probes import probe

    results = list(probe(subject, _probes_for(diagnosis)))
    found = _conclusion(results, diagnosis)
    _keep(found, folder)
    return {
        "probes": [each.to_json() for each in results],
        "cause": found.to_json(),
        "epochs_spent": subject.epochs(subject.budget.spent),
    }


def _conclusion(results: list[ProbeResult], diagnosis: Diagnosis) -> Diagnosed:
    from lehr.curves.alternatives import causes_of
    from lehr.probes import conclude

    return conclude(results, causes_of(finding.name for finding in diagnosis.findings))


def _keep(found: Diagnosed, folder: RunFolder) -> str:
    """Keeps with the run what probes said, so that it is not asked again; returns a sentence about that, or nothing.

    A run that has not ended is another one soon, and what cannot be written is only told.
    """
    from lehr.curves.measured import FILE, Measured
    from lehr.curves.record import Curves

    if folder.outcome() is None or not (found.cause or found.ruled_out):
        return ""
    step = int(Curves.read(folder).steps["step"][-1])
    try:
        Measured(step, found.cause, found.overrides, found.ruled_out).write(folder.folder)
    except StorageError as error:
        return f"It is not kept with the run: {error}."
    return f"Kept as {FILE} for later diagnoses and reports: lehr report {folder.name}."


def _show_probes(shown: Console, subject: Subject, diagnosis: Diagnosis, folder: RunFolder) -> None:
    from rich.text import Text

    from lehr.curves.alternatives import CAUSES
    from lehr.curves.typed import as_typed
    from lehr.probes import probe

    results = []
    for result in probe(subject, _probes_for(diagnosis)):
        results.append(result)
        cost = "" if result.left_out else f"  {result.epochs:.3g} epochs, {result.seconds:.1f} s"
        shown.print(Text.assemble((result.name, "bold"), f"  {result.question}", (cost, "dim")))
        shown.print(f"  {'Left out. ' if result.left_out else ''}{result.measured}.", soft_wrap=True)
    if not results:
        shown.print("No probe can tell more than this finding says.")
        return
    found = _conclusion(results, diagnosis)
    shown.print()
    shown.print(f"{found.sentence}.", style="bold yellow" if found.cause else "bold")
    if found.rerun:
        shown.print(f"  {as_typed(found.rerun, folder)}")
    for title, causes in (("Ruled out", found.ruled_out), ("Not told", found.untold)):
        if causes:
            shown.print(f"{title}: {'; '.join(CAUSES[cause] for cause in causes)}.", style="dim")
    spent = subject.epochs(subject.budget.spent)
    allowed = subject.epochs(round(subject.budget.rows))
    shown.print(f"The probes took {spent:.3g} of {allowed:.3g} epochs.", style="dim")
    if kept := _keep(found, folder):
        shown.print(kept, style="dim")
