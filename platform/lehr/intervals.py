"""How sure a measured share is, such as an accuracy: its interval, in numbers and in words. Pure functions.

An accuracy on few rows is a rough figure. Everything that tells a person an accuracy tells its interval, and whatever
chooses between two says whether rows of this number can tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.96
"""Standard errors on both sides of a share that hold 95 % of what chance does."""

SHARES = ("accuracy", "train_accuracy", "clean_train_accuracy", "validation_accuracy", "test_accuracy")
"""Metrics that are the share of the rows of a split that are right. A balanced accuracy, say, is none."""


def interval(share: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share that was measured on `rows` rows: Wilson, "Probable inference", 1927.

    Unlike share ± 1.96 standard errors it stays between 0 and 1, and is not empty where all rows are right.
    """
    if rows <= 0 or not 0 <= share <= 1:
        return 0.0, 1.0
    centre = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z / (1 + Z**2 / rows) * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    # At its ends the interval is exact; rounding would leave it a little short of them, or beyond.
    return 0.0 if share <= 0 else max(0.0, centre - half), 1.0 if share >= 1 else min(1.0, centre + half)


def in_words(share: float, rows: int | None) -> str:
    """`54.2% ± 7.2`, the half width in points; `100.0% (83.9 to 100.0)` where the two sides differ.

    Without an interval, `54.20%`, where the rows are not known, or a damaged file holds what is no share or no number.
    """
    if not isinstance(rows, int) or rows <= 0 or not 0 <= share <= 1:
        return f"{share:.2%}" if abs(share) < 1e12 else f"{share:.4g}"
    low, high = interval(share, rows)
    half = (high - low) / 2
    digits = 1 if half >= 0.002 else 2
    if max(high - share, share - low) > 1.5 * half:
        return f"{share:.{digits}%} ({100 * low:.{digits}f} to {100 * high:.{digits}f})"
    return f"{share:.{digits}%} ± {100 * half:.{digits}f}"


def metric_in_words(value: float, metric: str, rows: int | None) -> str:
    """The same of a metric that is such a share; empty of others, whose interval nobody knows."""
    return in_words(value, rows) if metric.removeprefix("averaged_") in SHARES else ""


def overlap(one: float, other: float, rows: int, rows_of_other: int | None = None) -> bool:
    """Whether chance alone can explain the difference of two shares, each measured on rows of this number.

    Two that were measured on the same rows are told apart better by `unlike`, where it is known which rows are right.
    The errors are those of the shares with two more rows right and two more wrong, so that none is zero: Agresti and
    Caffo, "Simple and effective confidence intervals for proportions", 2000.
    """
    counts = (rows, rows if rows_of_other is None else rows_of_other)
    shares = [(share * count + 1) / (count + 2) for share, count in zip((one, other), counts, strict=True)]
    error = math.sqrt(sum(share * (1 - share) / (count + 2) for share, count in zip(shares, counts, strict=True)))
    return abs(shares[0] - shares[1]) <= Z * error


def not_told_from_best(ranking: Sequence[tuple[object, float]], rows: int | None, most: int = 5) -> str:
    """Which others a number of rows cannot tell from the best; empty where it tells it from all of them.

    Args:
        ranking: (name, share), the best first.
        most: that are named.
    """
    if not rows or len(ranking) < 2:
        return ""
    close = [str(name) for name, share in ranking[1:] if overlap(ranking[0][1], share, rows)]
    if not close:
        return ""
    named = ", ".join(close[:most]) + (f" and {len(close) - most} more" if len(close) > most else "")
    return f"{rows:,} validation rows cannot tell it from {named}: chance explains such a difference."


def unlike(only_first: int, only_second: int) -> bool:
    """Whether two models differ on the same rows by more than chance does: the exact test of McNemar, 1947, at 5 %.

    Args:
        only_first, only_second: rows that just one of the two has right.
    """
    differing, fewer = only_first + only_second, min(only_first, only_second)
    if differing == 0:
        return False
    tail = sum(math.exp(_log_choose(differing, k) - differing * math.log(2)) for k in range(fewer + 1))
    return 2 * tail <= 0.05


WIDE = 0.03
"""Half width of an interval from which on more validation rows, or several splits, are worth their cost."""


def is_wide(share: float, rows: int) -> bool:
    """Whether the interval of a share is so wide that most choices between two runs are chance."""
    low, high = interval(share, rows)
    return (high - low) / 2 > WIDE


def is_above(share: float, level: float, rows: int) -> bool:
    """Whether a share is above a known level by more than chance explains."""
    return interval(share, rows)[0] > level


def is_below(share: float, level: float, rows: int) -> bool:
    """Whether a share is below a known level by more than chance explains. Few rows may be neither above nor below."""
    return interval(share, rows)[1] < level


CLEARLY_BETTER = 0.25
"""Share of the way from a level to perfect that rows must be enough to rule out."""


def no_better(share: float, level: float, rows: int) -> bool:
    """Whether a share is shown to be no better than a level, such as that of a guess.

    It is not above it by more than chance, and the rows are so many that `CLEARLY_BETTER` would have shown. Where they
    are too few for that, nothing is known: that a share is not significantly better does not make it no better.
    """
    return not is_above(share, level, rows) and is_below(share, level + CLEARLY_BETTER * (1 - level), rows)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
