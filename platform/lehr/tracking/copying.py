"""Writes a run's record to a tracker: what is new each time, and everything once the run has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lehr.credentials import mask
from lehr.errors import LehrError
from lehr.formatting import flat, format_folder
from lehr.runs import Folder, RunFolder
from lehr.tracking.sink import TRACKERS, Described, Row, Scalar, Sink

GROUPS = ("trials", "members", "folds")
"""Folders in which a run has children; those of a recipe's steps are in `recipe/`."""
FILES = ("report.html", "curves.png", "diagnosis.json", "job.yaml")
"""What is attached at the end. Not the model: it may be large, and the run folder has it."""
EVERY = 5.0  # seconds between two looks at a run that goes on; more where a look takes long
PATIENCE = 5.0  # seconds for which the end of a run is tried again, if the tracker fails then
ENDED = ("finished", "stopped", "failed", "interrupted")


def asleep(seconds: float) -> bool:
    """Waits; somebody may always write a run."""
    time.sleep(seconds)
    return False


def track(run: RunFolder, name: str, follow: bool = False, pause: Callable[[float], bool] = asleep) -> int:
    """Writes the record of a run and of its children to a tracker; returns how many rows it wrote.

    Args:
        name: of the tracker.
        follow: whether to go on until the run has ended.
        pause: waits for some seconds, and says whether nobody writes the run any more, whatever its folder says.

    Raises:
        LehrError: the tracker could not be written, with its own reason.
    """
    copies: dict[str, _Copy] = {}
    rows, failing_since, is_over = 0, math.inf, False
    while True:
        begun = time.monotonic()
        last = not follow or is_over or run.status() in ENDED
        try:
            rows += sum(copy.push(last) for copy in _tree(run, name, copies))
            failing_since = math.inf
        except LehrError:
            raise
        except Exception as error:  # whatever a tracker's package raises
            failing_since = min(failing_since, begun)
            if last and time.monotonic() - failing_since > (PATIENCE if follow else 0):
                raise LehrError(f"{name}: {_reason(error)}") from error
        if last and failing_since == math.inf:
            return rows
        is_over |= pause(1.0 if last else max(EVERY, 10 * (time.monotonic() - begun)))


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return mask(f"{type(error).__name__}: {lines[0].strip()[:300]}" if lines else type(error).__name__)


def _tree(run: RunFolder, name: str, copies: dict[str, _Copy]) -> Iterator[_Copy]:
    """The run, and then its children, each with the copy that was made of it so far."""
    top = copies.setdefault("", _Copy(run, name))
    yield top
    groups = [*GROUPS, *(f"recipe/{step}" for step in run.folder.child("recipe").folders())]
    for group in groups:
        for child in run.children(group):
            key = f"{group}/{child.name}"
            yield copies.setdefault(key, _Copy(child, name, top, key))


@dataclass(frozen=True)
class State:
    """How far a tracker has got: kept in the run folder, so that nothing is written twice.

    Attributes:
        id: the tracker's own name for the run.
        step, epoch: the last ones that it has.
        attempt: of the run, when it was written.
        ended: how it was told that the run ended; empty if it was not.
    """

    id: str = ""
    step: int = -1
    epoch: int = 0
    attempt: int = 0
    ended: str = ""

    @classmethod
    def read(cls, folder: Folder, name: str) -> State:
        try:
            value = folder.read_json(f"tracking-{name}.json")
            step, epoch, attempt = (int(value[each]) for each in ("step", "epoch", "attempt"))
            return cls(str(value["id"]), step, epoch, attempt, str(value["ended"]))
        except (FileNotFoundError, LehrError, LookupError, TypeError, ValueError):
            return cls()

    def write(self, folder: Folder, name: str) -> None:
        folder.write_json(f"tracking-{name}.json", asdict(self))


