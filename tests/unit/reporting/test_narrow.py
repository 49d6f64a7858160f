"""The pages of reports on a phone and on a wide screen, in a real browser: no label beside a curve is cut."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.browser import CHROMIUM, NO_CHROMIUM, browser

from lehr.reporting import drawing as draw
from lehr.reporting.page import Section, chart, page

pytestmark = pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM)

DRAWN = "charts.every(each => each.view)"
INSIDE = "charts.every(each => each.view.view.scenegraph().root.bounds.x2 <= each.element.clientWidth + 1)"
TEXTS = "charts.map(each => JSON.stringify(each.view.view.scenegraph().toJSON()))"
PLOTS = "charts.map(each => each.view.view.signal('width') || each.view.view.signal('concat_0_width') || 999)"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_labels_at_the_ends_of_lines_have_room_at_any_width(tmp_path: Path, dark: bool) -> None:
    """At 390 pixels, names of numbers were cut at the edge of the page."""
    x, y = np.arange(1.0, 9.0), np.linspace(50, 90, 8)
    scale = draw.scale_for(y)
    names = "deviation_of_all_pixels", "validation accuracy"
    lines = [(name, draw.TRAIN, x, y + shift) for name, shift in zip(names, (0, 2), strict=True)]
    layers = [
        draw.line(x, y, scale, draw.TRAIN, "a", ".2f"),
        *draw.end_labels(draw.labels(lines, scale, percent=True), scale),
    ]
    panel = draw.panel(layers, "Accuracy, %: words that a phone has no room for", 150)
    file = tmp_path / "page.html"
    file.write_text(page("Title", "lead", [Section("", chart(draw.stack([panel])))]))

    async def look() -> None:
        async with browser() as shown:
            for width in (390, 560, 1280):
                await shown.look(width, 800, dark=dark)
                await shown.open(file.as_uri())
                await shown.until(DRAWN)
                assert await shown.value(INSIDE), width
                assert await shown.value("document.documentElement.scrollWidth") <= width
                assert min(await shown.value(PLOTS)) >= 110, "the plot itself has room too"
                texts = str(await shown.value(TEXTS))
                assert "90.0" in texts, "the number stays"
            assert shown.console == []

    asyncio.run(look())
