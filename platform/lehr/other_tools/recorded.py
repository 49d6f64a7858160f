"""What a file holds before its columns are understood: `Recorded`, and how tables of rows become it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lehr.errors import JobError
from lehr.other_tools.log import Curve
from lehr.other_tools.names import EPOCH, STEP, is_time, plain

Row = Mapping[str, object]


@dataclass(frozen=True)
class Recorded:
    """One training's columns, each with the positions at which it was recorded.

    Attributes:
        run: which of the trainings in the file; empty where it holds one.
        axis: what positions count.
        columns: by the file's own names.
        epochs: passes over the training rows; NaN where the file does not say.
    """

    axis: Literal["epoch", "step"]
    columns: Mapping[str, Curve]
    epochs: float = math.nan
    run: str = ""
    tool: str = field(default="")


def from_rows(rows: Sequence[Row], where: str, tool: str = "") -> list[Recorded]:
    """The trainings in a table of rows: a new one begins where epochs or steps begin again.

    Raises:
        JobError: it has too few rows, or is a table of whole runs.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    by_plain = {plain(name): name for name in reversed(names)}
    epoch, step = (next((by_plain[each] for each in known if each in by_plain), None) for known in (EPOCH, STEP))
    index = _finer(rows, epoch, step)
    _refuse_tables_of_runs(rows, names, index, where)
    positions = [_number(row.get(index)) if index else float(place) for place, row in enumerate(rows, 1)]
    known = [(x, row) for x, row in zip(positions, rows, strict=True) if x is not None and math.isfinite(x)]
    if len(known) < 2:
        raise JobError(f"{where} has {len(known)} {'row' if len(known) == 1 else 'rows'}; a curve needs two or more")
    values = [name for name in names if name not in (epoch, step) and not is_time(name)]
    trainings = _trainings(known)
    found = []
    for number, training in enumerate(trainings, 1):
        columns = {name: curve for name in values if (curve := _column(name, training))}
        epochs = _epochs([row for _, row in training], epoch, index)
        run = f"training {number} of {len(trainings)}" if len(trainings) > 1 else ""
        found.append(Recorded("step" if index is not None and index == step else "epoch", columns, epochs, run, tool))
    return found


def _refuse_tables_of_runs(rows: Sequence[Row], names: Sequence[str], index: str | None, where: str) -> None:
    """Raises JobError for one whose rows have names of their own, or that Weights & Biases exported as such."""
    named = [name for name in names if len({row.get(name) for row in rows}) == len(rows) > 1 and _is_text(rows, name)]
    if {"Name", "State", "Created"} <= set(names) or "_wandb" in names or (index is None and named):
        what = f"{where} holds no curves: no column counts epochs or steps, and its rows are things with names of "
        what += "their own, such as runs; allowed: the values of one training by epoch or step, such as the CSV export "
        raise JobError(what + "of a chart or of a run's history")


def _is_text(rows: Sequence[Row], name: str) -> bool:
    return all(isinstance(row.get(name), str) and _number(row.get(name)) is None for row in rows)


def _finer(rows: Sequence[Row], epoch: str | None, step: str | None) -> str | None:
    """The index that tells more rows apart; whole epochs where both do so alike."""
    if epoch and step:
        counts = [len({row.get(name) for row in rows} - {None, ""}) for name in (epoch, step)]
        whole = all(x == int(x) for row in rows if (x := _number(row.get(epoch))) is not None and math.isfinite(x))
        return epoch if whole and counts[0] >= counts[1] else step
    return epoch or step


def _trainings(rows: list[tuple[float, Row]]) -> list[list[tuple[float, Row]]]:
    """The rows of each training. One that was resumed repeats some positions: then the later row holds."""
    found: list[list[tuple[float, Row]]] = [[]]
    for x, row in rows:
        current = found[-1]
        if current and x < current[-1][0]:
            if x <= current[0][0]:
                found.append([])
            else:
                del current[next(place for place, (other, _) in enumerate(current) if other >= x) :]
        found[-1].append((x, row))
    return found


def _column(name: str, rows: list[tuple[float, Row]]) -> Curve | None:
    points = {x: value for x, row in rows if (value := _number(row.get(name))) is not None}
    return curve(name, points) if points else None


def curve(name: str, points: Mapping[float, float]) -> Curve:
    """A column from its values by position."""
    ordered = sorted(points.items())
    return Curve(name, np.array([x for x, _ in ordered]), np.array([y for _, y in ordered]))


def _epochs(rows: Sequence[Row], epoch: str | None, index: str | None) -> float:
    known = [x for row in rows if epoch and (x := _number(row.get(epoch))) is not None]
    if not known:
        return math.nan if index else float(len(rows))
    whole = all(x == int(x) for x in known)
    return max(known) - min(known) + 1 if whole else max(known)


def _number(value: object) -> float | None:
    """None for what is no number; NaN and infinity are."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(str(value).strip())
    except ValueError:
        return None
