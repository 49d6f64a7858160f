"""`lehr show`: one run in detail, or how its parameters are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehr.cli.options import AsJson, Overrides, Storage, Trust, only_one, print_json, rehearsed, storage_or_default
from lehr.errors import LehrError

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from lehr.job import Job

FIRST, LAST = 4, 20  # epochs that are shown of a long run
MOST_METRICS = 4  # of those that the job itself lists; the report has them all
GAP = 2  # characters between two columns
MOST_EVENTS = 200  # the newest ones


def show(
    run: Annotated[
        str,
        typer.Argument(
            help="A run: its name, or the path or URI of its folder; or a job file.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    storage: Storage = None,
    parameters: Annotated[
        bool,
        typer.Option("--parameters", help="Show what trains each parameter, at which rate and with which decay."),
    ] = False,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: its state, verdict, progress, epochs and events. Or a job file: the whole job that it means.

    Example: lehr show train
    Example: lehr show jobs/train.yaml optimizer=adamw
    Example: lehr show jobs/train.yaml optimizer=muon --parameters
    """
    if parameters:
        show_parameters(run, overrides or [], storage_or_default(storage), trust or [])
        return
    if parameters and as_json:
        only_one("--json", "--parameters", "its output is for people")
    if run.endswith((".yaml", ".yml")):
        show_job(run, overrides or [], trust or [], storage_or_default(storage), as_json)
        return
    if overrides or trust:
        said = overrides[0] if overrides else "--trust"
        raise LehrError(
            f"{said} has no effect on what is shown of a run; allowed: with --parameters, or with a job file"
        )
    from rich.text import Text

    from lehr.curves import verdict
    from lehr.formatting import format_time_table
    from lehr.result import as_data, find
    from lehr.runs import damage
    from lehr.screen import console, facts_of, overview

    found = find(run, storage_or_default(storage)).record
    if as_json:
        print_json(as_data(found))
        return
    shown, progress = console(), found.progress()
    shown.print(Text.assemble((found.name, "bold"), f"  {found.status()}  {found.folder.uri}"))
    if problem := damage(found):
        shown.print(problem, style="yellow")
    if progress.message:
        shown.print(progress.message)
    if sentence := verdict(found):
        shown.print(f"Verdict: {sentence}")
    if progress.overview:
        shown.print(overview(progress, progress.overview))
    elif progress.training:
        facts = [Text.assemble((name, "dim"), f" {value}") for name, value in facts_of(progress, of_epoch=True)]
        shown.print(Text("  ").join(facts), soft_wrap=True)
        shown.print(Text.assemble(("time", "dim"), f" {format_time_table(progress.seconds)}"))
    epochs = found.epochs()
    if len(epochs):
        names, left = _columns(epochs, shown.width, progress.best.metric)
        shown.print(_table(epochs, names))
        if left:
            shown.print(f"{left} more columns are in the report: lehr report {found.name}", style="dim", soft_wrap=True)
    events = found.events()
    if len(events) > MOST_EVENTS:
        shown.print(f"The last {MOST_EVENTS} of {len(events):,} events:", style="dim")
    for event in events[-MOST_EVENTS:]:
        time = event["time"][:19].replace("T", " ")
        shown.print(Text.assemble((time, "dim"), f" {event['kind']}: {event['message']}"), soft_wrap=True)


def show_job(file: str, overrides: list[str], trust: list[str], storage: str, as_json: bool) -> None:
    """Prints the whole job that a file means, and how large its data and its network are."""
    import yaml

    from lehr.job import load, to_dict
    from lehr.kinds import check
    from lehr.own_modules import look_in
    from lehr.result import trust_all

    trust_all(trust, storage)
    job = load(file, overrides)
    look_in(job.folder)
    check(job)
    problem = ""
    try:
        facts = rehearsed(job)
    except LehrError as error:  # the job is one, though its data are not here
        facts, problem = None, str(error)
    if as_json:
        training = {"training": facts.to_json()} if facts else {}
        print_json({"name": job.run_name, "job": to_dict(job), **training, "problem": problem})
        return
    print(yaml.safe_dump(to_dict(job), sort_keys=False, allow_unicode=True), end="")
    for line in facts.lines() if facts else []:
        print(f"# {line}")
    if problem:
        print(f"# cannot run here: {problem}")


