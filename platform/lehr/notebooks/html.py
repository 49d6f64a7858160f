"""Pieces of HTML for the output of a cell. Everything that users wrote is escaped, control characters are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from lehr.printing import printable

FAINT = "opacity:.65"
CELL = "text-align:left;padding:2px 14px 2px 0"


def text(words: str, style: str = "") -> str:
    """A line of text; lines within it stay lines."""
    shown = escape(printable(words)).replace("\n", "<br>")
    return f'<div style="margin:2px 0;text-align:left;{style}">{shown}</div>'


def bar(share: float, before: str, after: str) -> str:
    """How much is done, between two texts."""
    done = round(100 * min(max(share, 0.0), 1.0))
    return (
        '<div style="display:flex;gap:12px;align-items:center;margin:6px 0">'
        f'<b>{escape(printable(before))}</b><progress max="100" value="{done}" style="width:220px"></progress>'
        f'<span>{done}%</span><span style="{FAINT}">{escape(printable(after))}</span></div>'
    )


def facts(known: Iterable[tuple[str, str]]) -> str:
    """Figures side by side, each below its name."""
    cells = "".join(
        f'<div><div style="font-size:11px;{FAINT}">{escape(printable(name))}</div>'
        f"<div>{escape(printable(value))}</div></div>"
        for name, value in known
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 24px;margin:6px 0;text-align:left">{cells}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text."""
    head = "".join(f'<th style="{CELL}">{escape(printable(name))}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{escape(printable(cell))}</td>' for cell in row) + "</tr>" for row in rows
    )
    whole = f'<table style="font-size:inherit"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div style="overflow-x:auto">{whole}</div>'


def side_by_side(charts: Iterable[str]) -> str:
    """Charts beside each other where there is room."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(charts)}</div>'


def bundle(parts: Iterable[str], plain: Sequence[str]) -> Mapping[str, str]:
    """What a front end chooses from: HTML, or plain text where it shows none."""
    return {"text/html": f"<div>{''.join(parts)}</div>", "text/plain": printable("\n".join(plain))}
