"""Labels from the columns of a table: one class, several classes or numbers a row. Pure functions of the columns.

- a class: text or whole numbers, in one column;
- classes: in one column, lists of text or numbers, or text with names between `|`, `;` or `,`; in several columns,
  a class each, 0 and 1 or true and false;
- numbers: in one column, a number or a list of them, all of one length; in several columns, a number each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lehr.data.captions import as_labels, has_words
from lehr.data.labels import NO_LABEL, Labels
from lehr.tasks.forms import LabelKind

USUAL_NAMES = ("label", "labels")
OTHER_NAMES = (
    *("class", "class_name", "classname", "class_label", "category", "target", "targets", "y", "cls"),
    *("fine_label", "label_name", "species", "breed", "diagnosis"),
)
"""What the column of the classes is called as well."""
TEXTS = ("caption", "captions", "text", "sentence", "sentences", "description", "comment", "raw")
"""What the column of captions is called."""
NEVER = re.compile(r"(__index_level_\d+__|__key__|__url__|index|id|uuid|idx|split|.*_id|unnamed.*|)", re.IGNORECASE)
"""Names of columns that number rows, or say where they come from."""
BETWEEN = re.compile(r"\s*[|;,]\s*")
MOST_SHOWN = 8

Name = Callable[[int], str]
"""From the position of a row to where a person finds it."""


class WrongLabels(ValueError):
    """Columns that hold no labels of the wanted kind. `column` names the first of them."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(what)
        self.column = column


@dataclass(frozen=True)
class LabelColumns:
    """The labels of all rows of a source.

    Attributes:
        names: of the classes or numbers.
        labels: int64 [rows], int8 or float64 [rows, names], or captions.
    """

    names: tuple[str, ...]
    labels: Labels


def choose_columns(
    wanted: Sequence[str],
    there: Sequence[str],
    kind: LabelKind,
    others: Sequence[str],
    with_names: Sequence[str] = (),
) -> list[str]:
    """The columns to read: those that the job names, else `label` or `labels`, else the only one that can be.

    Args:
        wanted: those that the job names. there: all of the table. others: those that are not labels.
        with_names: those whose numbers the file says names for.

    Raises:
        WrongLabels: one is not there, or none is named and there are several, or none.
    """
    known = [name for name in there if name not in others and not NEVER.fullmatch(name)]
    for name in wanted:
        if name not in there:
            raise WrongLabels(name, f"has no column {name}; its columns are {_listed(there)}")
    found = list(wanted) or [name for name in (TEXTS if kind == "captions" else USUAL_NAMES) if name in there][:1]
    if found:
        return found
    usual = [name for name in known if name.lower() in OTHER_NAMES]
    for likely in ([name for name in known if name in with_names], usual, known):
        if len(likely) == 1 and kind != "numbers":
            return likely
        if likely:
            known = likely
            break
    names = (known[:1] if kind == "class" else known[:3]) or ["NAME"]
    wanted_name = names[0] if kind == "class" else f"[{','.join(names)}]"
    several = f"type data.columns.label={wanted_name}"
    if kind == "captions":
        raise WrongLabels("label", f"has no column caption or text; its columns are {_listed(there)}; {several}")
    if len(known) > 1 and kind == "class":
        several = f"{len(known)} of them may hold the labels, {_listed(known)}; {several}"
    raise WrongLabels("label", f"has no column label or labels; its columns are {_listed(there)}; {several}")


def read_columns(
    columns: Mapping[str, pa.Array[Any]], kind: LabelKind, name: Name, known: Sequence[str] | None = None
) -> LabelColumns:
    """The labels in these columns.

    Args:
        columns: by name, at least one, all with as many rows.
        name: where a person finds a row, for messages.
        known: the names of the classes or numbers in order, where the file says them.

    Raises:
        WrongLabels: the columns hold no labels of this kind.
    """
    if len(columns) > 1 and kind == "class":
        raise WrongLabels(
            next(iter(columns)), "one class a row stands in one column; type one name in data.columns.label"
        )
    columns = {column: _plain(values) for column, values in columns.items()}
    if kind == "numbers":
        return _numbers(columns, name, known)
    if kind == "captions":
        return _texts(columns, name)
    if len(columns) > 1:
        return _flags(columns, name)
    ((column, values),) = columns.items()
    return _one_class(column, values, name, known) if kind == "class" else _several(column, values, name, known)


