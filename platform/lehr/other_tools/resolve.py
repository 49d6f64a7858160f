"""From a file's columns to a `Log`: what each column means, and one curve for each meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lehr.errors import JobError
from lehr.other_tools.log import BOUNDED, FALLING, LEARNING_RATE, RISING, Curve, Log, Meaning, Split
from lehr.other_tools.names import TEST, level_of, meaning_of, plain
from lehr.other_tools.recorded import Recorded

PERCENT = 1.5  # a bounded metric above this is in percent
OTHER_COUNT = 5.0  # curves whose last positions differ by this factor count different things


def log_of(recorded: Recorded, name: str, mapped: Mapping[str, str], rows: int = 0) -> Log:
    """The log of one training.

    Args:
        name: what to call it.
        mapped: the columns that the user named, by meaning: `{"validation_loss": "loss_va"}`.
        rows: validation rows, where the user said so.

    Raises:
        JobError: a mapped column or meaning does not exist, or no column was understood.
    """
    wanted = _mapped(mapped, recorded.columns, name)
    candidates: dict[Meaning, list[Curve]] = {}
    unknown = []
    taken = set(wanted.values())
    for column, curve in recorded.columns.items():
        if column in taken:
            continue
        if not np.isfinite(curve.y).any():  # such as a validation loss that overflows in half precision
            unknown.append(f"{column} (never a number)")
            continue
        meaning = meaning_of(column)
        if meaning is None or not _of_use(meaning):
            unknown.append(column)
        else:
            candidates.setdefault(meaning, []).append(curve)
    candidates = _with_split(candidates)
    curves = {meaning: _chosen(meaning, found) for meaning, found in candidates.items()}
    curves |= {meaning: recorded.columns[column] for meaning, column in wanted.items()}
    curves = _with_whole_losses(curves)
    curves = {meaning: _share(meaning, curve) for meaning, curve in curves.items()}
    if not any(each.split for each in curves):
        raise JobError(_not_understood(recorded, name))
    aligned = _aligned(curves)
    return Log(name, recorded.tool, recorded.axis, aligned, recorded.epochs, tuple(unknown), rows)


def _mapped(mapped: Mapping[str, str], columns: Mapping[str, Curve], name: str) -> dict[Meaning, str]:
    found = {}
    for said, column in mapped.items():
        meaning = meaning_of(said)
        if meaning is None or not _of_use(meaning) or not (meaning.split or meaning == LEARNING_RATE):
            what = f"{said} is no meaning of a column; allowed: train_ or validation_ and one of "
            raise JobError(f"{what}loss, {', '.join((*RISING, *FALLING))}; or learning_rate", field="--column")
        if column not in columns:
            what = f"{name} has no column of numbers {column}; it has {', '.join(columns) or 'none'}"
            raise JobError(what, field="--column")
        found[meaning] = column
    return found


def _of_use(meaning: Meaning) -> bool:
    return meaning == LEARNING_RATE or meaning.quantity.endswith("loss") or meaning.quantity in (*RISING, *FALLING)


def _with_split(candidates: Mapping[Meaning, list[Curve]]) -> dict[Meaning, list[Curve]]:
    """A column whose name says no split is of the training rows, as `loss` beside `val_loss`."""
    found: dict[Meaning, list[Curve]] = {}
    for meaning, curves in candidates.items():
        split: Split = meaning.split if meaning.split or meaning == LEARNING_RATE else "train"
        found.setdefault(Meaning(split, meaning.quantity), []).extend(curves)
    return found


def _chosen(meaning: Meaning, curves: Sequence[Curve]) -> Curve:
    """One of several columns of the same meaning: not of test rows, by epochs, and the loss as finely as it is had."""

    def rank(curve: Curve) -> tuple[bool, bool, int]:
        tested = bool(TEST & set(plain(curve.column).split("_")))
        stepwise = level_of(curve.column) == "step" and not meaning.quantity.endswith("loss")
        return tested, stepwise, -len(curve)

    return min(curves, key=rank)


def _with_whole_losses(curves: Mapping[Meaning, Curve]) -> dict[Meaning, Curve]:
    """Where a split has only parts of a loss, as box, class and so on, their sum stands for it."""
    found = {each: curve for each, curve in curves.items() if not each.quantity.endswith("_loss")}
    parts = {each: curve for each, curve in curves.items() if each.quantity.endswith("_loss")}
    of_both = [{each.quantity for each in parts if each.split == split} for split in ("train", "validation")]
    common = set.intersection(*of_both) if all(of_both) else set.union(*of_both)
    for split in ("train", "validation"):
        whole = Meaning(split, "loss")
        summed = [curve for each, curve in parts.items() if each.split == split and each.quantity in common]
        if whole in found or not summed:
            continue
        same = [curve for curve in summed if len(curve) == len(summed[0]) and np.array_equal(curve.x, summed[0].x)]
        columns = " + ".join(curve.column for curve in same)
        found[whole] = Curve(columns, same[0].x, np.sum([curve.y for curve in same], axis=0))
    return found


def _share(meaning: Meaning, curve: Curve) -> Curve:
    in_percent = meaning.quantity in BOUNDED and np.nanmax(curve.y, initial=0.0) > PERCENT
    return replace(curve, y=curve.y / 100) if in_percent else curve


def _aligned(curves: Mapping[Meaning, Curve]) -> dict[Meaning, Curve]:
    """Some scripts count steps for one curve and epochs for another: these are laid over each other, end on end."""
    longest = max((float(curve.x[-1]) for curve in curves.values()), default=0.0)
    found = {}
    for meaning, curve in curves.items():
        other = len(curve) > 2 and 0 < curve.x[-1] < longest / OTHER_COUNT
        step = (curve.x[-1] - curve.x[0]) / (len(curve) - 1) if len(curve) > 1 else 0.0
        # Rows counted from 0 end one row before the end.
        last = curve.x[-1] + (step if curve.x[0] == 0 else 0.0)
        first = step if curve.x[0] == 0 else 0.0
        found[meaning] = replace(curve, x=(curve.x + first) * longest / last) if other else curve
    return found


def _not_understood(recorded: Recorded, name: str) -> str:
    columns = ", ".join(list(recorded.columns)[:20]) or "none"
    what = f"no column of {name} was understood (its columns of numbers: {columns}); allowed: say what they are, "
    example = next(iter(recorded.columns), "COLUMN")
    return f"{what}such as --column validation_loss={example}"
