"""Further pictures of a training's predictions: the confusion of pixels, precision over recall of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from lehr.reporting.page import Section, heat, paragraph, small_curves, table

MOST_CELLS = 16
"""With more classes than this the pairs that are confused most often are listed instead of the whole matrix."""
MOST_PAIRS, MOST_CURVES = 20, 24
MOST_NAMES = 300
"""Classes of a matrix that is read back, at most: a run may be of somebody else."""


def panel_sections(panels: Sequence[Mapping[str, Any]]) -> list[Section]:
    """A section for each panel (`lehr.tasks.base.Panel`) that can be drawn; one that is damaged has none."""
    found = []
    for panel in panels:
        draw = {"confusion": _confusion, "curves": _curves}.get(str(panel.get("kind")))
        try:
            body = draw(panel["content"]) if draw else None
        except (KeyError, TypeError, ValueError, AttributeError):
            body = None
        if body is not None:
            found.append(Section(str(panel.get("title", "")), body))
    return found


def _confusion(content: Mapping[str, Any]) -> Markup | None:
    """By true class the shares of what was found for it."""
    names = [str(each) for each in content["names"]]
    counts = np.array(content["counts"], np.float64)
    if len(names) > MOST_NAMES or counts.shape != (len(names), len(names)) or not np.isfinite(counts).all():
        return None
    true = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(true, 1)
    lead = paragraph("Of the pixels of each true class, what they were taken for.", soft=True)
    if len(names) <= MOST_CELLS:
        cells = [[_share(share) if share else "" for share in line] for line in shares.tolist()]
        return lead + heat(shares.tolist(), cells, names, "true class ↓   found →")
    wrong = counts * ~np.eye(len(names), dtype=bool)
    most = [divmod(int(at), len(names)) for at in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]]
    pairs = [(names[i], names[j], _share(shares[i, j])) for i, j in most if wrong[i, j]]
    return lead + table(pairs, ["true class", "taken for", "of its pixels"])


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _curves(content: Mapping[str, Any]) -> Markup | None:
    """A small picture for each class, with both axes from 0 to 1."""
    lines = []
    for line in list(content["lines"])[:MOST_CURVES]:
        points = [(float(x), float(y)) for x, y in zip(line["x"], line["y"], strict=True)]
        if all(math.isfinite(value) and 0 <= value <= 1 for point in points for value in point):
            lines.append((str(line["name"]), str(line.get("told", "")), points[:1000]))
    if not lines:
        return None
    over = f"{content['y']} over {content['x']}, both from 0 to 1. {content.get('about', '')}".strip()
    more = len(content["lines"]) - len(lines)
    lead = paragraph(over + (f" {more} more classes are left out." if more > 0 else ""), soft=True)
    return lead + small_curves(lines)