class _Copy:
    """A run in a tracker, as far as it was written."""

    def __init__(self, run: RunFolder, name: str, parent: _Copy | None = None, path: str = "") -> None:
        self.run, self.name, self.parent, self.path = run, name, parent, path
        self.state = State.read(run.folder, name)
        self._sink: Sink | None = None

    def push(self, last: bool) -> int:
        """Writes what is new, and once it has ended or at last, how it ended. Returns the rows written."""
        status, attempt = self.run.status(), self.run.attempt_number()
        over = status in ENDED
        if over and (self.state.ended, self.state.attempt) == (status, attempt):
            return 0
        rows, step, epoch = new_rows(self.run, self.state)
        if rows:
            self.sink().log(rows)
            self._note(replace(self.state, step=step, epoch=epoch, attempt=attempt, ended=""))
        if over or last:
            self._end(status if over else "interrupted", attempt)
        return len(rows)

    def _end(self, status: str, attempt: int) -> None:
        sink = self.sink()
        if self.run.folder.is_local:
            for file in (self.run.folder.local_path / each for each in FILES):
                if file.is_file():
                    sink.attach(file)
        told = self.run.outcome()
        metrics = {name: value for name, value in (told.metrics if told else {}).items() if value is not None}
        sink.end(status, metrics)
        self._sink = None
        self._note(replace(self.state, attempt=attempt, ended=status))

    def sink(self) -> Sink:
        """The run in the tracker, begun or opened again."""
        if self._sink is None:
            parent = self.parent.sink().id if self.parent else ""
            folder = self.run.folder.local_path if self.run.folder.is_local else None
            self._sink = TRACKERS[self.name].open(self._described(parent), self.state.id, folder)
            self._note(replace(self.state, id=self._sink.id))
        return self._sink

    def _described(self, parent: str) -> Described:
        job = {key: value for key, value in self.run.job.items() if key not in ("notes", "notify", "tracking")}
        group = self.parent.run.name if self.parent else self.run.name
        name = f"{group}-{self.path.replace('/', '-')}" if self.parent else self.run.name
        parameters = {path: _scalar(value) for path, value in flat(job).items()}
        return Described(
            name=name,
            kind=str(job.get("kind", "")),
            parameters=parameters,
            notes=str(self.run.job.get("notes") or ""),
            folder=mask(format_folder(self.run.folder)),
            parent=parent,
            group=group,
        )

    def _note(self, state: State) -> None:
        if state != self.state:
            state.write(self.run.folder, self.name)
            self.state = state


def _scalar(value: object) -> Scalar:
    """A value of a job as a tracker takes it: without passwords, and lists as text."""
    return value if isinstance(value, int | float) or value is None else mask(str(value))


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_rows(run: RunFolder, state: State) -> tuple[list[Row], int, int]:
    """The rows that a tracker does not have yet, by step, and the last step and epoch with them.

    An epoch's values stand at the last step of the epoch.
    """
    steps = [(int(row["step"]), _values("steps", row)) for row in _rows(run.steps()) if row["step"] > state.step]
    epochs = [row for row in _rows(run.epochs()) if row["epoch"] > state.epoch]
    ended = [(max(0, int(row["step"]) - 1), _values("epochs", row)) for row in epochs]
    rows: dict[int, dict[str, float]] = {}
    for step, values in (*steps, *ended):
        rows.setdefault(step, {}).update(values)
    last_step = max((step for step, _ in steps), default=state.step)
    last_epoch = max((int(row["epoch"]) for row in epochs), default=state.epoch)
    return [Row(step, values) for step, values in sorted(rows.items()) if values], last_step, last_epoch


def _rows(table: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _values(kind: str, row: Mapping[str, Any]) -> dict[str, float]:
    return {
        called(kind, name): float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


SPLITS = ("averaged_validation", "clean_train", "validation", "test", "train")


def called(kind: str, column: str) -> str:
    """What trackers call a column: `validation/accuracy`, `train/loss`; of an epoch's training `train/epoch_loss`."""
    if column in ("epoch", "learning_rate"):
        return column if kind == "steps" or column == "epoch" else f"epoch/{column}"
    if kind == "steps":
        return f"train/{column}"
    split = next((split for split in SPLITS if column.startswith(f"{split}_")), None)
    if split is None:
        return f"epoch/{column}"
    rest = column.removeprefix(f"{split}_")
    return f"train/epoch_{rest}" if split == "train" else f"{split}/{rest}"