def _plain(values: pa.Array[Any]) -> pa.Array[Any]:
    """The same values in a type that does not depend on how a file stores them: dictionaries are looked up, text is
    `string`."""
    kind: Any = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    return values.cast(pa.string()) if pa.types.is_string_view(values.type) else values


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _numbers(columns: Mapping[str, pa.Array[Any]], name: Name, known: Sequence[str] | None) -> LabelColumns:
    if len(columns) == 1:
        ((column, values),) = columns.items()
        if _is_list(values.type):
            return _number_lists(column, values, name, known)
    found = [_as_numbers(column, values, name) for column, values in columns.items()]
    return LabelColumns(tuple(columns), np.stack(found, axis=1))


def _number_lists(column: str, values: Any, name: Name, known: Sequence[str] | None) -> LabelColumns:
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if len(lengths) else 0
    if len(odd := np.flatnonzero(lengths != width)):
        what = f"{name(int(odd[0]))} has {lengths[odd[0]]} numbers in {column}, and the first row has {width}"
        raise WrongLabels(column, f"{what}; allowed: as many in every row")
    if known and len(known) != width:
        raise WrongLabels(column, f"{column} has {width} numbers a row, and the file names {len(known)}")
    flat = _as_numbers(column, values.flatten(), lambda at: name(at // max(1, width)))
    return LabelColumns(tuple(known or (f"{column}_{k}" for k in range(width))), flat.reshape(len(values), width))


def _as_numbers(column: str, values: pa.Array[Any], name: Name) -> np.ndarray:
    """float64 [rows]; text that is a number counts as one. Nulls become NaN."""
    kind = values.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise WrongLabels(column, f"has a column {column} of type {kind}; allowed: numbers")
        values = pa.array(
            [_number(column, text, name(row)) for row, text in enumerate(values.to_pylist())], pa.float64()
        )
    found = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array(found, np.float64)


def _number(column: str, text: str | None, where: str) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise WrongLabels(column, f'{where} has "{text[:40]}" in {column}; allowed: numbers') from None


# ── captions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(columns: Mapping[str, pa.Array[Any]], name: Name) -> LabelColumns:
    """Text, or lists of texts, in one column or in several; what has no word is left out."""
    found: list[list[str]] = [[] for _ in range(len(next(iter(columns.values()))))]
    for column, values in columns.items():
        kind: Any = values.type
        inner = kind.value_type if _is_list(kind) else kind
        if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)):
            raise WrongLabels(column, f"has a column {column} of type {kind}; allowed: text, or lists of texts")
        for row, value in enumerate(values.to_pylist()):
            texts = value if isinstance(value, list) else [value]
            found[row] += [each for each in texts if each is not None and has_words(each)]
    if not any(found):
        raise WrongLabels(next(iter(columns)), f"has no word in {' or '.join(columns)}; allowed: captions")
    return LabelColumns((), as_labels(found))


# ── classes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _flags(columns: Mapping[str, pa.Array[Any]], name: Name) -> LabelColumns:
    found = []
    for column, values in columns.items():
        numbers = _as_numbers(column, values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values, name)
        odd = np.flatnonzero(~np.isnan(numbers) & (numbers != 0) & (numbers != 1))
        if len(odd):
            what = f"{name(int(odd[0]))} has {numbers[odd[0]]:g} in {column}"
            raise WrongLabels(column, f"{what}; allowed: 1 where the row has this class, else 0")
        found.append(np.where(np.isnan(numbers), NO_LABEL, numbers).astype(np.int8))
    return LabelColumns(tuple(columns), np.stack(found, axis=1))


