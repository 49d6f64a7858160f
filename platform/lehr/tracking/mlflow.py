"""MLflow: a run in the experiment that MLFLOW_EXPERIMENT_NAME names, at the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from lehr.tracking.sink import Described, Row

EXPERIMENT = "lehr"
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 500  # of one request, and characters of a parameter
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}

T = TypeVar("T")


def open_sink(described: Described, known: str, folder: Path | None) -> MLflow:
    return MLflow(described, known)


class MLflow:
    def __init__(self, described: Described, known: str) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # we try again ourselves
        self._client: Any = MlflowClient()
        if known:
            self.id = known
            self._client.update_run(known, status="RUNNING")
            return
        tags = {
            "mlflow.source.name": "lehr",
            "mlflow.source.type": "JOB",
            "mlflow.note.content": described.notes,
            "lehr.kind": described.kind,
            "lehr.folder": described.folder,
        }
        tags |= {"mlflow.parentRunId": described.parent} if described.parent else {}
        run = self._client.create_run(self._experiment(), run_name=described.name, tags=tags)
        self.id = str(run.info.run_id)
        said = [Param(path, str(value)[:LONGEST]) for path, value in described.parameters.items()]
        for some in chunks(said, MOST_PARAMETERS):
            self._client.log_batch(self.id, params=some)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def log(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = (Metric(name, value, now, row.step) for row in rows for name, value in row.values.items())
        for some in chunks(metrics, MOST_METRICS):
            self._client.log_batch(self.id, metrics=some)

    def attach(self, path: Path) -> None:
        self._client.log_artifact(self.id, str(path))

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        self.log([Row(0, {f"best/{name}": value for name, value in summary.items()})])
        self._client.set_terminated(self.id, STATUS[status])


def chunks(values: Iterable[T], size: int) -> Iterable[list[T]]:
    """The values in lists of at most `size`."""
    left = iter(values)
    while some := list(islice(left, size)):
        yield some
