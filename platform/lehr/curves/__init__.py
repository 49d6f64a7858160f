"""Learning curves: charts of what a run recorded, and the diagnosis of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lehr.errors import RunError
from lehr.runs import RunFolder

if TYPE_CHECKING:
    from lehr.curves.findings import Diagnosis
    from lehr.curves.record import Curves


def diagnose_run(run: RunFolder) -> Diagnosis:
    """What the curves of a run show so far; also written to `diagnosis.json` in its folder."""
    from lehr.curves.record import Curves

    return _diagnose(run, Curves.read(run))


def _diagnose(run: RunFolder, curves: Curves) -> Diagnosis:
    from lehr.curves.diagnosis import diagnose

    diagnosis = diagnose(curves)
    diagnosis.write(run.folder)
    return diagnosis


def verdict(run: RunFolder) -> str:
    """The first finding of a run's last diagnosis, in one line; empty where there is none."""
    from lehr.curves.findings import Diagnosis

    diagnosis = Diagnosis.read(run.folder)
    if diagnosis is None:
        return ""
    first = diagnosis.first
    return first.summary + (f"; try: {first.command}" if first.command else "")


def write_curves(run: RunFolder) -> Path | None:
    """Writes `curves.png`, `diagnosis.json` and `report.html` into the run folder, from what was recorded so far.

    Returns:
        The local path of the picture; None where nothing was recorded yet, and for a run on remote storage.
    """
    from lehr.curves import charts, report  # the libraries that draw take a second to import
    from lehr.curves.record import Curves
    from lehr.reporting.drawing import png

    curves = Curves.read(run)
    diagnosis = _diagnose(run, curves)
    if not len(curves.steps["step"]):
        return None
    drawn = charts.run_chart(curves)
    run.folder.write("curves.png", png(drawn, curves.name, [report.subtitle(curves), diagnosis.first.summary]))
    run.folder.write("report.html", report.report_page(run, curves, diagnosis, drawn).encode())
    return run.folder.local_path / "curves.png" if run.folder.is_local else None


def write_comparison(runs: Sequence[RunFolder], out: Path) -> tuple[Path, Path]:
    """Writes `compare.html` and `compare.png` into the folder `out`: the curves of several runs on the same axes.

    Raises:
        RunError: fewer than two runs, or one of them has recorded no steps yet.
    """
    from lehr.curves import charts, report
    from lehr.curves.diagnosis import diagnose
    from lehr.curves.record import Curves
    from lehr.reporting.drawing import png

    if len(runs) < 2:
        raise RunError(f"a comparison needs two or more runs, and got {len(runs)}")
    read = [Curves.read(run) for run in runs]
    for curves in read:
        if not len(curves.steps["step"]):
            raise RunError(f"{curves.name} has recorded no steps yet, so it cannot be compared")
    page, picture = out / "compare.html", out / "compare.png"
    out.mkdir(parents=True, exist_ok=True)
    page.write_text(report.compare_page(read, [diagnose(curves) for curves in read]), encoding="utf-8")
    changed = report.differences(read)
    difference = f"Differences: {', '.join(changed)}" if changed else "The same job"
    picture.write_bytes(png(charts.compare_chart(read), report.comparison_title(read), [difference]))
    return page, picture
