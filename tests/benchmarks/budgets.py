"""Is a budget a promise? Recipes and searches in many sizes: what they spent against what they were allowed.

    python -m tests.benchmarks.budgets RESULTS.jsonl [--seconds 480]

Each case is run in this process, on one thread and without Ray, and appended to the file; started again, it goes on
where it stopped. At the end it prints what was spent against what was allowed, and in how many cases more than one
evaluation was spent beyond the budget. Epochs are counted from the records of the trials, not by the sums that the
recipe or the search makes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from lehr.errors import LehrError
from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.recipe.overfit import OverfitCheck
from lehr.recipe.rates import RateTest
from lehr.recipe.state import RecipeState
from lehr.runs import Folder, RunFolder

SIZES = (10, 30, 100, None)  # images of a class; None is all of them
BATCHES = (16, 128)
WAYS = ("random", "grid", "quasi_random", "tpe")


@dataclass(frozen=True)
class Case:
    """A recipe or a search. `method`: `recipe`, or that of the search."""

    method: str
    per_class: int | None
    batch: int
    epochs: int | None = None
    minutes: float | None = None

    @property
    def budget(self) -> dict[str, float]:
        both = {"epochs": self.epochs, "minutes": self.minutes}
        return {unit: amount for unit, amount in both.items() if amount is not None}

    def job(self, storage: Path) -> dict[str, Any]:
        base = {
            "data": {"source": "digits", "per_class": self.per_class},
            "model": {"name": "small_cnn", "width": 8},
            "train": {"epochs": 4, "batch_size": self.batch, "evaluated_training_rows": 0},
        }
        job = {"name": "run", "storage": str(storage), "base": base, "budget": self.budget}
        if self.method == "recipe":
            return {"kind": "recipe", **job}
        space = {"optimizer.lr": [0.03, 0.1, 0.3], "optimizer.momentum": [0.8, 0.9]}
        return {"kind": "search", "method": self.method, "space": space, "stopping": "none", **job}


@dataclass(frozen=True)
class Spent:
    """What a case took.

    Attributes:
        epochs: passes over the training images. seconds: by the record, until the last trial had ended.
        trainings: how many there were. one: seconds of the slowest evaluation and update, with what is saved then.
        value: of the model that is kept. best: the best value that any training had.
        said: how it ended, in words.
    """

    epochs: float
    seconds: float
    trainings: int
    one: float
    value: float | None
    best: float | None
    said: str


def cases() -> Iterator[Case]:
    """32 recipes and 32 searches."""
    for size, batch in itertools.product(SIZES, BATCHES):
        for budget in ({"epochs": 6}, {"epochs": 25}, {"minutes": 0.06}, {"minutes": 0.1}):
            yield Case("recipe", size, batch, **budget)
    for method, size, batch in itertools.product(WAYS, (10, 100), BATCHES):
        yield Case(method, size, batch, epochs=7)
        yield Case(method, size, batch, minutes=0.1)


def spend(case: Case, storage: Path) -> Spent:
    """Runs a case and counts what it took."""
    said = ""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        patch("lehr.kinds.recipe.report"),
        patch("lehr.kinds.search.report"),
        patch("lehr.trials.local.cores", lambda: 1),
    ):
        try:
            run_job(from_dict(case.job(storage)), debug=True)
        except LehrError as error:
            said = str(error).splitlines()[0]
    run = RunFolder.open(Folder.at(storage / "run"))
    progress, trained = run.progress(), list(trainings(storage / "run"))
    values = [each.progress().best.value for each in trained]
    checks = sum(
        kind.read(Folder.at(path.parent)).epochs
        for kind, pattern in ((OverfitCheck, "2-*"), (RateTest, "3-*/*"))
        for path in (storage / "run" / "recipe").glob(f"{pattern}/result.json")
    )
    state = RecipeState.read(run.folder)
    values += [state.overfit.value] if state.overfit and math.isfinite(state.overfit.value) else []
    return Spent(
        epochs=sum(map(epochs_of, trained)) + checks,
        seconds=progress.seconds.get("total", 0.0),
        trainings=len(trained),
        one=max(map(one_of, trained), default=0.0),
        value=progress.best.value,
        best=max((value for value in values if value is not None), default=None),
        said=said or progress.message,
    )


def trainings(run: Path) -> Iterator[RunFolder]:
    """The trials that took steps."""
    for path in sorted(run.rglob("job.yaml")):
        child = RunFolder.open(Folder.at(path.parent))
        if path.parent != run and child.progress().training:
            yield child


def epochs_of(run: RunFolder) -> float:
    training = run.progress().training
    return training.epoch if training else 0.0


def one_of(run: RunFolder) -> float:
    """Seconds of one evaluation and update, with the checkpoint and the records that go with them."""
    progress, epochs = run.progress(), max(1, run.epochs().num_rows)
    steps = max(1, progress.training.step if progress.training else 1)
    between = sum(progress.seconds.get(name, 0.0) for name in ("evaluation", "checkpoints", "records")) / epochs
    return between + sum(progress.seconds.get(name, 0.0) for name in ("compute", "input")) / steps


def kept(case: Case, spent: Spent) -> bool:
    """Whether the promise was kept: at most one evaluation, or one epoch, beyond the budget."""
    in_time = case.minutes is None or spent.seconds <= 60 * case.minutes + spent.one
    return in_time and (case.epochs is None or spent.epochs <= case.epochs + 1e-9)


def main(results: Path, seconds: float = math.inf) -> None:
    torch.set_num_threads(1)
    began, done = time.monotonic(), read(results)
    for case in cases():
        if case not in done and time.monotonic() - began < seconds:
            with tempfile.TemporaryDirectory() as place, results.open("a") as file:
                done[case] = spend(case, Path(place))
                file.write(json.dumps([asdict(case), asdict(done[case])]) + "\n")
    print(table(done))


def read(results: Path) -> dict[Case, Spent]:
    lines = results.read_text().splitlines() if results.exists() else []
    return {Case(**case): Spent(**spent) for case, spent in map(json.loads, lines)}


def table(done: dict[Case, Spent]) -> str:
    """Spent against allowed, by method and unit, and every case that broke the promise."""
    lines = ["| method | budget | cases | spent of it, median | most | beyond one evaluation | worse than its best |"]
    lines.append("|---|---|---|---|---|---|---|")
    groups: dict[tuple[str, str], list[tuple[Case, Spent]]] = {}
    for case, spent in done.items():
        groups.setdefault((case.method, "epochs" if case.epochs else "time"), []).append((case, spent))
    for (method, unit), members in sorted(groups.items()):
        shares = sorted(
            spent.epochs / case.epochs if case.epochs else spent.seconds / (60 * (case.minutes or 1))
            for case, spent in members
        )
        broken = sum(not kept(*member) for member in members)
        worse = sum(spent.value is not None and spent.value < (spent.best or 0) for _, spent in members)
        middle = f"{shares[len(shares) // 2]:.0%} | {shares[-1]:.0%}"
        lines.append(f"| {method} | {unit} | {len(members)} | {middle} | {broken} | {worse} |")
    lines += [f"BROKEN: {case} {spent}" for case, spent in done.items() if not kept(case, spent)]
    return "\n".join(lines)


if __name__ == "__main__":
    limit = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else math.inf
    main(Path(sys.argv[1]), limit)
