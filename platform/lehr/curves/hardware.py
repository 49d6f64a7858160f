"""How busy the first worker's machine was while it trained, for a training's report."""

from __future__ import annotations

import altair as alt
import numpy as np

from lehr.curves.record import Curves
from lehr.reporting import drawing as draw
from lehr.reporting.page import Section, chart, paragraph

PANELS = (
    ("cpu_cores", 1.0, "Cores in use", ".2f", draw.TRAIN),
    ("memory_bytes", 1e-9, "Memory, GB", ".2f", draw.GRADIENT),
    ("gpu_use", 100.0, "GPU in use, % of the time", ".0f", draw.VALIDATION),
    ("gpu_memory_bytes", 1e-9, "GPU memory, GB", ".2f", draw.RATE),
)
"""Column of the step table, what it is multiplied by, title, how a value is told, colour."""
HEIGHT = 70  # pixels
FEWEST = 2  # measurements that make a line


def hardware_section(curves: Curves) -> Section | None:
    """A panel for each thing that was measured; None where the run was too short for that."""
    panels = [each for each in (_panel(curves, *row) for row in PANELS) if each is not None]
    if not panels:
        return None
    lead = "Of the first worker's process, measured every two seconds. Images that Ray decodes for it are not in it."
    return Section("How busy the machine was", paragraph(lead, soft=True) + chart(draw.stack(panels)), folded=True)


def _panel(curves: Curves, column: str, scale: float, title: str, form: str, color: str) -> alt.LayerChart | None:
    values = curves.steps.get(column)
    measured = np.isfinite(values) if values is not None else np.zeros(0, bool)
    if values is None or measured.sum() < FEWEST:
        return None
    x, y = curves.steps["epoch"][measured], scale * values[measured]
    axis = alt.Scale(domain=[0, float(y.max()) * 1.1 or 1.0], nice=False)
    layers = [
        draw.line(x, y, axis, color, title, form, points=True),
        *draw.end_labels(draw.labels([("", color, x, y)], axis), axis),
    ]
    return draw.panel(layers, title, HEIGHT)
