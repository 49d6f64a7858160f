"""Small charts as SVG, drawn from a few points without a library: a live view draws them twice a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lehr.printing import one_line

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 78, 26, 24
"""Room around the curves: numbers at the left and below, the title above, the names of the curves at the right."""
MOST_POINTS = 240
LINE = 13  # pixels between two names

TRAINING, VALIDATION = "#3f7fc1", "#dd7a26"


@dataclass(frozen=True)
class Line:
    """A curve: its name, its colour, and its points (x, y), ascending in x. Points that are no numbers are left out."""

    name: str
    color: str
    points: Sequence[Point]

    @property
    def drawn(self) -> list[Point]:
        """The points that are drawn: finite ones, of many the lowest and the highest of each stretch."""
        finite = [(x, y) for x, y in self.points if math.isfinite(x) and math.isfinite(y)]
        stretch = math.ceil(len(finite) / (MOST_POINTS / 2))
        if stretch <= 1:
            return finite
        kept = []
        for start in range(0, len(finite), stretch):
            part = finite[start : start + stretch]
            ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
            kept += sorted(ends)
        return kept


def panel(title: str, lines: Sequence[Line], last: float, form: str = ".3g", dots: bool = False) -> str:
    """A chart of curves over epochs.

    Args:
        last: the epoch at the right end of the axis.
        form: how the numbers of the vertical axis are written.
        dots: whether each point is marked.
    """
    curves = [(line, line.drawn) for line in lines]
    values = [y for _, points in curves for _, y in points]
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    last = max([last, *(x for _, points in curves for x, _ in points)]) or 1.0

    def place(point: Point) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / last
        return round(x, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (point[1] - low) / (high - low), 1)

    parts = [_text(LEFT, 14, title, weight=600), _text(WIDTH - RIGHT, HEIGHT - 6, f"epoch {last:g}", "end", faint=True)]
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        _, y = place((0, value))
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="currentColor" opacity=".13"/>')
        parts.append(_text(LEFT - 6, y + 4, format(value, form), "end", faint=True))
    ends = []
    for line, points in curves:
        if not points:
            continue
        at = [place(point) for point in points]
        path = "L".join(f"{x} {y}" for x, y in at)
        parts.append(f'<path d="M{path}" fill="none" stroke="{line.color}" stroke-width="1.6"/>')
        if dots or len(at) == 1:
            parts += [f'<circle cx="{x}" cy="{y}" r="2.2" fill="{line.color}"/>' for x, y in at]
        ends.append((at[-1][1], line))
    for y, line in _apart(ends):
        parts.append(_text(WIDTH - RIGHT + 6, y + 4, line.name, color=line.color))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(one_line(title))}" style="max-width:100%">{"".join(parts)}</svg>'
    )


def _apart(ends: Sequence[tuple[float, Line]]) -> list[tuple[float, Line]]:
    """The names beside the ends of their curves, moved down where two would meet."""
    placed: list[tuple[float, Line]] = []
    for y, line in sorted(ends, key=lambda end: end[0]):
        lowest = placed[-1][0] + LINE if placed else -math.inf
        placed.append((max(y, lowest), line))
    return placed


def _text(
    x: float, y: float, words: str, anchor: str = "start", *, color: str = "currentColor", weight: int = 400,
    faint: bool = False,
) -> str:  # fmt: skip
    opacity = ' opacity=".65"' if faint else ""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}" font-size="11" font-weight="{weight}"{opacity} '
        f'font-family="system-ui,sans-serif">{escape(one_line(words))}</text>'
    )