def _columns(epochs: pa.Table, width: int, metric: str = "") -> tuple[list[str], int]:
    """The columns that have a value, as many as fit into the terminal whole, and how many are left out.

    Args:
        metric: decides which model is kept; shown before others.
    """
    from lehr.runs.columns import listed

    count = len(epochs)
    names = [
        name for name in epochs.column_names if name not in ("step", "seconds") and epochs[name].null_count < count
    ]
    own = [name for split in ("validation", "averaged_validation", "clean_train") for name in listed(names, split)]
    fitting: list[str] = []
    wanted = [name for name in names if name not in own] + own[:MOST_METRICS]
    for name in sorted(wanted, key=lambda name: name not in ("epoch", metric)):
        if sum(_width(epochs, each) + GAP for each in [*fitting, name]) - GAP <= width or not fitting:
            fitting.append(name)
    return [name for name in names if name in fitting], len(names) - len(fitting)


def _width(epochs: pa.Table, name: str) -> int:
    """Characters of a column: of its longest number, or word of its name, which is broken at spaces."""
    return max(map(len, [*name.split("_"), *(_cell(row[name]) for row in _some(epochs).to_pylist())]))


def _some(epochs: pa.Table) -> pa.Table:
    """The first and the last epochs."""
    import pyarrow as pa

    long = len(epochs) > FIRST + LAST
    return pa.concat_tables([epochs[:FIRST], epochs[-LAST:]]) if long else epochs


def _table(epochs: pa.Table, names: list[str]) -> Table:
    """The first and the last epochs, in these columns."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right", width=_width(epochs, name))
    for row in _some(epochs).to_pylist():
        table.add_row(*(_cell(row[name]) for name in names))
    return table


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else "" if value is None else str(value)


def show_parameters(name: str, overrides: list[str], storage: str, trust: list[str]) -> None:
    """Prints the parameter groups of a job, or of a run's job."""
    from rich.table import Table
    from rich.text import Text

    from lehr.job import training_in
    from lehr.kinds import check
    from lehr.own_modules import look_in
    from lehr.result import trust_all
    from lehr.screen import console
    from lehr.training.rehearsal import parameter_groups_of

    trust_all(trust, storage)
    job = _job_of(name, overrides, storage)
    look_in(job.folder)
    training = training_in(job, "parameters")
    if training is None:
        raise LehrError(f"{name}: a job of kind {job.kind} trains no network of its own; allowed: kind: train")
    check(job := training)
    shown, rate = console(), job.optimizer.rate
    shown.print(Text.assemble((job.optimizer.name, "bold"), f"  learning rate {rate:g}"))
    for group in parameter_groups_of(job):
        count = len(group.parameters)
        title = f"{count} parameter{'' if count == 1 else 's'} with {group.count:,} numbers"
        if group.by:
            terms = f"learning rate × {group.share:g} = {rate * group.share:g}, weight decay {group.weight_decay:g}"
            shown.print(Text.assemble("\n", (f"trained by {group.by}", "bold"), f": {title}; {terms}"), soft_wrap=True)
        else:
            shown.print(Text.assemble("\n", ("never trained", "bold"), f": {title}"))
        table = Table(box=None, pad_edge=False, show_header=False)
        for parameter, shape in group.parameters.items():
            table.add_row(f"  {parameter}", " × ".join(map(str, shape)) or "1")
        shown.print(table)


def _job_of(name: str, overrides: list[str], storage: str) -> Job:
    """The job in a file, or that of a run.

    Raises:
        Untrusted: the run names code that nobody allowed.
    """
    from pathlib import Path

    from lehr.formatting import format_folder
    from lehr.job import from_dict, load, to_dict
    from lehr.own_modules import look_in
    from lehr.result import find
    from lehr.trust import calls_of, check

    if name.endswith((".yaml", ".yml")):
        return load(name, overrides)
    look_in(Path.cwd())  # where the user's own modules are
    found = find(name, storage).record
    job = from_dict(found.job, overrides)
    check(calls_of(to_dict(job)), format_folder(found.folder))
    return job
