"""Pictures of learning-rate schedules: a chart for a file, and a small plot of braille dots for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lehr.durations import Clock
from lehr.schedules import BaseSchedule

if TYPE_CHECKING:
    import altair as alt

POINTS = 400  # more than a small chart can show
COLORS = ("#4269d0", "#e8743b", "#3ca951", "#a463f2", "#d6336c", "#2b8a9e", "#97740c", "#6b7280", "#9c2f2f", "#1f6f4a")


@dataclass(frozen=True)
class Drawn:
    """A schedule over a run: its title, its options in words, and the (epoch, factor on lr) it goes through."""

    title: str
    options: str
    points: list[tuple[float, float]]

    @classmethod
    def of(cls, schedule: BaseSchedule, clock: Clock) -> Drawn:
        """Raises ValueError when the schedule does not fit the run."""
        factor, stride = schedule.bind(clock), max(1, clock.total_steps // POINTS)
        steps = [*range(0, clock.total_steps - 1, stride), clock.total_steps - 1]
        said = schedule.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        options = ", ".join(f"{key} {_words(value)}" for key, value in said.items())
        name = str(getattr(schedule, "name", type(schedule).__name__))
        return cls(name, options, [(step / clock.steps_per_epoch, factor(step)) for step in steps])


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def chart(schedules: Sequence[Drawn], columns: int = 5) -> alt.ConcatChart:
    """The schedules beside each other on equal axes, at most `columns` in a row."""
    import altair as alt

    subtitled = any(drawn.options for drawn in schedules)
    highest = max(1.0, *(rate for drawn in schedules for _, rate in drawn.points))

    def panel(number: int, drawn: Drawn) -> alt.LayerChart:
        color = COLORS[number % len(COLORS)]
        data = alt.Data(values=[{"epoch": round(x, 4), "rate": round(y, 6)} for x, y in drawn.points])
        base = alt.Chart(data).encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickCount=4, grid=False)),
            y=alt.Y("rate:Q", title="rate / lr" if number % columns == 0 else None)
            .scale(domain=[0, highest])
            .axis(tickCount=3),
            tooltip=[alt.Tooltip("epoch:Q", format=".2f"), alt.Tooltip("rate:Q", format=".4f")],
        )
        title = alt.TitleParams(drawn.title, subtitle=drawn.options or (" " if subtitled else ""))
        layers = base.mark_area(color=color, opacity=0.12) + base.mark_line(color=color, strokeWidth=2)
        return layers.properties(width=165, height=105, title=title)

    panels = [panel(number, drawn) for number, drawn in enumerate(schedules)]
    return (
        alt.concat(*panels, columns=columns, spacing=18)
        .configure(background="white", font="sans-serif", padding=12)
        .configure_view(stroke=None)
        .configure_title(anchor="start", fontSize=13, subtitleFontSize=10, subtitleColor="#667085", offset=6)
        .configure_axis(
            labelColor="#667085", titleColor="#667085", titleFontWeight="normal", labelFontSize=10, titleFontSize=10,
            gridColor="#eaecf0", domainColor="#d0d5dd", tickColor="#d0d5dd",
        )
    )  # fmt: skip


def write(picture: alt.ConcatChart, path: Path) -> None:
    """Draws a chart into a .png, .svg or .html file; the page needs no network."""
    if path.suffix == ".html":
        picture.save(str(path), inline=True)
    elif path.suffix == ".svg":
        picture.save(str(path))
    else:
        from PIL import Image

        buffer = io.BytesIO()
        picture.save(buffer, format="png", scale_factor=1.8)
        # A few flat colours: a palette holds them in a third of the bytes, and nobody sees the difference.
        Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def plot(drawn: Drawn, width: int = 36, height: int = 5) -> list[str]:
    """The curve as lines of braille dots, 2 × 4 to a character, with the title above and the axes beside and below.

    Args:
        width, height: of the plot itself, in characters.
    """
    dots = [[0] * width for _ in range(height)]
    first, last = drawn.points[0][0], drawn.points[-1][0]
    before: int | None = None
    for x in range(2 * width):
        at = first + (last - first) * x / (2 * width - 1)
        rate = min(drawn.points, key=lambda point: abs(point[0] - at))[1]
        y = round((1 - min(max(rate, 0.0), 1.0)) * (4 * height - 1))
        # The line between two columns is drawn in the second, so that a jump is seen.
        for filled in range(min(y, y if before is None else before), max(y, y if before is None else before) + 1):
            dots[filled // 4][x // 2] |= _BRAILLE[filled % 4][x % 2]
        before = y
    label = {0: "1", height - 1: "0"}
    curve = [f"{label.get(row, ''):>2} ┤{''.join(chr(0x2800 + dot) for dot in line)}" for row, line in enumerate(dots)]
    epochs = f"{last:.0f} ep"
    return [f"   {drawn.title}  {drawn.options}".rstrip(), *curve, f"   0{epochs:>{width}}"]


_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def beside(plots: Sequence[list[str]], columns: int) -> str:
    """Plots beside each other, `columns` in a row."""
    rows = []
    for start in range(0, len(plots), columns):
        row = plots[start : start + columns]
        widths = [max(map(len, lines)) for lines in row]
        rows += [
            "   ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
            for texts in zip(*row, strict=True)
        ] + [""]
    return "\n".join(rows[:-1])
