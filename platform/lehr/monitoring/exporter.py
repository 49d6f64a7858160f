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
        self._set(self._whole(progress), self._kind, "")
        for place, child in self._children():
            self._set(self._whole(child.progress(), place), child.job.get("kind", ""), place)

    def _whole(self, progress: dict[str, Any], place: str = "") -> dict[str, Any]:
        """The progress with what only a reader over time knows: since when it says the same."""
        news = repr({name: value for name, value in progress.items() if name not in CLOCKS})  # in which NaN is NaN
        seen, since = self._seen.get(place, ("", 0.0))
        if news != seen:
            since = time.time()
            self._seen[place] = (news, since)
        skipped = progress.get("skipped_images")
        if place == "" and skipped is not None:
            progress = {**progress, "skipped_images": skipped + self._skipped_before()}
        return {**progress, "changed": since}

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

    def _children(self) -> Iterator[tuple[str, RunFolder]]:
        """The runs within this run that are going on, with their places, at most `MOST_CHILDREN`."""
        if not self._with_children:
            return
        found = 0
        for group in ("trials", "members", "steps"):
            for child in self._run.children(group):
                if found < MOST_CHILDREN and child.progress().get("status") == "running":
                    found += 1
                    yield f"{group}/{child.name}", child
