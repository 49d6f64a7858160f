"""What is known of every run in a storage folder, kept up to date by one thread.

Ten thousand runs take seconds to read, so the newest are read first and the page shows what is known. A run that has
ended is read again only when its folder changes.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lehr.errors import LehrError
from lehr.formatting import format_figure
from lehr.intervals import metric_in_words
from lehr.runs import Folder, RunFolder
from lehr.runs.lease import Holder
from lehr.ui import kept

ENDED = ("finished", "stopped", "failed", "unreadable")
EVERY = 2.0  # seconds between two looks at the folder
AT_ONCE = 16  # runs of an object store that are read at the same time

Row = dict[str, Any]


@dataclass
class Index:
    """The rows of a storage folder's runs. `version` grows with every row that changes."""

    storage: Folder
    rows: dict[str, Row] = field(default_factory=dict)
    version: int = 0
    total: int = 0
    problem: str = ""

    def __post_init__(self) -> None:
        self._signs: dict[str, kept.Sign | None] = {}
        self._lock = threading.Lock()
        self._unkept = 0  # rows that were read since the last time they were kept

    def since(self, version: int) -> dict[str, Any]:
        """The rows that changed after a version, and the names of the runs that are gone."""
        with self._lock:
            changed = [row for row in self.rows.values() if row["version"] > version]
            return {
                "version": self.version,
                "total": self.total,
                "problem": self.problem,
                "rows": [row for row in changed if not row["gone"]],
                "gone": [row["name"] for row in changed if row["gone"]],
            }

    def follow(self, stop: threading.Event) -> None:
        """Reads the folder again and again, until `stop` is set."""
        self.recall()
        while not stop.is_set():
            began = time.monotonic()
            self.refresh(stop)
            stop.wait(max(EVERY, 5 * (time.monotonic() - began)))

    def recall(self) -> None:
        """Takes the rows that an earlier server kept; `refresh` reads again what has changed since."""
        if self.storage.is_local:
            for name, (sign, row) in kept.read(self.storage.uri).items():
                self._signs[name] = sign
                self._put(row)

    def keep(self) -> None:
        """Keeps the rows of runs that have ended for the next server."""
        self._unkept = 0
        ended = ((name, self._signs.get(name), row) for name, row in self.rows.items() if row["state"] in ENDED)
        kept.write(self.storage.uri, {name: (sign, row) for name, sign, row in ended if sign and not row["gone"]})

    def refresh(self, stop: threading.Event | None = None) -> None:
        """Reads what changed since the last look."""
        try:
            names = self._names()
        except LehrError as error:
            self.problem = str(error)
            return
        self.problem, self.total = "", len(names)
        for name in self.rows.keys() - set(names):
            if not self.rows[name]["gone"]:
                self._put({**self.rows[name], "gone": True})
        changed = [name for name in names if self._changed(name)]
        with ThreadPoolExecutor(1 if self.storage.is_local else AT_ONCE) as pool:
            for row in pool.map(self._row, changed):
                if stop and stop.is_set():
                    return
                known = self.rows.get(row["name"])
                if known is None or {**known, "version": 0} != {**row, "version": 0}:
                    self._put(row)
                    self._unkept += 1
        if self._unkept >= kept.FEWEST:
            self.keep()

    def _put(self, row: Row) -> None:
        with self._lock:
            self.version += 1
            self.rows[row["name"]] = {**row, "version": self.version}

    def _names(self) -> list[str]:
        """The names of what may be runs, the newest first where that is known."""
        if not self.storage.is_local:
            return list(reversed(self.storage.folders()))
        found = []
        place = self.storage.local_path
        if not place.is_dir():
            raise LehrError(f"{self.storage.uri} is not there yet")
        for path in place.iterdir():
            try:
                if (path / "job.yaml").is_file():
                    found.append((path.stat().st_mtime, path.name))
            except OSError:
                continue
        return [name for _, name in sorted(found, reverse=True)]

    def _changed(self, name: str) -> bool:
        """Whether a run has to be read: a new one, one that goes on, or one whose folder changed."""
        row, sign = self.rows.get(name), self._sign(name)
        same = sign is not None and self._signs.get(name) == sign
        self._signs[name] = sign
        return row is None or row["gone"] or row["state"] not in ENDED or not same

    def _sign(self, name: str) -> kept.Sign | None:
        """What changes with a run's folder; None where that cannot be told."""
        if not self.storage.is_local:
            return ()  # it is read again when it is asked for
        folder = self.storage.local_path / name
        try:
            return tuple(path.stat().st_mtime_ns for path in (folder, folder / "attempts") if path.exists())
        except OSError:
            return None

    def _row(self, name: str) -> Row:
        try:
            return row_of(RunFolder.open(self.storage.child(name)))
        except Exception as error:  # whatever its files raise, the other runs are shown
            return _unreadable(name, str(error))


def row_of(run: RunFolder) -> Row:
    """What the table shows of a run."""
    state, progress, holder = run.status(), run.progress(), Holder.read(run.folder)
    training, best = progress.training, progress.best
    verdict = _verdict(run.folder)
    return {
        "name": run.name,
        "kind": _kind(run.folder),
        "state": state,
        "done": progress.share_done,
        "epoch": f"{training.epochs_done}/{training.epochs}" if training else "",
        "metric": best.metric.replace("_", " ") if best.value is not None else "",
        "value": best.value,
        "shown": _shown(best.value, best.metric, progress.measured_rows),
        "started": run.started,
        "user": holder.user if holder else "",
        "verdict": verdict,
        "left": progress.seconds_left,
        "message": progress.message,
        "gone": False,
        "version": 0,
    }


def _unreadable(name: str, problem: str) -> Row:
    words = ("kind", "epoch", "metric", "shown", "started", "user", "verdict")
    row: Row = dict.fromkeys(words, "")
    return row | {
        "name": name,
        "state": "unreadable",
        "done": None,
        "value": None,
        "left": None,
        "message": problem,
        "gone": False,
        "version": 0,
    }


def _kind(folder: Folder) -> str:
    """The kind of a job, without the seconds that checking ten thousand job files would take."""
    found = re.search(rb"^kind: *['\"]?([a-z]{1,30})", folder.read("job.yaml", 1 << 18), re.MULTILINE)
    return found[1].decode() if found else ""


def _shown(value: float | None, metric: str, rows: Mapping[str, int]) -> str:
    if value is None:
        return ""
    return metric_in_words(value, metric, rows.get("validation")) or format_figure(value, ".4f")


def _verdict(folder: Folder) -> str:
    try:
        return str(folder.read_json("diagnosis.json")["findings"][0]["title"])
    except (FileNotFoundError, LehrError, LookupError, TypeError):
        return ""
