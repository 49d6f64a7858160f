"""What a search found, read from its run folder: pure functions of its trials, without charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, cast

from lehr.curves.findings import as_yaml
from lehr.errors import JobError, RunError
from lehr.job import from_dict
from lehr.job.search import Dimension, SearchJob
from lehr.runs import RunFolder, RunOutcome
from lehr.search.formats import format_value
from lehr.search.record import TrialRecord, read_records
from lehr.search.samplers import distribution, to_optuna
from lehr.search.space import Space, Values, position_of
from lehr.trust import Untrusted

EDGE = 0.1  # share of a range that counts as its edge
FEWEST = 4  # trials below which importance would be noise

State = Literal["finished", "ended", "failed", "unfinished"]
"""`finished`: trained to its last epoch; `ended`: ended early by the search."""


@dataclass(frozen=True)
class SearchTrial:
    """One trial of a search.

    Attributes:
        scores: the metric after each epoch, as measured.
        best: the best of them; None before the first epoch. loss: on the same rows there; infinite if not known.
        message: how it ended, in words.
    """

    number: int
    values: Values
    scores: tuple[float, ...]
    best: float | None
    state: State
    message: str
    loss: float = math.inf


@dataclass(frozen=True)
class SearchResults:
    """A search and its trials so far.

    Attributes:
        measured_rows: by split, the rows on which trials were measured; empty in older runs.
    """

    job: SearchJob
    trials: tuple[SearchTrial, ...]
    measured_rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        return self.job.base.train.metric

    @property
    def sign(self) -> float:
        """1 if a higher metric is better, else −1."""
        return -1.0 if self.job.base.lower_is_better(self.metric) else 1.0

    @property
    def ranked(self) -> list[SearchTrial]:
        """The trials that have a result and did not fail, the best first; of equal ones that of the lower loss."""
        known = [trial for trial in self.trials if trial.best is not None and trial.state != "failed"]
        return sorted(known, key=lambda trial: (-self.sign * cast(float, trial.best), trial.loss, trial.number))

    @property
    def space(self) -> Mapping[str, Dimension]:
        return self.job.space


def read_search(run: RunFolder) -> SearchResults:
    """The search in a run folder, finished or not.

    Raises:
        RunError: it is a run of another kind.
    """
    job = from_dict(run.job)
    if not isinstance(job, SearchJob):
        raise RunError(f"{run.name} is a run of kind {job.kind}; allowed: a search")
    sign = -1.0 if job.base.lower_is_better(job.base.train.metric) else 1.0
    trials: list[SearchTrial] = []
    measured: Mapping[str, int] = {}
    for record in read_records(run).values():
        folder = run.folder.child(record.folder)
        if folder.exists("job.yaml"):
            outcome = RunFolder.open(folder).outcome()
            trials.append(_trial(record, outcome, sign))
            measured = measured or (outcome.measured_rows if outcome else {})
    return SearchResults(job, tuple(trials), measured)


def _trial(record: TrialRecord, outcome: RunOutcome | None, sign: float) -> SearchTrial:
    best = record.best(sign)
    state: State = "unfinished"
    if outcome and outcome.status == "failed":
        state = "failed"
    elif outcome and outcome.status == "finished":
        state = "ended" if record.ended else "finished"
    return SearchTrial(
        record.number,
        record.values,
        record.scores,
        best.score if best else None,
        state,
        outcome.message if outcome else "",
        math.inf if best is None or best.loss is None else best.loss,
    )


# ── which fields mattered ─────────────────────────────────────────────────────────────────────────────────────────


def importance(found: SearchResults) -> dict[str, float]:
    """How much each field decides whether a trial is among the better ones, as shares of 1, the largest first.

    Optuna's PED-ANOVA (Watanabe et al., 2023). Fields with a condition and trials without a result are left out. Empty
    if there are too few trials to tell.
    """
    everywhere = [path for path, dimension in found.space.items() if dimension.when is None]
    trials = [trial for trial in found.ranked if all(path in trial.values for path in everywhere)]
    if len(trials) < FEWEST or len(everywhere) < 2 or len({trial.best for trial in trials}) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                value=found.sign * cast(float, trial.best),
                params={path: to_optuna(found.space[path], trial.values[path]) for path in everywhere},
                distributions={path: distribution(found.space[path]) for path in everywhere},
            )
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    total = sum(shares.values())
    return {path: share / total for path, share in shares.items()} if total > 0 and math.isfinite(total) else {}


# ── the best value at the edge of its range ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Edge:
    """A field whose best value lies at the edge of the values tried.

    Attributes:
        value: the best value.
        side: the edge at which it lies.
        wider: the dimension, extended at that edge; None if the job does not accept values beyond it.
    """

    path: str
    value: Any
    side: Literal["lower", "upper"]
    wider: dict[str, Any] | None

    @property
    def paste(self) -> str:
        """The wider dimension as a line of the job file; empty where there is none."""
        if self.wider is None:
            return ""
        inner = ", ".join(f"{key}: {as_yaml(value)}" for key, value in self.wider.items())
        return f"{self.path}: {{{inner}}}"


def edges(found: SearchResults) -> list[Edge]:
    """The numeric fields whose best value lies at an end of its range or grid."""
    if not found.ranked:
        return []
    best, at_edge = found.ranked[0].values, []
    for path, dimension in found.space.items():
        if path not in best or not is_numeric(dimension):
            continue
        ordered = _ordered(dimension)
        position = position_of(ordered, best[path])
        if not EDGE < position < 1 - EDGE:
            side: Literal["lower", "upper"] = "lower" if position <= EDGE else "upper"
            at_edge.append(Edge(path, best[path], side, _widened(found, path, ordered, side)))
    return at_edge


def is_numeric(dimension: Dimension) -> bool:
    """Whether its values are numbers, and more than one."""
    values = dimension.values
    return values is None or (len(values) > 1 and all(type(value) in (int, float) for value in values))


def _ordered(dimension: Dimension) -> Dimension:
    if dimension.values is None:
        return dimension
    return Dimension(grid=sorted(dimension.values), when=dimension.when)


def _widened(found: SearchResults, path: str, dimension: Dimension, side: str) -> dict[str, Any] | None:
    """The dimension extended at one side, if the job accepts a value there."""
    low = side == "lower"
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
        except Untrusted:
            pass  # all is checked but what only the code of a stranger could refuse
        except JobError:
            continue
        return option | ({"when": dimension.when} if dimension.when else {})
    return None


# ── comparisons ───────────────────────────────────────────────────────────────────────────────────────────────────


def groups(found: SearchResults, path: str) -> list[tuple[str, list[SearchTrial]]]:
    """The ranked trials by the value of one field; the group with the best trial first."""
    by: dict[str, list[SearchTrial]] = {}
    for trial in found.ranked:
        if path in trial.values:
            by.setdefault(format_value(trial.values[path]), []).append(trial)
    return list(by.items())


@dataclass(frozen=True)
class GroupSummary:
    """The trials with one value of a field: how many, and the best and median of their best scores."""

    value: str
    trials: int
    ended_early: int
    best: float
    median: float


def compare(found: SearchResults, path: str) -> list[GroupSummary]:
    """A summary of the trials with each value of a field, the best first."""
    return [
        GroupSummary(
            name,
            len(trials),
            sum(trial.state == "ended" for trial in trials),
            cast(float, trials[0].best),
            median(cast(float, trial.best) for trial in trials),
        )
        for name, trials in groups(found, path)
    ]


def schedule_path(found: SearchResults) -> str | None:
    """The field whose values are schedules of different shapes; None if the search compared none."""
    for path in ("schedule", "schedule.name"):
        if path in found.space and len(found.space[path].values or ()) > 1:
            return path
    return None


def best_so_far(found: SearchResults) -> list[tuple[int, float]]:
    """(epochs spent, best value) whenever the best changed.

    Epochs are counted as if the trials had been trained one after the other, in the order of their numbers.
    """
    points: list[tuple[int, float]] = []
    spent = 0
    for trial in found.trials:
        for score in trial.scores:
            spent += 1
            if math.isfinite(score) and (not points or found.sign * (score - points[-1][1]) > 0):
                points.append((spent, score))
    return [*points, (spent, points[-1][1])] if points else []


def count_distinct(values: Sequence[Any]) -> int:
    """How many different values there are."""
    return len({repr(value) for value in values})


def grid_points(trials: int, dimensions: int) -> int:
    """How many values of each field a full grid of at most `trials` points has: the `dimensions`-th root."""
    points = max(1, int(trials ** (1 / max(1, dimensions))))
    return points + 1 if (points + 1) ** dimensions <= trials else points
