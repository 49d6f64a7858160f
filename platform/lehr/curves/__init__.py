"""Learning curves: charts of what a run recorded, and the diagnosis of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lehr.errors import RunError
from lehr.runs import RunFolder, trainings_in

if TYPE_CHECKING:
    from lehr.curves.findings import Diagnosis
    from lehr.curves.record import Curves
    from lehr.reporting.picture import Picture


def diagnose_run(run: RunFolder) -> Diagnosis:
    """What the curves of a run show so far; of a cross-validation those of its folds. Writes nothing.

    Raises:
        RunError: the run has none of its own, since it is made of trainings; the sentence names one of them.
    """
    from lehr.curves.record import Curves

    if run.job.get("kind") == "folds":
        from lehr.curves.of_folds import FOLDER, diagnose_folds

        if begun := [fold for fold in run.children(FOLDER) if len(fold.steps())]:
            return diagnose_folds(run.name, begun)
    _refuse_without_curves(run)
    return _diagnosed(run, Curves.read(run))


def _diagnosed(run: RunFolder, curves: Curves) -> Diagnosis:
    """What its curves show, with what probes measured of it."""
    from lehr.curves.diagnosis import diagnose
    from lehr.curves.findings import with_measured
    from lehr.curves.measured import Measured

    steps = curves.steps["step"]
    return with_measured(diagnose(curves), Measured.read(run.folder, int(steps[-1]) if len(steps) else -1))


def _refuse_without_curves(run: RunFolder) -> None:
    kind = run.job.get("kind")
    if kind not in ("search", "recipe", "ensemble", "transfer", "predict", "folds"):  # a damaged one is told elsewhere
        return
    what = f"{run.name} is a run of kind {kind}, which has no learning curves of its own"
    if kind == "predict":
        raise RunError(f"{what}; allowed: the run that it predicts with: lehr diagnose {run.job.get('run')}")
    parts = [path for path, _ in trainings_in(run)]
    best = run.progress().best.trial
    chosen = best if best in parts else next(iter(parts), None)
    which = "the best of them" if chosen and chosen == best else "one of them"
    hint = f"those of its trainings have, such as {which}: lehr diagnose {run.name}/{chosen}"
    raise RunError(f"{what}; {hint}" if chosen else f"{what}, and no training of it has begun")


def verdict(run: RunFolder) -> str:
    """The first finding of a run's last diagnosis, and what to type, in one line; empty where there is none."""
    from lehr.curves.findings import Diagnosis
    from lehr.curves.typed import as_typed

    diagnosis = Diagnosis.read(run.folder)
    if diagnosis is None:
        return ""
    first = diagnosis.first
    return first.summary + (f"; try: {as_typed(first.rerun, run)}" if first.rerun else "")


def write_curves(run: RunFolder) -> Path | None:
    """Writes `curves.png`, `diagnosis.json` and `report.html` into the run folder, from what was recorded so far.

    Returns:
        The local path of the picture; None where nothing was recorded yet, and for a run on remote storage.
    """
    from lehr.curves import charts, report  # the libraries that draw take a second to import
    from lehr.curves.record import Curves
    from lehr.reporting.drawing import png

    curves = Curves.read(run)
    diagnosis = _diagnosed(run, curves)
    diagnosis.write(run.folder)
    if not len(curves.steps["step"]):
        return None
    drawn = charts.run_chart(curves)
    run.folder.write("curves.png", png(drawn, curves.name, [report.subtitle(curves), diagnosis.first.summary]))
    run.folder.write("report.html", report.report_page(run, curves, diagnosis, drawn).encode())
    return run.folder.local_path / "curves.png" if run.folder.is_local else None


def curves_of(runs: Sequence[RunFolder]) -> Picture:
    """The curves of a training, or of several on the same axes, from what they recorded so far.

    Raises:
        RunError: nothing was recorded yet.
    """
    from lehr.curves import charts, report
    from lehr.curves.record import Curves
    from lehr.reporting.picture import Picture

    read = [curves for curves in map(Curves.read, runs) if len(curves.steps["step"])]
    if not read:
        raise RunError(f"{', '.join(run.name for run in runs)}: nothing was recorded yet, so there are no curves")
    if len(read) == 1:
        return Picture(charts.run_chart(read[0]), read[0].name, [report.subtitle(read[0])])
    changed = report.differences(read)
    below = [f"Differences: {', '.join(changed)}"] if changed else []
    return Picture(charts.compare_chart(read), report.comparison_title(read), below)


def comparison(runs: Sequence[RunFolder]) -> tuple[str, bytes, str]:
    """The curves of several runs on the same axes: a page, a picture as PNG, and why they cannot be ranked, if so.

    Raises:
        RunError: fewer than two runs, or one of them has recorded no steps yet.
    """
    from lehr.curves import charts, report
    from lehr.curves.comparable import not_comparable
    from lehr.curves.diagnosis import diagnose
    from lehr.curves.more_rows import advise_folds
    from lehr.curves.record import Curves
    from lehr.reporting.drawing import png

    if len(runs) < 2:
        raise RunError(f"a comparison needs two or more runs, and got {len(runs)}")
    read = [Curves.read(run) for run in runs]
    for curves in read:
        if not len(curves.steps["step"]):
            raise RunError(f"{curves.name} has recorded no steps yet, so it cannot be compared")
    few = [advice for run in runs if (advice := advise_folds(run, run.progress()))]
    page = report.compare_page(read, [diagnose(curves) for curves in read], few)
    changed = report.differences(read)
    difference = f"Differences: {', '.join(changed)}" if changed else "The same job"
    warning = not_comparable(read)
    below = [difference, *([warning] if warning else [])]
    return page, png(charts.compare_chart(read), report.comparison_title(read), below), warning
