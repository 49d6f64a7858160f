"""Which model a run keeps, said beside the verdict, whose figures are those of the curves' end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lehr.curves.findings import Finding
from lehr.curves.record import Curves
from lehr.curves.signals import Signals
from lehr.curves.thresholds import DEFAULT
from lehr.errors import JobError
from lehr.formatting import format_metric
from lehr.job import TrainJob, from_dict
from lehr.tasks.forms import spoken_in_full


def with_model(finding: Finding, curves: Curves) -> Finding:
    """The finding with the epoch of the run's model and its value of `train.metric`, by which it was chosen.

    Only findings that speak of validation rows get it, and none where the curves end at that value: their figures are
    of the curves' end.
    """
    name = str(curves.option("train.metric", "validation_accuracy"))
    values = curves.epoch_column(name)
    known = np.flatnonzero(np.isfinite(values))
    if "validation" not in finding.evidence or not len(known):
        return finding
    if not curves.by_class and finding.name == "too_little":
        return finding
    kept = np.flatnonzero(curves.epochs["epoch"] == curves.kept) if curves.kept else known[:0]
    sign = -1.0 if _lower_is_better(name, curves) else 1.0
    best = kept[0] if np.isin(kept, known).any() else known[int(np.argmax(sign * values[known]))]
    signals = Signals(curves, DEFAULT)
    if name == "validation_accuracy" and f"{values[best]:.1%}" == f"{signals.final(signals.validation):.1%}":
        return finding
    epoch = curves.epochs["epoch"][best]
    said = f"the model is that of epoch {epoch:.0f}, with {spoken_in_full(name)}"
    return replace(finding, evidence=f"{finding.evidence}; {said} {format_metric(float(values[best]), name)}")


def _lower_is_better(name: str, curves: Curves) -> bool:
    try:
        told = {name: said for name in ("metrics", "task") if (said := curves.option(name))}
        job = from_dict({"kind": "train", **told})
    except JobError:  # of a damaged record
        return name.endswith("loss")
    return isinstance(job, TrainJob) and job.lower_is_better(name)
