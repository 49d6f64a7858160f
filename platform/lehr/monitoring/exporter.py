"""Tells Ray's metrics, and a Grafana where one is named, how a job goes.

A thread of the driver reads the run folder every few seconds, as anyone else could, and sets gauges: the training loop
knows nothing of it, and a metric costs the workers nothing. Whatever goes wrong here is written to the log, once, and
never reaches the job.

Environment variables, read when a job starts:
    LEHR_METRICS_TRIALS: `1` also exports the runs within a run (trials, members, steps), as label `trial`.
    LEHR_GRAFANA_URL, with LEHR_GRAFANA_TOKEN or LEHR_GRAFANA_TOKEN_FILE: annotations go there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lehr.monitoring import ray_side
from lehr.monitoring.annotations import Annotator, annotator_from
from lehr.monitoring.metrics import LABELS, samples
from lehr.runs import RunFolder

MOST_CHILDREN = 64  # runs within a run that are exported at a time: no search makes series without bound
LOOK_AGAIN_SECONDS = 60.0  # a run within a run that has ended may be taken up again
RECORDS = ("attempts", "checkpoints", "epochs", "events", "model")  # folders of a run that hold no runs
CLOCKS = ("updated", "seconds", "seconds_left", "examples_per_second")  # move on even where a job is stuck

_LOG = logging.getLogger(__name__)


@contextmanager
def exporting(run: RunFolder, kind: str) -> Iterator[None]:
    """While inside, the job's metrics are exported through Ray, once it runs, and its events become annotations."""
    exporter = Exporter(run, kind, environment=os.environ)
    exporter.start()
    try:
        yield
    finally:
        exporter.stop()


class Exporter:
    """Reads a run folder every few seconds, in a thread, and exports what it says."""

    def __init__(self, run: RunFolder, kind: str, environment: Mapping[str, str]) -> None:
        self._run, self._kind = run, kind
        # Ray sends its metrics on every 10 s and forgets after 20 s: each is set several times in between.
        self._every = 2.0 if run.folder.is_local else 5.0
        self._with_children = environment.get("LEHR_METRICS_TRIALS") == "1"
        self._annotator: Annotator | None = annotator_from(environment, run)
        self._gauges: dict[str, Any] = {}
        self._seen: dict[str, tuple[str, float]] = {}
        self._ended: dict[str, float] = {}
        self._skipped: int | None = None
        self._told = False
        self._before = run.progress().get("updated")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lehr-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Exports once more, so that the last state is seen, and ends the thread."""
        self._end.set()
        self._thread.join(timeout=15.0)

    def _work(self) -> None:
        while not self._end.wait(self._every):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            progress = self._run.progress()
            # What an earlier attempt left is none of this one's business.
            if progress and progress.get("updated") != self._before:
                self._export(progress)
            if self._annotator:
                self._annotator.look()
        except Exception as error:
            if not self._told:
                self._told = True
                _LOG.warning("metrics: %s: %s; training is not affected", type(error).__name__, error)

    def _export(self, progress: dict[str, Any]) -> None:
        if not (self._gauges or ray_side.running()):
            return
        alive = self._news("", progress)
        for found, (place, child, theirs) in enumerate(self._going(self._run, progress)):
            since = self._news(place, theirs)
            alive = max(alive, since)
            if self._with_children and found < MOST_CHILDREN:
                self._set({**theirs, "changed": since}, child.job.get("kind", ""), place)
        if "skipped_images" in progress:
            progress = {**progress, "skipped_images": progress["skipped_images"] + self._skipped_before()}
        self._set({**progress, "changed": alive}, self._kind, "")

    def _news(self, place: str, progress: dict[str, Any]) -> float:
        """Since when a run says what it says now."""
        news = repr({name: value for name, value in progress.items() if name not in CLOCKS})  # in which NaN is NaN
        seen, since = self._seen.get(place, ("", 0.0))
        if news != seen:
            since = time.time()
            self._seen[place] = (news, since)
        return since

    def _going(
        self, run: RunFolder, progress: dict[str, Any], above: str = ""
    ) -> Iterator[tuple[str, RunFolder, dict[str, Any]]]:
        """The runs within a run that are going on, theirs included: their places, folders and progress."""
        if "children" not in progress:
            return
        for group in run.folder.folders():
            for name in () if group in RECORDS else run.folder.child(group).folders():
                place = f"{above}{group}/{name}"
                if time.time() - self._ended.get(place, 0.0) < LOOK_AGAIN_SECONDS:
                    continue
                child = RunFolder(run.folder.child(group, name))
                theirs = child.progress()
                if theirs.get("status") == "running":
                    yield place, child, theirs
                    yield from self._going(child, theirs, f"{place}/")
                elif theirs:
                    self._ended[place] = time.time()

    def _skipped_before(self) -> int:
        """Images that could not be read when the data were decoded, before training began."""
        if self._skipped is None:
            data = self._run.folder.read_json("environment.json").get("data") or {}
            self._skipped = int((data.get("unreadable") or {}).get("count", 0))
        return self._skipped

    def _set(self, progress: dict[str, Any], kind: str, place: str) -> None:
        if not self._gauges:
            self._gauges = ray_side.gauges()
        tags = dict(zip(LABELS, (self._run.name, kind, place), strict=True))
        for sample in samples(progress):
            self._gauges[sample.metric.name].set(sample.value, {**tags, **sample.labels})
