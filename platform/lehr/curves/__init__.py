"""Learning curves: pictures of what a run recorded, and what they say."""

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
    """What the curves of a run say so far; also written as `diagnosis.json` into its folder."""
    from lehr.curves.record import Curves

    return _diagnose(run, Curves.read(run))


def _diagnose(run: RunFolder, curves: Curves) -> Diagnosis:
    from lehr.curves.diagnosis import diagnose

    diagnosis = diagnose(curves)
    run.folder.write_json("diagnosis.json", diagnosis.to_dict())
    return diagnosis


def verdict(run: RunFolder) -> str:
    """What the last diagnosis of a run put first, in one line; empty where there was none."""
    try:
        first = run.folder.read_json("diagnosis.json")["findings"][0]
        return f"{first['title']}: {first['evidence']}" + (f"; try: {first['command']}" if first["command"] else "")
    except (FileNotFoundError, RunError, LookupError, TypeError):  # none yet, or damaged: it can be made again
        return ""


def write_curves(run: RunFolder) -> Path | None:
    """Writes `curves.png`, `diagnosis.json` and `report.html` into the run folder, from what was recorded so far.

    Returns:
        The local path of the picture; None where nothing was recorded yet, and for a run on remote storage.
    """
    from lehr.curves import charts, report  # drawing takes a second to import: only who draws pays it
    from lehr.curves.record import Curves

    curves = Curves.read(run)
    diagnosis = _diagnose(run, curves)
    if not len(curves.steps["step"]):
        return None
    first = diagnosis.first
    words = [report.subtitle(curves), f"{first.title}: {first.evidence}"]
    drawn = charts.run_chart(curves)
    run.folder.write("curves.png", charts.png(drawn, curves.name, words))
    run.folder.write("report.html", report.report_page(run, curves, diagnosis, drawn).encode())
    return run.folder.local_path / "curves.png" if run.folder.is_local else None


def write_comparison(runs: Sequence[RunFolder], out: Path) -> tuple[Path, Path]:
    """Writes `compare.html` and `compare.png` into the folder `out`: the curves of several runs beside each other.

    Raises:
        RunError: fewer than two runs, or one of them has recorded no steps yet.
    """
    from lehr.curves import charts, report
    from lehr.curves.diagnosis import diagnose
    from lehr.curves.record import Curves

    if len(runs) < 2:
        raise RunError(f"{len(runs)} run is nothing to compare; give two or more")
    read = [Curves.read(run) for run in runs]
    for curves in read:
        if not len(curves.steps["step"]):
            raise RunError(f"{curves.name} has recorded no steps yet; there is nothing to compare")
    page, picture = out / "compare.html", out / "compare.png"
    out.mkdir(parents=True, exist_ok=True)
    page.write_text(report.compare_page(read, [diagnose(curves) for curves in read]), encoding="utf-8")
    changed = report.differences(read)
    words = f"differ in {', '.join(changed)}" if changed else "the same job"
    picture.write_bytes(charts.png(charts.compare_chart(read), f"{len(read)} runs beside each other", [words]))
    return page, picture
