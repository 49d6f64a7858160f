"""Several cross-validations against each other, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from lehr.curves.comparable import rows_of
from lehr.curves.record import Curves
from lehr.errors import RunError
from lehr.folds.results import FoldsResult, difference, name_of, with_error
from lehr.reporting.page import Section, finding, page, table
from lehr.runs import RunFolder


def compared(runs: Sequence[RunFolder]) -> tuple[str, list[str]]:
    """A page that compares cross-validations, and the sentences in it: which is better, and by more than chance.

    Raises:
        RunError: one has not ended; or they were not validated on the same folds by the same metric.
    """
    if len(runs) < 2:
        raise RunError(f"a comparison needs two or more runs, and got {len(runs)}")
    results = [FoldsResult.read(run.folder) for run in runs]
    _refuse_other_rows(runs, results)
    lower = _lower_is_better(runs[0], results[0])
    said = [
        _sentence(one.name, other.name, a, b, lower)
        for (one, a), (other, b) in combinations(zip(runs, results, strict=True), 2)
    ]
    count = len(results[0].folds)
    rows = [
        [run.name, found.in_words(), *(f"{fold.value:.4g}" for fold in found.folds), f"{found.epochs:,}"]
        for run, found in zip(runs, results, strict=True)
    ]
    head = ["run", f"mean {name_of(results[0].metric)}", *(f"fold {n}" for n in range(1, count + 1)), "epochs spent"]
    names = " · ".join(run.name for run in runs)
    sections = [Section("", finding(said[0].rstrip("."), *said[1:], METHOD)), Section("Folds", table(rows, head))]
    return page(names, f"Comparison of {len(runs)} cross-validations on the same folds", sections), said


METHOD = (
    "Differences are taken fold by fold, since a hard fold is hard for both. More than twice their standard error "
    "counts as clear, which is a rough test: folds share most of the rows they are trained on."
)


def as_data(runs: Sequence[RunFolder]) -> list[Mapping[str, Any]]:
    """The results for programs."""
    found: list[Mapping[str, Any]] = []
    for run in runs:
        result = FoldsResult.read(run.folder)
        values = [fold.value for fold in result.folds]
        figures = {"metric": result.metric, "mean": result.mean, "standard_error": result.error, "folds": values}
        found.append({"name": run.name, **figures, "out_of_fold": dict(result.measured), "job": run.job})
    return found


def _sentence(one: str, other: str, a: FoldsResult, b: FoldsResult, lower: bool) -> str:
    found = difference(a, b)
    told = with_error(abs(found.mean), found.error, a.metric)
    if found.mean == 0 and found.error == 0:
        return f"{one} and {other} are equal in every fold."
    if not found.clear:
        return f"These folds cannot tell {one} from {other}: they differ by {told}, which chance explains."
    better = one if (found.mean < 0) == lower else other
    worse = other if better == one else one
    return f"{better} is better than {worse} by {told}, mean and standard error over the folds."


def _refuse_other_rows(runs: Sequence[RunFolder], results: Sequence[FoldsResult]) -> None:
    first = [(found.metric, len(found.folds)) for found in results]
    if len(set(first)) > 1:
        each = zip(runs, first, strict=True)
        told = ", ".join(f"{run.name}: {count} folds by {metric}" for run, (metric, count) in each)
        raise RunError(f"they cannot be compared fold by fold: {told}")
    rows = [rows_of(Curves.read(run.children("folds")[0])) for run in runs]
    if differing := sorted({field for one in rows for field in one if one.get(field) != rows[0].get(field)}):
        raise RunError(f"they were validated on different rows: {', '.join(differing)} differ; allowed: the same folds")


def _lower_is_better(run: RunFolder, found: FoldsResult) -> bool:
    from lehr.job import FoldsJob, from_dict

    job = from_dict(run.job)
    return isinstance(job, FoldsJob) and job.lower_is_better(found.metric)
