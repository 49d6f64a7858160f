"""Runs the probes that can tell what is asked, as far as the budget goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from lehr import trust
from lehr.curves.alternatives import QUESTIONS, ProbeName
from lehr.curves.record import Curves
from lehr.data.door import LocalHost, open_data
from lehr.data.load import splits
from lehr.errors import JobError
from lehr.formatting import format_folder
from lehr.job import TrainJob, from_dict, to_dict
from lehr.predict.predictor import load_network
from lehr.probes import of_fresh, of_trained
from lehr.probes.budget import Budget
from lehr.probes.results import ProbeResult, conclude
from lehr.probes.subject import MOST_LOOKED_AT, Subject
from lehr.runs import DataFacts, RunFolder, UnreadableImages
from lehr.runs.model import has_model
from lehr.tasks.forms import USUAL as USUAL_TASK
from lehr.training.group import Group

LEAST_STEPS, MOST_STEPS = 30, 150  # updates of a short training
USUAL = 8  # short trainings that most diagnoses take
CERTAIN = 1.0  # evidence from which on no other probe that trains is needed

MEASURES: dict[ProbeName, Callable[[Subject], ProbeResult]] = {
    "weights": of_trained.weights,
    "linear": of_trained.linear,
    "clean": of_trained.clean,
    "statistics": of_trained.statistics,
    "rates": of_fresh.rates,
    "parts": of_fresh.parts,
    "labels": of_fresh.labels,
    "overfit": of_fresh.overfit,
}
NEED_UNFITTED: tuple[ProbeName, ...] = ("rates", "parts", "overfit")
"""Probes that ask what keeps a network from learning."""
FITS = "Not needed: the network fits its training rows, so nothing keeps it from learning"
FOUND = "Not needed: the cause is found"


def trainings_of(s: Subject, name: ProbeName) -> int:
    """Short trainings that a probe takes; that of the job as it is, which two share, counts for the rates."""
    if name == "overfit":
        return 2  # small batches, but twice the updates, three times
    return {"rates": 1 + len(of_fresh.rates_of(s)), "parts": len(of_fresh.parts_of(s)), "labels": 2}.get(name, 0)


def probe(s: Subject, names: Sequence[ProbeName]) -> Iterator[ProbeResult]:
    """The results of the probes with these names, those that train nothing first.

    Those that do not fit into the budget, or are not needed any more, are told as left out.
    """
    found: list[ProbeResult] = []
    cheap = [name for name in QUESTIONS if name in names and not trainings_of(s, name)]
    for name in cheap:
        found.append(_measured(s, name))
        yield found[-1]
    wanted = [name for name in names if name not in cheap]  # the likeliest first: the budget may not do for all
    fits = bool(wanted) and of_fresh.is_fitted(s)
    left = [name for name in wanted if fits and name in NEED_UNFITTED]
    wanted, no_room = plan_steps(s, [name for name in wanted if name not in left])
    for name in left:
        yield ProbeResult(name, FITS, left_out=True)
    for name in wanted:
        found.append(ProbeResult(name, FOUND, left_out=True) if is_certain(found) else _measured(s, name))
        yield found[-1]
    for name in no_room:
        yield ProbeResult(name, FOUND if is_certain(found) else of_fresh.NO_ROOM, left_out=True)


def is_certain(found: Sequence[ProbeResult]) -> bool:
    """Whether these results name a cause so clearly that no other probe needs to train."""
    named = conclude(found, ()).cause
    return sum(each.weight for result in found for each in result.evidence if each.cause == named) >= CERTAIN


def plan_steps(s: Subject, names: Sequence[ProbeName]) -> tuple[list[ProbeName], list[ProbeName]]:
    """Decides how many updates a short training has, and which of the probes the budget has room for."""
    wanted, left = list(names), list[ProbeName]()
    while wanted:
        count = sum(trainings_of(s, name) for name in wanted)
        s.steps = 0
        looks = s.cost()
        s.steps = 1
        each = s.cost() - looks
        steps = int((s.budget.left / max(1, count) - looks) // max(1, each))
        if steps >= LEAST_STEPS:
            s.steps = min(MOST_STEPS, steps)
            return wanted, left
        left.insert(0, wanted.pop())
    return wanted, left


def _measured(s: Subject, name: ProbeName) -> ProbeResult:
    began, spent = time.monotonic(), s.budget.spent
    result = MEASURES[name](s)
    return ProbeResult(
        result.name,
        result.measured,
        result.evidence,
        epochs=s.epochs(s.budget.spent - spent),
        seconds=time.monotonic() - began,
        left_out=result.left_out,
    )


class _Quiet:
    """Hears what is said of the data, and keeps it to itself: the run has told it already."""

    def say(self, line: str) -> None: ...

    def status(self, text: str) -> None: ...

    def note_data(self, facts: DataFacts) -> None: ...

    def note_unreadable(self, images: UnreadableImages) -> None: ...

    def note_fingerprint(self, letters: str) -> None: ...


def subject_of(run: RunFolder, epochs: float | None = None, seconds: float = math.inf) -> Subject:
    """The rows and the network of a training, read again on this machine. Nothing is written.

    Args:
        epochs, seconds: the budget. By default as many epochs as the run has, or what `USUAL` short trainings take if
            that is more: on few rows they are cheap.

    Raises:
        JobError: the run is no training, or its data cannot be had here.
        Untrusted: it names code that nobody allowed.
    """
    job = from_dict(run.job)
    if not isinstance(job, TrainJob):
        parts = (each for group in ("folds", "trials") for each in run.children(group))
        example = next((f"; allowed: a training, such as {each.folder.uri}" for each in parts), "")
        raise JobError(f"{run.name} is a run of kind {job.kind}, which trains no network of its own{example}")
    trust.check(trust.calls_of(to_dict(job)), format_folder(run.folder))
    if job.task.name != USUAL_TASK:
        what = f"{run.name} is a run of {job.task.name}, and the probes compare classes"
        raise JobError(f"{what}; allowed: runs of {USUAL_TASK}; without --probe its curves are judged")
    rows = splits(job, open_data(job, LocalHost(), _Quiet()))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(run.folder).model.to(device) if has_model(run.folder) else None
    short = 2 * LEAST_STEPS * job.train.batch_size + MOST_LOOKED_AT
    count = max(job.train.epochs * len(rows.train), USUAL * short) if epochs is None else epochs * len(rows.train)
    budget = Budget(count, seconds)
    curves = Curves.read(run)
    fitted_at = float(np.nanmax(curves.epoch_column("clean_train_accuracy", "train_accuracy"), initial=0.0))
    best = (run.outcome() or run.progress()).best
    early = best.epoch is not None and best.epoch < curves.last_epoch / 2
    return Subject(job, rows, budget, network, fitted_at, early, curves.survey, Group(device=device))
