"""TensorBoard: event files in the run folder, written by tensorboardX, which comes with Ray."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lehr.errors import LehrError
from lehr.tracking.sink import Described, Row


def open_sink(described: Described, known: str, folder: Path | None) -> TensorBoard:
    """Raises LehrError for a run that is not on a file system."""
    if folder is None:
        raise LehrError("tensorboard: event files need a run folder on a disk; this one is in an object store")
    return TensorBoard(described, folder / "tensorboard", new=not known)


class TensorBoard:
    def __init__(self, described: Described, where: Path, new: bool) -> None:
        from tensorboardX import SummaryWriter

        logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # it warns of each NaN
        self.id = where.name
        self._writer: Any = SummaryWriter(str(where))
        if new:
            lines = [f"    {path}: {value}" for path, value in described.parameters.items()]
            self._writer.add_text("job", "\n".join(lines))

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in row.values.items():
                self._writer.add_scalar(name, value, row.step)
        self._writer.flush()

    def attach(self, path: Path) -> None:
        """TensorBoard keeps no files; they are in the folder above."""

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        self._writer.add_text("ended", status)
        self._writer.close()
