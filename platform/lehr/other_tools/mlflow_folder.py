"""A run's folder in MLflow's file store: a file for each metric, with a line "timestamp value step" for each value."""

from __future__ import annotations

from pathlib import Path

from lehr.errors import JobError
from lehr.other_tools.recorded import Recorded, curve


def is_folder(path: Path) -> bool:
    return (path / "meta.yaml").is_file() and (path / "metrics").is_dir()


def read(path: Path) -> list[Recorded]:
    """Raises JobError for a line that is no value."""
    files = sorted(each for each in (path / "metrics").rglob("*") if each.is_file())
    columns = {}
    for file in files:
        name = file.relative_to(path / "metrics").as_posix()
        points = _points(file)
        if points and not name.startswith("system/"):
            columns[name] = curve(name, points)
    return [Recorded("step", columns, tool="MLflow")]


def _points(file: Path) -> dict[float, float]:
    points = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            _, value, step = line.split()[:3]
            points[float(step)] = float(value)
        except ValueError:
            raise JobError(f'line {number} of {file} is not "timestamp value step"') from None
    return points
