"""How values and choices read in a sentence."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from typing import Any


def printable(text: str) -> str:
    """The text on one line that every terminal can show."""
    return "".join(c if c.isprintable() else "?" for c in text)


def show(value: Any) -> str:
    """A value as a job file would spell it, on one line, shortened to about 60 characters."""
    if isinstance(value, float) and not math.isfinite(value):
        text = ".nan" if math.isnan(value) else "-.inf" if value < 0 else ".inf"
    elif isinstance(value, dict | list | tuple):
        inner = [f"{key}: {show(item)}" for key, item in value.items()] if isinstance(value, dict) else map(show, value)
        text = ("{%s}" if isinstance(value, dict) else "[%s]") % ", ".join(inner)
    elif value is None or isinstance(value, str | int | float):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = f"a Python {type(value).__name__}"
    return printable(text if len(text) <= 60 else text[:57] + "...")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known spelling nearest to `word`, if one is near."""
    found = difflib.get_close_matches(word[:100].lower(), known, n=1)
    return found[0] if found else None


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean cosine? allowed: constant, cosine`, for the end of a sentence."""
    known = list(known)
    near = nearest(word, known)
    return f"; did you mean {near}? allowed: {', '.join(known)}" if near else f"; allowed: {', '.join(known)}"


def not_a_choice(value: Any, noun: str, known: Iterable[str]) -> str:
    """`"cosin" is not a schedule; did you mean cosine? allowed: constant, cosine`."""
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{show(value)} is not {article} {noun}{hint(str(value), known)}"
