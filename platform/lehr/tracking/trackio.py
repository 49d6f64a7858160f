"""Trackio: a run of the project that TRACKIO_PROJECT names, in its local database, or a space of Hugging Face's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import Any

from lehr.tracking.sink import Described, Row

PROJECT = "lehr"


def open_sink(described: Described, known: str, folder: Path | None) -> Trackio:
    return Trackio(described)


class Trackio:
    def __init__(self, described: Described) -> None:
        import trackio

        with redirect_stdout(stderr):  # it prints how to see the dashboard
            self._run: Any = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT") or PROJECT,
                name=described.name,
                group=described.group,
                config={**described.parameters, "kind": described.kind, "folder": described.folder},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.id = described.name  # it knows runs by their names

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log(dict(row.values), step=row.step)

    def attach(self, path: Path) -> None:
        """Trackio keeps no files of a run."""

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        if summary:
            self._run.log({f"best/{name}": value for name, value in summary.items()})
        with redirect_stdout(stderr):
            self._run.finish()
