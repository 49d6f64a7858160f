"""SQL over the records of all runs in a storage folder, by DuckDB. Only tables that a query names are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lehr.curves import verdict
from lehr.errors import LehrError
from lehr.extras import install
from lehr.runs import Folder, RunFolder, list_runs, trainings_in

RUNS: dict[str, pa.DataType] = {
    "run": pa.string(),
    "kind": pa.string(),
    "state": pa.string(),
    "started": pa.timestamp("us", "UTC"),
    "user": pa.string(),
    "metric": pa.string(),
    "best": pa.float64(),
    "best_epoch": pa.int64(),
    "epochs": pa.int64(),
    "seconds": pa.float64(),
    "verdict": pa.string(),
    "message": pa.string(),
    "job": pa.string(),
}
EVENTS: dict[str, pa.DataType] = {
    "run": pa.string(),
    "time": pa.timestamp("us", "UTC"),
    "kind": pa.string(),
    "message": pa.string(),
}


@dataclass(frozen=True)
class Answer:
    """What a query found: the names of its columns, and its rows."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


def tables() -> dict[str, str]:
    """The tables that a query may name, and what each holds."""
    return {
        "runs": "a row for each run; job is the whole job as JSON: job->>'$.optimizer.lr'",
        "trainings": "a row for each training inside a run, such as a trial, whose run is s/trials/0003",
        "epochs": "a row for each epoch of a run or training, with its metrics",
        "steps": "a row for each step of a run or training",
        "events": "a row for each thing that happened in a run or training",
    }


def ask(sql: str, storage: str | Folder) -> Answer:
    """The answer to one `select` over the runs in a storage folder.

    Raises:
        LehrError: DuckDB is not installed, or refuses the query; its sentence says why.
    """
    connection = _connect()
    reader = _Reader(storage if isinstance(storage, Folder) else Folder.at(storage))
    makers: dict[str, Callable[[], pa.Table]] = {
        "runs": lambda: _described(reader.runs),
        "trainings": lambda: _described(reader.trainings),
        "epochs": lambda: _recorded(reader.all, RunFolder.epochs),
        "steps": lambda: _recorded(reader.all, RunFolder.steps),
        "events": lambda: _events(reader.all),
    }
    import duckdb

    try:
        for name, make in makers.items():
            if re.search(rf"\b{name}\b", sql, re.IGNORECASE):
                connection.register(name, make())
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        found = connection.execute(sql)
        return Answer(_apart([column[0] for column in found.description or ()]), found.fetchall())
    except duckdb.Error as error:
        known = ", ".join(makers)
        raise LehrError(f"DuckDB: {str(error).strip()}\nTables: {known}") from None


def _apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names of columns, of which two that are alike get a number."""
    found: list[str] = []
    for name in names:
        again = sum(each == name for each in names[: len(found)])
        found.append(f"{name}_{again + 1}" if again else name)
    return tuple(found)


def _connect() -> Any:
    try:
        import duckdb
    except ImportError:
        raise LehrError(f"a query needs DuckDB: {install('query')}") from None
    return duckdb.connect(":memory:")


@dataclass
class _Reader:
    """The runs of a storage folder, each with its name in a query."""

    storage: Folder

    def __post_init__(self) -> None:
        self.runs: list[tuple[str, RunFolder]] = [(run.name, run) for run in list_runs(self.storage).runs]

    @property
    def trainings(self) -> list[tuple[str, RunFolder]]:
        return [(f"{name}/{path}", each) for name, run in self.runs for path, each in trainings_in(run)]

    @property
    def all(self) -> list[tuple[str, RunFolder]]:
        return [*self.runs, *self.trainings]


def _described(runs: Iterable[tuple[str, RunFolder]]) -> pa.Table:
    """A row for each run."""
    from lehr.runs.lease import Holder

    rows = []
    for name, run in runs:
        progress, holder = run.progress(), Holder.read(run.folder)
        training, best = progress.training, progress.best
        rows.append(
            {
                "run": name,
                "kind": str(run.job.get("kind", "")),
                "state": run.status(),
                "started": _time(run.started),
                "user": holder.user if holder else None,
                "metric": best.metric or None,
                "best": best.value,
                "best_epoch": best.epoch,
                "epochs": training.epochs_done if training else None,
                "seconds": progress.seconds.get("total"),
                "verdict": verdict(run) or None,
                "message": progress.message or None,
                "job": json.dumps(run.job),
            }
        )
    return pa.Table.from_pylist(rows, pa.schema(RUNS))


def _recorded(runs: Iterable[tuple[str, RunFolder]], read: Callable[[RunFolder], pa.Table]) -> pa.Table:
    """The rows of all runs, each with the name of its run; columns that a run lacks are null."""
    found = []
    for name, run in runs:
        table = read(run)
        if table.num_rows:
            found.append(table.add_column(0, "run", pa.array([name] * table.num_rows, pa.string())))
    if not found:
        return pa.table({"run": pa.array([], pa.string())})
    return pa.concat_tables(found, promote_options="permissive")


def _events(runs: Iterable[tuple[str, RunFolder]]) -> pa.Table:
    rows = [
        {"run": name, "time": _time(each["time"]), "kind": each["kind"], "message": each["message"]}
        for name, run in runs
        for each in run.events()
    ]
    return pa.Table.from_pylist(rows, pa.schema(EVENTS))


def _time(text: str) -> Any:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
