"""Which form a file or folder has, and its logs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lehr.errors import JobError
from lehr.other_tools import events, mlflow_folder
from lehr.other_tools.log import Log
from lehr.other_tools.names import plain
from lehr.other_tools.recorded import Recorded, Row, curve, from_rows
from lehr.other_tools.resolve import log_of

IN_FOLDERS = ("trainer_state.json", "results.csv", "metrics.csv", "summary.csv", "history.csv", "log.txt")
"""The files in which the tools record curves, in a folder of theirs."""


def is_log(path: Path) -> bool:
    """Whether `path` is a file, or a folder in which another tool has recorded curves."""
    if path.is_dir():
        named = any((path / name).is_file() for name in IN_FOLDERS)
        return named or events.is_folder(path) or mlflow_folder.is_folder(path)
    return path.is_file()


def read_logs(path: Path, columns: Mapping[str, str] | None = None, rows: int = 0) -> list[Log]:
    """The trainings recorded in a file or folder, each with its curves.

    Args:
        columns: what columns mean whose names do not say so: `{"validation_loss": "loss_va"}`.
        rows: of the validation split, for the intervals of accuracies; 0: not known.

    Raises:
        JobError: it has no form that is known, no curves, or columns that nobody could understand.
    """
    recorded = [each for each in _recorded(path) if each.columns]
    if not recorded:
        raise JobError(f"{path} holds no numbers over epochs or steps")
    return [log_of(each, _name(path, each.run), columns or {}, rows) for each in recorded]


def _name(path: Path, run: str) -> str:
    return f"{path.name}, {run}" if run else path.name


def _recorded(path: Path) -> list[Recorded]:
    if path.is_dir():
        if mlflow_folder.is_folder(path):
            return mlflow_folder.read(path)
        if events.is_folder(path):
            return events.read(path)
        named = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
        if named is None:
            raise JobError(f"{path} is a folder without learning curves; allowed: {', '.join(IN_FOLDERS)}")
        return _recorded(named)
    if path.name.startswith("events.out.tfevents"):
        return events.read(path)
    return _from_text(path)


def _from_text(path: Path) -> list[Recorded]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise JobError(f"{path} is no text; allowed: CSV, JSON, JSON lines, or TensorBoard's event files") from None
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}") from None
    stripped = text.lstrip()
    if not stripped:
        raise JobError(f"{path} is empty")
    return _from_json(path, stripped) if stripped[0] in "{[" else _from_csv(path, text)


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_json(path: Path, text: str) -> list[Recorded]:
    try:
        value = json.loads(text)
    except ValueError:
        return from_rows(_json_lines(path, text), str(path))
    if isinstance(value, dict) and isinstance(value.get("log_history"), list):
        return _trainer_state(path, value)
    if isinstance(value, dict) and any(isinstance(each, list) for each in value.values()):
        return from_rows(_of_lists(value), str(path), "Keras" if "val_loss" in value else "")
    rows = value if isinstance(value, list) else [value]
    return from_rows([row for row in rows if isinstance(row, dict)], str(path))


def _json_lines(path: Path, text: str) -> list[Row]:
    """A last line that is cut off is left out: the training is running, or was killed while it wrote."""
    rows: list[Row] = []
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            if rows and number == lines[-1][0]:
                break
            raise JobError(f"line {number} of {path} is no JSON: {error}") from None
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _trainer_state(path: Path, state: Mapping[str, Any]) -> list[Recorded]:
    """Hugging Face: some rows are of training, some of evaluation; the last one has means over the whole run."""
    rows = [row for row in state["log_history"] if isinstance(row, dict) and "train_runtime" not in row]
    return from_rows(rows, str(path), "Hugging Face")


def _of_lists(value: Mapping[str, Any]) -> list[Row]:
    longest = max((len(each) for each in value.values() if isinstance(each, list)), default=0)
    return [
        {name: each[place] for name, each in value.items() if isinstance(each, list) and place < len(each)}
        for place in range(longest)
    ]


# ── CSV ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_csv(path: Path, text: str) -> list[Recorded]:
    head = text.splitlines()[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or []]
    if len(names) < 2 or all(_is_number(name) for name in names):
        raise JobError(f"{path} is no table with named columns; allowed: a first line such as epoch,loss,val_loss")
    reader.fieldnames = names
    rows: list[Row] = [{name: value for name, value in row.items() if name} for row in reader]
    if any(name.endswith("__MIN") for name in names):
        return _exported_chart(rows, names)
    return from_rows(rows, str(path), _tool(names))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _tool(names: list[str]) -> str:
    """Whose columns these are."""
    known = set(map(plain, names))
    if {"metrics_map50", "train_box_loss"} & known:
        return "Ultralytics"
    if {"train_loss", "eval_loss"} <= known and {"eval_top1", "eval_top5"} & known:
        return "timm"
    if {"epoch", "step"} <= known:
        return "Lightning"
    return "Keras" if {"epoch", "loss", "val_loss"} <= known else ""


def _exported_chart(rows: list[Row], names: list[str]) -> list[Recorded]:
    """A chart of Weights & Biases: `RUN - key` columns, each with its `__MIN` and `__MAX`."""
    index = names[0]
    points: dict[str, dict[str, dict[float, float]]] = {}
    for name in names[1:]:
        run, divider, key = name.rpartition(" - ")
        if not divider or key.endswith(("__MIN", "__MAX")):
            continue
        values = {float(str(row[index])): float(str(row[name])) for row in rows if row[index] and row.get(name)}
        if values:
            points.setdefault(run, {})[key] = values
    found = []
    for run, keys in points.items():
        columns = {key: curve(key, values) for key, values in keys.items()}
        axis: Literal["epoch", "step"] = "epoch" if plain(index) == "epoch" else "step"
        found.append(Recorded(axis, columns, run=run, tool="Weights & Biases"))
    return found
