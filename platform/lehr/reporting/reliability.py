"""The reliability diagram: how often a model is right that is so sure."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from lehr.calibration import Bin
from lehr.reporting import drawing as draw


def reliability_panel(bins: Sequence[Bin], title: str, color: str, height: int) -> alt.LayerChart:
    """Accuracy against confidence, a dot for each bin; on the dashed line they are equal."""
    values = [
        {
            "confidence": draw.short(100 * each.confidence),
            "accuracy": draw.short(100 * each.accuracy),
            "rows": each.rows,
        }
        for each in bins
    ]
    scale = alt.Scale(domain=[0, 100], nice=False)
    where = {
        "x": alt.X("confidence:Q", scale=scale, title="confidence, %"),
        "y": alt.Y("accuracy:Q", scale=scale, title=None),
    }
    ends = [{"confidence": 0, "accuracy": 0}, {"confidence": 100, "accuracy": 100}]
    diagonal = alt.Chart(alt.InlineData(values=ends))
    base = alt.Chart(alt.InlineData(values=values))
    tips = [
        alt.Tooltip("confidence:Q", format=".1f", title="confidence, %"),
        alt.Tooltip("accuracy:Q", format=".1f", title="accuracy, %"),
        alt.Tooltip("rows:Q", format=",d"),
    ]
    size = alt.Size("rows:Q", scale=alt.Scale(range=[20, 260], domainMin=0), legend=None)
    layers = [
        diagonal.mark_line(color=draw.SPEED, strokeDash=[4, 3], strokeWidth=1.2).encode(**where),
        base.mark_line(color=color, strokeWidth=1.4).encode(**where),
        base.mark_circle(color=color, opacity=0.85).encode(**where, size=size, tooltip=tips),
    ]
    return draw.layer(*layers).properties(height=height, title=title)