def _several(column: str, values: pa.Array[Any], name: Name, known: Sequence[str] | None) -> LabelColumns:
    """Lists of classes, or text with the names of several; an empty one is a row of no class, null one without
    label."""
    kind = values.type
    if not (_is_list(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise WrongLabels(
            column, f"has a column {column} of type {kind}; allowed: lists of classes, or text with names"
        )
    rows = [_classes_of(value) for value in values.to_pylist()]
    found = {each for row in rows for each in row or ()}
    names = _class_names(column, found, known)
    index: dict[Any, int] = {each: number for number, each in enumerate(names)}
    if known and not any(isinstance(each, str) for each in found):
        index = dict(enumerate(range(len(names))))
    labels = np.zeros((len(rows), len(names)), np.int8)
    for number, row in enumerate(rows):
        if row is None:
            labels[number] = NO_LABEL
        for each in row or ():
            at = index.get(each, index.get(str(each)))
            if at is None:
                raise WrongLabels(column, f"{name(number)} has {each!r} in {column}; allowed: {_listed(names)}")
            labels[number, at] = 1
    return LabelColumns(names, labels)


def _classes_of(value: Any) -> list[Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return [each for each in BETWEEN.split(value.strip()) if each]
    return list(value) if isinstance(value, list) else [value]


def _one_class(column: str, values: pa.Array[Any], name: Name, known: Sequence[str] | None) -> LabelColumns:
    kind = values.type
    whole = pa.types.is_integer(kind)
    if pa.types.is_floating(kind):
        values, whole = _whole(column, values), True
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.string())  # "false" and "true"
    elif _is_list(kind):
        raise WrongLabels(column, _lists_told(column, kind))
    elif not (whole or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise WrongLabels(column, f"has a column {column} of type {kind}; allowed: names, or whole numbers")
    rows = [None if value is None or value == "" else value for value in values.to_pylist()]
    names = _class_names(column, {each for each in rows if each is not None}, known)
    index: dict[Any, int] = (
        dict(enumerate(range(len(names)))) if whole and known else {n: k for k, n in enumerate(names)}
    )
    labels = np.full(len(rows), NO_LABEL, np.int64)
    for number, value in enumerate(rows):
        if value is not None:
            at = NO_LABEL if whole and value == NO_LABEL and known else index.get(value, index.get(str(value)))
            if at is None:
                raise WrongLabels(column, f"{name(number)} has {value!r} in {column}; allowed: {_listed(names)}")
            labels[number] = at
    return LabelColumns(names, labels)


def _whole(column: str, values: pa.Array[Any]) -> pa.Array[Any]:
    """Floats that are whole numbers, which is what pandas makes of whole numbers with gaps."""
    numbers = values.to_numpy(zero_copy_only=False)
    there = numbers[~np.isnan(numbers)]
    if len(odd := there[there != np.floor(there)]):
        what = f"has numbers such as {odd[0]:g} in {column}, which are no classes"
        raise WrongLabels(column, f"{what}; to learn numbers, type task=regression")
    return pa.array([None if np.isnan(each) else int(each) for each in numbers], pa.int64())


def _lists_told(column: str, kind: Any) -> str:
    if pa.types.is_floating(kind.value_type):
        return f"has lists in {column}, numbers a row; type task=regression"
    return f"has lists in {column}, several classes a row; type task=multilabel"


def _class_names(column: str, found: set[Any], known: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes: as the file says them, else those that occur, numbers in their order."""
    if known:
        return tuple(known)
    if odd := [each for each in found if isinstance(each, (float, bool))]:
        raise WrongLabels(column, f"has {odd[0]!r} in {column}; allowed: names, or whole numbers")
    numbers = all(isinstance(each, int) for each in found)
    return tuple(str(each) for each in sorted(found, key=None if numbers else str))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (", …" if len(names) > MOST_SHOWN else "")
