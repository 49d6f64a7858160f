"""What a search has found, read from its run folder: pure functions of its trials, without pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, cast

from lehr.errors import JobError
from lehr.job import from_dict
from lehr.job.search import Dimension, SearchJob
from lehr.runs import RunFolder
from lehr.search.record import Record, read_records
from lehr.search.samplers import distribution, to_optuna
from lehr.search.space import Space, Values, label, place_of

EDGE = 0.1  # how near to an end of its range the best value is at the edge, as a share of the range
FEWEST = 4  # trials without which importance is not worth a number


@dataclass(frozen=True)
class Result:
    """How one trial went.

    Attributes:
        scores: the metric after each epoch, as measured.
        best: the best of them; None where no epoch was finished.
        state: finished (to its end), ended (early, by the search), failed, or stopped (not yet at its end).
        message: why it ended.
    """

    number: int
    values: Values
    scores: tuple[float, ...]
    best: float | None
    state: Literal["finished", "ended", "failed", "stopped"]
    message: str


@dataclass(frozen=True)
class Found:
    """A search and its results."""

    job: SearchJob
    results: tuple[Result, ...]

    @property
    def metric(self) -> str:
        return self.job.base.train.metric

    @property
    def sign(self) -> float:
        """1 where a higher metric is better, else −1."""
        return -1.0 if self.metric.endswith("loss") else 1.0

    @property
    def ranked(self) -> list[Result]:
        """The results that count, the best first."""
        known = [result for result in self.results if result.best is not None and result.state != "failed"]
        return sorted(known, key=lambda result: (-self.sign * cast(float, result.best), result.number))

    @property
    def space(self) -> Mapping[str, Dimension]:
        return self.job.space


def read_search(run: RunFolder) -> Found:
    """The search in a run folder, as far as it is."""
    job = cast(SearchJob, from_dict(run.job))
    sign = -1.0 if job.base.train.metric.endswith("loss") else 1.0
    results = []
    for number, record in sorted(read_records(run).items()):
        folder = run.folder.child(*record.folder.split("/"))
        if folder.exists("job.yaml"):
            results.append(_result(number, record, RunFolder.open(folder).progress(), sign))
    return Found(job, tuple(results))


def _result(number: int, record: Record, progress: Mapping[str, Any], sign: float) -> Result:
    status, known = progress.get("status", "new"), [score for score in record.scores if math.isfinite(score)]
    state: Literal["finished", "ended", "failed", "stopped"] = "stopped"
    if status in ("failed", "finished"):
        state = "failed" if status == "failed" else "ended" if record.ended else "finished"
    best = sign * max(sign * score for score in known) if known else None
    return Result(number, record.values, record.scores, best, state, str(progress.get("message", "")))


# ── what mattered ─────────────────────────────────────────────────────────────────────────────────────────────────


def importance(found: Found) -> dict[str, float]:
    """How much each field mattered for being among the better trials, the most first; shares that add up to 1.

    Optuna's PED-ANOVA (Watanabe et al., 2023). Fields that apply only under a condition are left out, and so are trials
    that did not finish an epoch. Empty where there are too few trials to say.
    """
    everywhere = [path for path, dimension in found.space.items() if dimension.when is None]
    results = [result for result in found.ranked if all(path in result.values for path in everywhere)]
    if len(results) < FEWEST or len(everywhere) < 2 or len({result.best for result in results}) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for result in results:
        study.add_trial(
            optuna.trial.create_trial(
                value=found.sign * cast(float, result.best),
                params={path: to_optuna(found.space[path], result.values[path]) for path in everywhere},
                distributions={path: distribution(found.space[path]) for path in everywhere},
            )
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    total = sum(shares.values())
    return {path: share / total for path, share in shares.items()} if total > 0 and math.isfinite(total) else {}


# ── at the edge ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Edge:
    """The best value of a field lies at the edge of what was tried."""

    path: str
    value: Any
    side: Literal["low", "high"]
    wider: dict[str, Any] | None

    @property
    def paste(self) -> str:
        """The widened dimension as a line of the job file; empty where the job takes nothing beyond."""
        if self.wider is None:
            return ""
        inner = ", ".join(f"{key}: {_said(value)}" for key, value in self.wider.items())
        return f"{self.path}: {{{inner}}}"


def edges(found: Found) -> list[Edge]:
    """The numeric fields whose best value lies at an end of its range or grid, with the range widened there."""
    if not found.ranked:
        return []
    best, at_edge = found.ranked[0].values, []
    for path, dimension in found.space.items():
        if path not in best or not numeric(dimension):
            continue
        ordered = _ordered(dimension)
        place = place_of(ordered, best[path])
        if not EDGE < place < 1 - EDGE:
            side: Literal["low", "high"] = "low" if place <= EDGE else "high"
            at_edge.append(Edge(path, best[path], side, _widened(found, path, ordered, side)))
    return at_edge


def numeric(dimension: Dimension) -> bool:
    """Whether its values are two numbers or more."""
    values = dimension.values
    return values is None or (len(values) > 1 and all(type(value) in (int, float) for value in values))


def _ordered(dimension: Dimension) -> Dimension:
    if dimension.values is None:
        return dimension
    return Dimension(grid=sorted(dimension.values), when=dimension.when)


def _widened(found: Found, path: str, dimension: Dimension, side: str) -> dict[str, Any] | None:
    """The dimension with more room on one side, as far as the job takes it; None where it takes nothing there."""
    low = side == "low"
    if (values := dimension.values) is not None:
        first, second = (values[0], values[1]) if low else (values[-1], values[-2])
        beyond = [first * first / second] if first and second and first / second > 0 else []
        beyond.append(2 * first - second)
        whole = all(type(value) is int for value in values)
        steps = [int(value) if whole and value == int(value) else float(f"{value:.3g}") for value in beyond]
        options = [{"grid": [step, *values] if low else [*values, step]} for step in steps]
    else:
        start, end = dimension.ends
        if dimension.form == "log_uniform":
            ends = (float(f"{start / 10:.3g}"), end) if low else (start, float(f"{end * 10:.3g}"))
        else:
            room = (end - start) / 2
            ends = (start - room, end) if low else (start, end + room)
            ends = (int(ends[0]), int(ends[1])) if dimension.form == "int" else ends
        options = [{dimension.form: list(ends)}]
    for option in options:
        value = next(iter(option.values()))[0 if low else -1]
        try:
            from lehr.training.setup import check_job

            check_job(Space(found.job).trial({**found.ranked[0].values, path: value}, "trial")[0])
        except JobError:
            continue
        return option | ({"when": dimension.when} if dimension.when else {})
    return None


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_said(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_said, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


# ── compared ──────────────────────────────────────────────────────────────────────────────────────────────────────


def groups(found: Found, path: str) -> list[tuple[str, list[Result]]]:
    """The results that count by the value of one field, the group with the best result first."""
    by: dict[str, list[Result]] = {}
    for result in found.ranked:
        if path in result.values:
            by.setdefault(label(result.values[path]), []).append(result)
    return list(by.items())


def compared(found: Found, path: str) -> list[tuple[str, int, int, float, float]]:
    """Of each value of a field: (value, trials, ended early, best, median of the bests)."""
    return [
        (
            name,
            len(results),
            sum(result.state == "ended" for result in results),
            cast(float, results[0].best),
            median(cast(float, result.best) for result in results),
        )
        for name, results in groups(found, path)
    ]


def schedule_path(found: Found) -> str | None:
    """The field that holds schedules of different shapes, if the search compared any."""
    for path in ("schedule", "schedule.name"):
        if path in found.space and len(found.space[path].values or ()) > 1:
            return path
    return None


def best_so_far(found: Found) -> list[tuple[int, float]]:
    """(epochs spent, best value) whenever the best changed.

    Epochs are counted as if the trials had been trained one after the other in the order of their numbers.
    """
    points: list[tuple[int, float]] = []
    spent = 0
    for result in found.results:
        for score in result.scores:
            spent += 1
            if math.isfinite(score) and (not points or found.sign * (score - points[-1][1]) > 0):
                points.append((spent, score))
    return [*points, (spent, points[-1][1])] if points else []


def distinct(values: Sequence[Any]) -> int:
    """How many different values there are."""
    return len({repr(value) for value in values})


def grid_points(trials: int, dimensions: int) -> int:
    """How many values of each field a full grid of so many trials could try: the `dimensions`-th root."""
    points = max(1, int(trials ** (1 / max(1, dimensions))))
    return points + 1 if (points + 1) ** dimensions <= trials else points
