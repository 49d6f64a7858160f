"""The trial of strategy `features`: trains a head on features that were computed before the trials began."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from lehr.job.transfer import FeaturesSection
from lehr.models import head_of
from lehr.runs import BestValue, Folder, Progress, Recorder, RunFolder, TrainingProgress
from lehr.training.answers import answers
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan
from lehr.transfer.features import Features, rows_of_split, split_names
from lehr.transfer.head_scores import HeadScores
from lehr.transfer.head_search import HeadSearch, Judge, Measured, evaluate_head, search_heads
from lehr.trials import TrialCallbacks

TELL_SECONDS = 1.0  # between two estimates of the time that the heads still take
RECENT_SECONDS = 10.0  # by whose speed they are made


def train_way(plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks) -> None:
    """The trial of the other strategies: a training, with what its model says of each validation row."""
    train(plan, run, group, callbacks.should_stop, callbacks.after_epoch, wants_answers=True)


@dataclass(frozen=True)
class HeadTrainable:
    """A trainable whose run ends with one epoch, the model, and `search.json` with the heads that were tried.

    Attributes:
        section: how the head is trained.
        parent: URI of the run folder that holds the features.
        feature_seconds: what it took to compute the features, for the trial that is charged with it: the first.
    """

    section: FeaturesSection
    parent: str
    feature_seconds: float = 0.0

    def __call__(self, plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks) -> None:
        """Searches learning rate and weight decay, and writes the network with the best head as the run's model."""
        if not group.first:
            return
        began = time.perf_counter()
        steps = self.section.steps
        attempt = run.begin_attempt(workers=1, steps_per_epoch=steps, total_steps=steps)
        features = self._read_features(plan)
        measured = Measured(plan.task, plan.metrics, plan.splits.train.classes)
        wanted = plan.job.train.metric
        by = Judge.of(wanted, plan.job.lower_is_better(wanted))
        rows, seed = (features["train"], features["validation"]), plan.job.seed
        search = search_heads(*rows, measured, self.section, by, seed, _teller(run))
        head = search.heads.module(search.best)
        metrics = evaluate_on_splits(head, features, measured)
        seconds = {"features": self.feature_seconds, "head": time.perf_counter() - began}
        trained = _TrainedHead(
            search=search,
            metrics=metrics,
            measured_rows=plan.splits.measured_rows,
            best=_best_value(by, {**metrics, "train_loss": search.losses[-1]}, steps),
            batch_size=min(self.section.batch_size, len(features["train"])),
            steps=steps,
            seconds=sum(seconds.values()),
        )
        recorder = Recorder(run.folder, attempt)
        recorder.write_steps(trained.step_columns())
        recorder.write_epochs({name: [value] for name, value in trained.epoch_row().items()})
        recorder.event("finished", trained.message, step=steps)
        model = self._write_model(plan, run, head, trained)
        if found := answers(model.to(group.device), plan.to(group.device), group):
            found.write(run.folder)
        HeadScores.of(search, by, seconds).write(run.folder)
        run.write_progress(trained.progress(attempt.number))
        callbacks.after_epoch({"epoch": 1, "step": steps, **trained.epoch_metrics()})

    def _read_features(self, plan: Plan) -> dict[str, Features]:
        """By split, the features of the rows that this trial uses."""
        parent = Folder.at(self.parent)
        return {
            split: Features.read(parent, split).select(rows_of_split(plan, split).ids) for split in split_names(plan)
        }

    def _write_model(self, plan: Plan, run: RunFolder, head: nn.Module, trained: _TrainedHead) -> nn.Module:
        model = plan.build_model()
        model.set_submodule(head_of(model, plan.task.outputs), head.to(plan.dtype))
        origin: dict[str, str | int | None] = {
            "step": trained.best.step,
            "epoch": trained.best.epoch,
            "weights": "raw",
            "trained_parameters": sum(each.numel() for each in head.parameters()),
            "parameters": sum(each.numel() for each in model.parameters()),
        }
        metrics = {name: value for name, value in trained.metrics.items() if not name.startswith("clean_train_")}
        plain = plan.describe_model()
        network = replace(plain.network, hidden=self.section.hidden or None)
        description = replace(plain, network=network, origin=origin, metrics=metrics)
        run.write_model(model.state_dict(), description.to_json())
        return model


