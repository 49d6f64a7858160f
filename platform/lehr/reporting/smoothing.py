"""Smoothing and thinning of noisy curves. Pure functions of arrays; NaN and infinity mean "not known"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST_IN_WINDOW = (
    500  # points in a window; beyond it, blocks of points are averaged first: the line through them is equal
)
EVENLY_SPACED = 6  # points that a bucket of a thinned scatter keeps besides its extremes


def smooth(x: Floats, y: Floats, at: Floats, span: float, weights: Floats | None = None) -> Floats:
    """A moving average that does not lag at the ends: the least-squares line through each window, read at its middle.

    Inside the curve the window is symmetric, and the line's value in the middle is the plain average. At the ends the
    window is one-sided, and a plain average would lag by half a window where the curve moves (Cleveland, "Robust
    Locally Weighted Regression", 1979, with a uniform kernel). The value stays within the range of its window, so a
    positive curve stays positive.

    Args:
        x: positions [points], ascending.
        y: values [points]; those that are not finite are left out.
        at: where to read the result [results].
        span: width of the window, in units of x. Points exactly on its edge are inside.
        weights: of the points [points], such as the examples of each step; by default all count alike.

    Returns:
        [results]; NaN where a window holds no finite value.
    """
    w = np.ones(len(x)) if weights is None else np.where(weights > 0, weights, 1.0)
    known = np.isfinite(x) & np.isfinite(y)
    x, y, w = x[known], y[known], w[known]
    block = int(len(x) * span / (x[-1] - x[0]) / MOST_IN_WINDOW) if len(x) and x[-1] > x[0] else 1
    if block > 1:
        x, y, w = _block_means(x, block), _block_means(y * w, block) / _block_means(w, block), _block_means(w, block)
    first = np.searchsorted(x, at - span / 2, "left")
    last = np.searchsorted(x, at + span / 2, "right")
    windows = zip(first, last, at, strict=True)
    return np.array([_line_at(x[i:j], y[i:j], w[i:j], p) for i, j, p in windows], dtype=np.float64)


def _block_means(values: Floats, count: int) -> Floats:
    """The means of consecutive blocks of `count` values; the last block may be shorter."""
    starts = np.arange(0, len(values), count)
    with np.errstate(over="ignore", invalid="ignore"):
        means: Floats = np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
    return means


def _line_at(x: Floats, y: Floats, weights: Floats, at: float) -> float:
    if not len(y):
        return float("nan")
    share = weights / weights.sum()
    middle = float(share @ x)
    distance = x - middle
    spread = float(share @ distance**2)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(share @ y)
        slope = float(share @ (distance * (y - mean))) / spread if spread > 0 and len(y) > 2 else 0.0
        value = mean + slope * (at - middle)
    return float(np.clip(value, y.min(), y.max())) if np.isfinite(value) else float(np.median(y))


def moving_average(x: Floats, y: Floats, span: float, points: int = 400) -> tuple[Floats, Floats]:
    """The line to draw over a scatter: about `points` positions between the first and the last x, and `smooth` there.

    In a gap longer than the span the line is NaN, so that nothing is drawn where nothing was measured.
    """
    if not len(x):
        return np.empty(0), np.empty(0)
    if len(x) > points:
        at = np.linspace(x[0], x[-1], points)
    else:
        gaps = np.flatnonzero(np.diff(x) > span)
        at = np.sort(np.concatenate([np.unique(x), (x[gaps] + x[gaps + 1]) / 2]))
    return at, smooth(x, y, at, span)


def slope(x: Floats, y: Floats) -> float:
    """The slope of the least-squares line through the finite points; 0 with fewer than two positions."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2:
        return 0.0
    distance = x - x.mean()
    spread = float(distance @ distance)
    return float(distance @ y) / spread if spread > 0 else 0.0


def thin(x: Floats, y: Floats, limit: int) -> Indices:
    """Indices of at most `limit` points to draw, ascending. Up to the limit that is every point.

    The x axis is cut into equal buckets. Each keeps its lowest and its highest point, so that no spike is lost and the
    cloud keeps its outline, and a few evenly spaced points, so that it keeps its density.
    """
    if len(x) <= limit:
        return np.arange(len(x), dtype=np.int64)
    buckets = max(1, limit // (2 + EVENLY_SPACED))
    width = (x[-1] - x[0]) / buckets or 1.0
    edges = np.searchsorted(x, x[0] + width * np.arange(1, buckets), "left")
    chosen: set[int] = set()
    for part in np.split(np.arange(len(x)), edges):
        if len(part):
            values = np.where(np.isfinite(y[part]), y[part], np.nan)
            chosen |= {int(part[(2 * k + 1) * len(part) // (2 * EVENLY_SPACED)]) for k in range(EVENLY_SPACED)}
            if not np.isnan(values).all():
                chosen |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
    return np.array(sorted(chosen), dtype=np.int64)
