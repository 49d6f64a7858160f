"""`lehr diagnose`: what the curves of a run say."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lehr.cli.options import RunName, Storage, storage_or_default
from lehr.errors import LehrError


def diagnose(
    run: RunName,
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as in diagnosis.json.")] = False,
) -> None:
    """Say what a run's learning curves show: what is wrong or right, the evidence, and what to change."""
    from lehr.curves import diagnose_run
    from lehr.result import find

    folder = find(run, storage_or_default(storage)).folder
    progress = folder.progress()
    if progress.get("status") == "failed" and not progress.get("step"):
        raise LehrError(f"{run} failed before its first step: {progress.get('message', 'it does not say why')}")
    found = diagnose_run(folder)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for number, finding in enumerate(found.findings):
        if number:
            console.print()
        style = "green" if finding.good else "yellow"
        console.print(f"[bold {style}]{finding.title}[/]  [dim]{finding.confidence} confidence[/]")
        console.print(f"{finding.evidence[:1].upper()}{finding.evidence[1:]}.", markup=False)
        console.print(finding.advice, markup=False)
        if finding.command:
            console.print(f"  lehr run JOB {finding.command}", markup=False)
        console.print(f"Rule: {finding.rule}.", style="dim", markup=False)
