"""`lehr diagnose`: what the learning curves of a run show."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lehr.cli.options import RunName, Storage, storage_or_default
from lehr.errors import LehrError


def diagnose(
    run: RunName,
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, the content of diagnosis.json.")] = False,
) -> None:
    """Diagnose a run from its learning curves.

    Shows what is wrong or right, the evidence, and what to change.

    Example: lehr diagnose train
    """
    from lehr.curves import diagnose_run
    from lehr.result import find

    folder = find(run, storage_or_default(storage)).record
    outcome, training = folder.outcome(), folder.progress().training
    if outcome and outcome.status == "failed" and not (training and training.step):
        raise LehrError(f"{run} failed before its first step: {outcome.message or 'no reason was recorded'}")
    diagnosis = diagnose_run(folder)
    if as_json:
        print(json.dumps(diagnosis.to_json(), indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for number, finding in enumerate(diagnosis.findings):
        if number:
            console.print()
        style = "green" if finding.good else "yellow"
        console.print(f"[bold {style}]{finding.title}[/]  [dim]{finding.confidence} confidence[/]")
        console.print(finding.sentence, markup=False)
        console.print(finding.advice, markup=False)
        if finding.rerun:
            console.print(f"  {finding.rerun}", markup=False)
        console.print(f"Rule: {finding.rule}.", style="dim", markup=False)
