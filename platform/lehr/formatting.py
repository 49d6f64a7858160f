"""Times, paths and folders as sentences show them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lehr.intervals import metric_in_words
from lehr.runs import Folder


def format_seconds(seconds: float) -> str:
    """`45 s`, `3 min 20 s` or `2 h 05 min`; `? s` for what is no time."""
    if not math.isfinite(seconds):
        return "? s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def large(number: int) -> str:
    """`8,120`, `11.2 million`, `1.3 billion`."""
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"


def format_left(seconds: float | None, least: float | None = None, most: float | None = None) -> str:
    """`45 s left`, `30 s to 1 min 10 s left` where an estimate is that rough, or `at most 2 min 00 s left` where only
    that is known; empty where nothing is."""
    if seconds is None:
        return "" if most is None else f"at most {format_seconds(most)} left"
    low, high = (format_seconds(seconds if each is None else each) for each in (least, most))
    return f"{format_seconds(seconds)} left" if low == high else f"{low} to {high} left"


def stop_reason(reason: str) -> str:
    """Why a run was asked to stop, in words: a signal is named by what sends it."""
    return {
        "SIGINT": "stopped with Ctrl-C",
        "SIGTERM": "stopped by lehr stop, the system or another program (SIGTERM)",
        "SIGHUP": "stopped when its terminal closed",
    }.get(reason, reason)


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A tree, such as a job, with dotted paths as its keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = f"{path}.{key}" if path else str(key)
        found |= flat(value, inner) if isinstance(value, Mapping) else {inner: value}
    return found


OF_THE_RUN = ("name", "notes", "notify", "storage", "time_limit", "tracking")
"""Fields of a job that say nothing of what is trained."""


def differing(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted paths of the fields in which jobs differ, but for those of the run, in the order they stand in."""
    trees = [flat(job) for job in jobs]
    paths = dict.fromkeys(path for each in trees for path in each)
    return [p for p in paths if p not in OF_THE_RUN and len({repr(each.get(p)) for each in trees}) > 1]


def count_of(number: float, noun: str, nouns: str = "") -> str:
    """`1 trial`, `2 trials`, `0.5 minutes`; `nouns` is the plural where it is not made with an s."""
    told = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{told} {noun if told == '1' else nouns or f'{noun}s'}"


def format_metric(value: float, metric: str, rows: Mapping[str, int] | int | None = None) -> str:
    """A value of a recorded metric: `98.2% ± 1.4` for an accuracy on so many rows, else `0.0612`.

    Args:
        rows: on which it was measured, or those of each split; where it is not known, an accuracy has no interval.
    """
    if not isinstance(rows, int):
        split = "test" if metric.startswith("test_") else "validation"
        rows = (rows or {}).get(split)
    if told := metric_in_words(value, metric, rows):
        return told
    return f"{value:.2%}" if "accuracy" in metric else format_figure(value, ".4f")


def format_figure(value: float, form: str) -> str:
    """A number as `form` has it, such as `.4f`, and a huge one in a few digits."""
    return format(value, form if abs(value) < 1e12 else ".4g")


def format_time_table(seconds: Mapping[str, float]) -> str:
    """Where the time went, as one line with shares: `start-up 9 s (60%), compute 5 s (33%), …`."""
    total = seconds.get("total", 0.0) + seconds.get("startup", 0.0)
    names = {"startup": "start-up"}
    parts = {names.get(k, k): v for k, v in seconds.items() if k != "total"}
    parts["other"] = max(0.0, total - sum(parts.values()))
    largest_first = sorted(((k, v) for k, v in parts.items() if v >= 0.05), key=lambda item: -item[1])
    return ", ".join(f"{name} {value:.1f} s ({value / total:.0%})" for name, value in largest_first) if total else ""


def format_path(path: Path) -> str:
    """The path, relative to the current folder if it is inside it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def format_folder(folder: Folder) -> str:
    """A folder as a person here would write it: a short path, or its URI."""
    return format_path(folder.local_path) if folder.is_local else folder.uri