def _teller(run: RunFolder, clock: Callable[[], float] = time.monotonic) -> Callable[[float], None]:
    """Writes into the run's progress.json how long the heads still take, when it is called with the share done.

    By the speed of the last `RECENT_SECONDS`, since other trials begin and end beside it, and without the first step,
    in which things are set up.
    """
    began = said = clock()
    seen: deque[tuple[float, float]] = deque()  # (time, share done)

    def tell(share: float) -> None:
        nonlocal said
        now = clock()
        if share and not seen:
            said = now
            seen.append((now, share))
        if share and now - said >= TELL_SECONDS:
            said = now
            seen.append((now, share))
            while len(seen) > 2 and seen[1][0] <= now - RECENT_SECONDS:
                seen.popleft()
            then, before = seen[0]
            told = Progress(status="running", seconds={"total": now - began}, updated=time.time())
            run.write_progress(replace(told, seconds_left=(now - then) * (1 - share) / max(1e-9, share - before)))

    return tell


@dataclass(frozen=True)
class _TrainedHead:
    """The best head of a search, as the run records it.

    Attributes:
        metrics: by name: `validation_…`, `clean_train_…` and, if there is a test split, `test_…`.
        measured_rows: by split, the rows on which they were measured.
        seconds: time spent on the features and the head together.
    """

    search: HeadSearch
    metrics: Mapping[str, float]
    measured_rows: Mapping[str, int]
    best: BestValue
    batch_size: int
    steps: int
    seconds: float

    @property
    def learning_rate(self) -> float:
        return self.search.grid[self.search.best][0]

    @property
    def message(self) -> str:
        rate, decay = self.search.grid[self.search.best]
        head = f"trained a head with learning rate {rate:g} and weight decay {decay:g}"
        return f"{head}, chosen by {self.search.scored_on}"

    def step_columns(self) -> dict[str, Sequence[float]]:
        return {
            "step": self.search.steps,
            "epoch": [step / self.steps for step in self.search.steps],
            "loss": self.search.losses,
            "examples": [self.batch_size] * len(self.search.steps),
        }

    def epoch_metrics(self) -> dict[str, float]:
        """The metrics of the epoch; the test split is not among them."""
        return {name: value for name, value in self.metrics.items() if not name.startswith("test_")}

    def epoch_row(self) -> dict[str, float]:
        return {
            "epoch": 1,
            "step": self.steps,
            "train_loss": self.search.losses[-1],
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            **self.epoch_metrics(),
        }

    def progress(self, attempt: int) -> Progress:
        training = TrainingProgress(
            attempt=attempt,
            step=self.steps,
            total_steps=self.steps,
            epoch=1.0,
            epochs=1,
            epochs_done=1,
            loss=self.search.losses[-1],
            learning_rate=self.learning_rate,
        )
        return Progress(
            status="finished",
            message=self.message,
            best=self.best,
            metrics=self.metrics,
            measured_rows=self.measured_rows,
            seconds={"total": self.seconds},
            seconds_left=0.0,
            updated=time.time(),
            training=training,
        )


def evaluate_on_splits(head: nn.Module, features: Mapping[str, Features], measured: Measured) -> dict[str, float]:
    """The metrics of a head on every split, the original training images included, as `SPLIT_METRIC`."""
    splits = {"clean_train" if name == "train" else name: rows.originals() for name, rows in features.items()}
    return {
        f"{split}_{name}": value
        for split, rows in splits.items()
        for name, value in evaluate_head(head, rows, measured).items()
    }


def _best_value(by: Judge, metrics: Mapping[str, float], steps: int) -> BestValue:
    """The metric at the end of the only epoch; without a value if it is not a number."""
    name = by.column
    return BestValue(name) if math.isnan(metrics[name]) else BestValue(name, metrics[name], 1, steps)
