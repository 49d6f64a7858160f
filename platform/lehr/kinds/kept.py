"""The training behind a run that is made of several: the one whose model it keeps, and its job as a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lehr.errors import RunError
from lehr.formatting import format_metric
from lehr.job import TrainJob, from_dict
from lehr.runs import RunFolder
from lehr.tasks.forms import spoken_in_full


@dataclass(frozen=True)
class Kept:
    """A training, and where it is in the run: `trials/0003`; empty for a run that is a training itself."""

    run: RunFolder
    folder: str = ""


def kept_training(run: RunFolder) -> Kept:
    """The training whose model a run keeps: of a search the best so far, of a recipe or a transfer the chosen one.

    Raises:
        RunError: there is none yet; or the run is an ensemble or a prediction, which keep no single one.
    """
    kind = run.job.get("kind")
    folder = {"search": _of_search, "recipe": _of_recipe, "transfer": _of_transfer}.get(str(kind))
    if kind == "train":
        return Kept(run)
    if kind == "folds":
        raise RunError(f"{run.name} keeps a training for each fold; allowed: one of them, such as {run.name}/folds/01")
    if folder is None:
        raise RunError(f"{run.name} is a run of kind {kind}, which keeps no single training")
    if not (found := folder(run)):
        raise RunError(f"{run.name} has no training that has finished an epoch yet")
    return Kept(RunFolder.open(run.folder.child(found)), found)


def as_told(run: RunFolder, name: str) -> dict[str, Any]:
    """A training for programs that compare several.

    Args:
        name: of the run, as it was given.
    """
    told = run.outcome() or run.progress()
    return {"name": name, "best": asdict(told.best), "metrics": dict(told.metrics), "job": run.job}


def kept_job(run: RunFolder) -> str:
    """A job file that trains again what a run keeps, with its seed and all values that are not defaults.

    Raises:
        RunError: as `kept_training`.
        Untrusted: the training names code that nobody allowed; a job file would allow it.
    """
    from lehr.search.winner import job_file, winning_job

    kind = run.job.get("kind")
    if kind == "search":
        return winning_job(run)
    if kind == "folds":
        from lehr.folds.results import FoldsResult
        from lehr.kinds.folds import one_network

        raise RunError(f"{run.name} keeps all of its networks. {one_network(run, FoldsResult.read(run.folder))}")
    kept = kept_training(run)
    job = from_dict(kept.run.job)
    assert isinstance(job, TrainJob)
    best = (kept.run.outcome() or kept.run.progress()).best
    what = f"# What the {kind} {run.name} keeps: {kept.folder}" if kept.folder else f"# The job of the run {run.name}"
    if best.value is not None:
        rows = kept.run.progress().measured_rows
        what += f", {spoken_in_full(best.metric)} {format_metric(best.value, best.metric, rows)}"
    return job_file(job, run, [what])


def _of_search(run: RunFolder) -> str | None:
    from lehr.search.analysis import read_search
    from lehr.search.record import folder_of

    ranked = read_search(run).ranked
    return folder_of(ranked[0].number) if ranked else None


def _of_recipe(run: RunFolder) -> str | None:
    from lehr.recipe.kept import kept_trial
    from lehr.recipe.state import RecipeState

    state = RecipeState.read(run.folder)
    return kept_trial(state).folder if state.rounds or state.final else None


def _of_transfer(run: RunFolder) -> str | None:
    from lehr.transfer.decision import TransferDecision

    decision = TransferDecision.read(run.folder)
    return f"trials/{decision.chosen}" if decision and decision.chosen else None
