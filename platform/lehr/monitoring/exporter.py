"""Exports how a job is doing: to Ray's metrics, and as annotations to a Grafana if one is configured.

A thread of the driver reads the run folder every few seconds, as any reader could, and sets gauges: the training loop
does not know about it, and a metric costs the workers nothing. Errors here are logged once and never affect the job.

Environment variables, read when a job starts:
    LEHR_METRICS_TRIALS: `1` also exports the runs within a run (trials, members, steps), with the label `trial`.
    LEHR_GRAFANA_URL, with LEHR_GRAFANA_TOKEN or LEHR_GRAFANA_TOKEN_FILE: where annotations go.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from lehr.monitoring import ray_side
from lehr.monitoring.annotations import Annotator, annotator_from
from lehr.monitoring.metrics import LABELS, Observation, samples
from lehr.runs import Environment, Progress, RunFolder

MOST_CHILDREN = 64  # runs within a run that are exported at a time, so that the number of series stays bounded
CHECK_ENDED_AGAIN_SECONDS = 60.0  # a run within a run that has ended may be resumed
RECORDS = ("attempts", "checkpoints", "epochs", "events", "model")  # folders of a run that hold no runs

_LOG = logging.getLogger(__name__)


@contextmanager
def exporting(run: RunFolder, kind: str) -> Iterator[None]:
    """Inside this context the job's metrics are exported through Ray and its events become annotations."""
    exporter = Exporter(run, kind, environment=os.environ)
    exporter.start()
    try:
        yield
    finally:
        exporter.stop()


class Exporter:
    """Reads a run folder every few seconds, in a thread, and exports its progress."""

    def __init__(self, run: RunFolder, kind: str, environment: Mapping[str, str]) -> None:
        self._run, self._kind = run, kind
        # Ray forwards its metrics every 10 s and forgets them after 20 s: each is set several times in between.
        self._interval = 2.0 if run.folder.is_local else 5.0
        self._with_children = environment.get("LEHR_METRICS_TRIALS") == "1"
        self._annotator: Annotator | None = annotator_from(environment, run)
        self._gauges: dict[str, ray_side.Gauge] = {}
        self._last_news: dict[str, tuple[str, float]] = {}
        self._ended: dict[str, float] = {}
        self._skipped: int | None = None
        self._warned = False
        self._updated_before = run.progress().updated
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lehr-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Exports once more, so that the last state is visible, and ends the thread."""
        self._stopping.set()
        self._thread.join(timeout=15.0)

    def _work(self) -> None:
        while not self._stopping.wait(self._interval):
            self.poll()
        self.poll()

    def poll(self) -> None:
        """Reads the run folder once and exports what it says."""
        try:
            progress = self._run.progress()
            if progress.updated != self._updated_before:  # else an earlier attempt wrote it
                self._export(progress)
            if self._annotator:
                self._annotator.poll()
        except Exception as error:
            if not self._warned:
                self._warned = True
                _LOG.warning("metrics: %s: %s; training is not affected", type(error).__name__, error)

    def _export(self, progress: Progress) -> None:
        if not (self._gauges or ray_side.running()):
            return
        changed = self._changed("", progress)
        for found, (path, child, theirs) in enumerate(self._running_children(self._run, progress)):
            child_changed = self._changed(path, theirs)
            changed = max(changed, child_changed)
            if self._with_children and found < MOST_CHILDREN:
                self._set(Observation(theirs, child_changed), str(child.job.get("kind", "")), path)
        self._set(Observation(self._with_skipped_before(progress), changed), self._kind, "")

    def _changed(self, path: str, progress: Progress) -> float:
        """When a run's progress last said something new."""
        content = repr(_without_clocks(progress))  # as text, in which NaN equals NaN
        known, since = self._last_news.get(path, ("", 0.0))
        if content != known:
            since = time.time()
            self._last_news[path] = (content, since)
        return since

    def _running_children(
        self, run: RunFolder, progress: Progress, above: str = ""
    ) -> Iterator[tuple[str, RunFolder, Progress]]:
        """The running runs within a run, and those within them: their paths, folders and progress."""
        if not (progress.overview and progress.overview.children):
            return
        for group in run.folder.folders():
            for name in () if group in RECORDS else run.folder.child(group).folders():
                path = f"{above}{group}/{name}"
                if time.time() - self._ended.get(path, 0.0) < CHECK_ENDED_AGAIN_SECONDS:
                    continue
                child = RunFolder(run.folder.child(group, name))
                theirs = child.progress()
                if theirs.status == "running":
                    yield path, child, theirs
                    yield from self._running_children(child, theirs, f"{path}/")
                elif theirs.status != "new":
                    self._ended[path] = time.time()

    def _with_skipped_before(self, progress: Progress) -> Progress:
        """The progress with the images that could not be read when the data was decoded, before training began."""
        training = progress.training
        if training is None:
            return progress
        if self._skipped is None:
            data = Environment.read(self._run.folder).data
            self._skipped = data.unreadable.count if data and data.unreadable else 0
        return replace(progress, training=replace(training, skipped_images=training.skipped_images + self._skipped))

    def _set(self, seen: Observation, kind: str, path: str) -> None:
        if not self._gauges:
            self._gauges = ray_side.gauges()
        tags = dict(zip(LABELS, (self._run.name, kind, path), strict=True))
        for sample in samples(seen):
            self._gauges[sample.metric.name].set(sample.value, {**tags, **sample.labels})


def _without_clocks(progress: Progress) -> Progress:
    """The progress without what moves on even if the job is stuck."""
    training = progress.training and replace(progress.training, examples_per_second=None)
    return replace(progress.without_estimate(), updated=None, seconds={}, training=training)
