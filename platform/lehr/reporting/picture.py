"""A chart as its user holds it: a notebook shows it, and it saves itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import altair as alt

from lehr.errors import LehrError
from lehr.printing import printable_tree
from lehr.reporting import drawing
from lehr.reporting.page import Section, chart, page

FORMS = (".png", ".svg", ".html")


class Picture:
    """A chart with its title.

    Attributes:
        chart: the Altair chart, to be changed.
    """

    def __init__(self, chart: alt.VConcatChart, title: str, subtitle: Sequence[str] = ()) -> None:
        self.chart, self.title, self.subtitle = chart, title, tuple(subtitle)

    def save(self, path: str | Path) -> Path:
        """Writes it as `.png`, `.svg` or `.html`; the page needs no network.

        Raises:
            LehrError: for another ending.
        """
        target = Path(path)
        if target.suffix not in FORMS:
            raise LehrError(f"{target}: a picture ends in {', '.join(FORMS[:-1])} or {FORMS[-1]}")
        if target.suffix == ".html":
            target.write_text(page(self.title, ", ".join(self.subtitle), [Section("", chart(self.chart))]))
        elif target.suffix == ".svg":
            target.write_text(self._svg())
        else:
            target.write_bytes(self._repr_png_())
        return target

    def _repr_png_(self) -> bytes:
        return drawing.png(self.chart, self.title, self.subtitle)

    def _svg(self) -> str:
        import vl_convert

        looks = {"config": drawing.LIGHT, "background": "white", "padding": 20, "title": self.title}
        return vl_convert.vegalite_to_svg(printable_tree({**self.chart.to_dict(validate=False), **looks}))

    def __repr__(self) -> str:
        return f"Picture({self.title!r})"
