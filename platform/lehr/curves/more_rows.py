"""Where few validation rows say little: what cross-validation would cost, and the whole line to type for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from lehr.curves.typed import as_typed
from lehr.formatting import format_seconds
from lehr.intervals import is_wide, metric_in_words
from lehr.runs import Progress, RunFolder

FOLDS = 5
MOST_SECONDS = 2 * 3600.0
"""What folds may take to be proposed: beyond that they cost more than most people would give for a narrower figure."""


def advise_folds(run: RunFolder, progress: Progress) -> str:
    """What tells more than so few validation rows; empty where they are enough, where folds would take hours, and where
    the split is no draw of one share: rows of their own, one of several splits, a fold."""
    data = run.job.get("data")
    if not isinstance(data, Mapping) or data.get("split_seed") is not None or data.get("fold") is not None:
        return ""
    has_share = isinstance(data.get("validation"), float)  # which has no meaning beside folds
    return _advice(run, progress, "lehr run JOB folds=5" + (" data.validation=" if has_share else ""))


def advise_folds_of_kept(run: RunFolder, progress: Progress) -> str:
    """The same for what a search or a recipe keeps, whose job has to be written first. The time is that of the kept
    training alone, as far as it is known."""
    name = shlex.quote(run.name)
    return _advice(
        run, progress, f"lehr best {name} best.yaml && lehr run best.yaml folds=5 data.validation=", timed=False
    )


def _advice(run: RunFolder, progress: Progress, command: str, *, timed: bool = True) -> str:
    best, rows = progress.best, progress.measured_rows.get("validation")
    sources = run.environment.data.rows if run.environment.data else None
    if best.value is None or not rows or not metric_in_words(best.value, best.metric, rows):
        return ""
    if not isinstance(sources, Mapping) or "validation" in sources or not is_wide(best.value, rows):
        return ""
    seconds = FOLDS * progress.seconds.get("total", 0.0)
    if timed and seconds > MOST_SECONDS:
        return ""
    takes = f", in about {format_seconds(seconds)} of computing" if timed and seconds else ""
    every = sources.get("train", 0)
    told = f"{rows:,} validation rows say little. Five folds measure all {every:,} rows{takes}: {command}"
    return as_typed(told, run)
