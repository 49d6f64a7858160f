"""How values and metrics read in reports, tables and messages of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lehr import formatting
from lehr.intervals import metric_in_words, not_told_from_best
from lehr.search.space import DIGITS, Values
from lehr.tasks.forms import spoken_in_full


def format_value(value: Any) -> str:
    """One value of a field, short: a whole section as its name and its options, `step (every 30%)`."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{key} {format_value(each)}" for key, each in value.items() if key not in ("name", "kind"))
        name = value.get("name", value.get("kind", ""))
        return f"{name} ({options})" if name and options else str(name or options)
    if isinstance(value, list):
        return "[" + ", ".join(map(format_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _format_number(value) if isinstance(value, float) else str(value)


def _format_number(value: float) -> str:
    """A number without trailing zeros, and with all its digits: those of 0.99995 tell it from its neighbours."""
    return f"{value:.{DIGITS}g}" if float(f"{value:.{DIGITS}g}") == value else repr(value)


def format_values(values: Values) -> str:
    """The values of a trial: `optimizer.lr 0.1, schedule cosine`."""
    return ", ".join(f"{path} {format_value(value)}" for path, value in values.items())


def format_metric(value: float | None, metric: str, rows: Mapping[str, int] | None = None) -> str:
    """A value of the metric: accuracies in percent, with their interval where `rows` are known; empty for None."""
    return "" if value is None else formatting.format_metric(value, metric, rows)


def close_to_best(metric: str, ranking: Sequence[tuple[object, float]], measured_rows: Mapping[str, int]) -> str:
    """Which others, (name, value), the validation rows cannot tell from the best; empty of metrics but accuracy."""
    rows = measured_rows.get("validation")
    return not_told_from_best(ranking, rows) if metric_in_words(0.5, metric, rows) else ""


def metric_name(metric: str) -> str:
    """`validation accuracy`, `validation CIDEr`."""
    return spoken_in_full(metric)


def is_accuracy(metric: str) -> bool:
    """Whether the metric is a share that is shown in percent."""
    return "accuracy" in metric


def short_paths(paths: Sequence[str]) -> list[str]:
    """The last part of each dotted path, or as many as tell it from the others: `lr`, `optimizer.name`."""
    found = []
    for path in paths:
        parts = path.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        alone = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in paths) == 1)
        found.append(next(alone, path))
    return found
