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

    Shows what is wrong or right, the evidence, and what to change. Writes nothing.

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
    from rich.text import Text

    from lehr.screen import console

    shown = console(soft_wrap=True)
    for number, finding in enumerate(diagnosis.findings):
        if number:
            shown.print()
        style = "bold green" if finding.good else "bold yellow"
        shown.print(Text.assemble((finding.title, style), "  ", (f"{finding.confidence} confidence", "dim")))
        shown.print(finding.sentence)
        shown.print(finding.advice)
        if finding.rerun:
            shown.print(f"  {finding.rerun}")
        shown.print(f"Rule: {finding.rule}.", style="dim")
