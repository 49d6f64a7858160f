"""Learning curves: pictures of what a run recorded."""

from __future__ import annotations

from pathlib import Path

from lehr.runs import RunFolder


def write_curves(run: RunFolder) -> Path | None:
    return None
