"""Plots of learning-rate schedules: a chart for a file, and a small plot of braille dots for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lehr.durations import RunLength
from lehr.schedules import BaseSchedule

if TYPE_CHECKING:
    import altair as alt

POINTS = 400  # more than a small chart can show
COLORS = ("#4269d0", "#e8743b", "#3ca951", "#a463f2", "#d6336c", "#2b8a9e", "#97740c", "#6b7280", "#9c2f2f", "#1f6f4a")


@dataclass(frozen=True)
class ScheduleCurve:
    """A schedule over a run: its title, its options as text, and its points (epoch, factor on the learning rate)."""

    title: str
    options: str
    points: list[tuple[float, float]]

    @classmethod
    def of(cls, schedule: BaseSchedule, length: RunLength) -> ScheduleCurve:
        """The curve of a schedule over a run of this length. Raises ValueError where it does not fit."""
        factor, stride = schedule.bind(length), max(1, length.total_steps // POINTS)
        steps = [*range(0, length.total_steps - 1, stride), length.total_steps - 1]
        changed = schedule.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        options = ", ".join(f"{key} {_text(value)}" for key, value in changed.items())
        name = str(getattr(schedule, "name", type(schedule).__name__))
        return cls(name, options, [(step / length.steps_per_epoch, factor(step)) for step in steps])


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def chart(schedules: Sequence[ScheduleCurve], columns: int = 5) -> alt.ConcatChart:
    """The schedules side by side on equal axes, at most `columns` in a row."""
    import altair as alt

    from lehr.reporting.drawing import layer

    subtitled = any(curve.options for curve in schedules)
    highest = max(1.0, *(rate for curve in schedules for _, rate in curve.points))

    def panel(number: int, curve: ScheduleCurve) -> alt.LayerChart:
        color = COLORS[number % len(COLORS)]
        data = alt.InlineData(values=[{"epoch": round(x, 4), "rate": round(y, 6)} for x, y in curve.points])
        base = alt.Chart(data).encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickCount=4, grid=False)),
            y=alt.Y("rate:Q", title="learning rate / lr" if number % columns == 0 else None)
            .scale(domain=[0, highest])
            .axis(tickCount=3),
            tooltip=[alt.Tooltip("epoch:Q", format=".2f"), alt.Tooltip("rate:Q", format=".4f")],
        )
        title = alt.TitleParams(curve.title, subtitle=curve.options or (" " if subtitled else ""))
        layers = layer(base.mark_area(color=color, opacity=0.12), base.mark_line(color=color, strokeWidth=2))
        return layers.properties(width=165, height=105, title=title)

    panels = [panel(number, curve) for number, curve in enumerate(schedules)]
    side: alt.ConcatChart = (
        alt.concat(*panels, columns=columns, spacing=18)
        .configure(background="white", font="sans-serif", padding=12)
        .configure_view(stroke=None)
        .configure_title(anchor="start", fontSize=13, subtitleFontSize=10, subtitleColor="#667085", offset=6)
        .configure_axis(
            labelColor="#667085", titleColor="#667085", titleFontWeight="normal", labelFontSize=10, titleFontSize=10,
            gridColor="#eaecf0", domainColor="#d0d5dd", tickColor="#d0d5dd",
        )
    )  # fmt: skip
    return side


def write(picture: alt.ConcatChart, path: Path) -> None:
    """Writes a chart to a .png, .svg or .html file; the page needs no network."""
    if path.suffix == ".html":
        picture.save(str(path), inline=True)
    elif path.suffix == ".svg":
        picture.save(str(path))
    else:
        from PIL import Image

        buffer = io.BytesIO()
        picture.save(buffer, format="png", scale_factor=1.8)
        # The picture has a few flat colours, so a palette looks the same in a third of the bytes.
        Image.open(buffer, formats=("PNG",)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def plot(schedule: ScheduleCurve, width: int = 36, height: int = 5) -> list[str]:
    """The curve as lines of braille dots, 2 × 4 to a character, with the title above and the axes beside and below.

    Args:
        width, height: of the plot itself, in characters.
    """
    dots = [[0] * width for _ in range(height)]
    first, last = schedule.points[0][0], schedule.points[-1][0]
    before: int | None = None
    for x in range(2 * width):
        at = first + (last - first) * x / (2 * width - 1)
        rate = min(schedule.points, key=lambda point: abs(point[0] - at))[1]
        y = round((1 - min(max(rate, 0.0), 1.0)) * (4 * height - 1))
        # The line between two columns is drawn in the second one, so that a jump is visible.
        for filled in range(min(y, y if before is None else before), max(y, y if before is None else before) + 1):
            dots[filled // 4][x // 2] |= _BRAILLE[filled % 4][x % 2]
        before = y
    label = {0: "1", height - 1: "0"}
    curve = [f"{label.get(row, ''):>2} ┤{''.join(chr(0x2800 + dot) for dot in line)}" for row, line in enumerate(dots)]
    epochs = f"{last:.0f} ep"
    return [f"   {schedule.title}  {schedule.options}".rstrip(), *curve, f"   0{epochs:>{width}}"]


_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def side_by_side(plots: Sequence[list[str]], columns: int) -> str:
    """Plots side by side, `columns` in a row."""
    rows = []
    for start in range(0, len(plots), columns):
        row = plots[start : start + columns]
        widths = [max(map(len, lines)) for lines in row]
        rows += [
            "   ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
            for texts in zip(*row, strict=True)
        ] + [""]
    return "\n".join(rows[:-1])
